//go:build cloud

package azure_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// variable is one that tells of a real tenant; the guide names them.
func variable(name string) string { return os.Getenv("SCAIVAULT_TEST_AZURE_" + name) }

// TestCloud is the life of credentials on a real tenant: make test-cloud.
func TestCloud(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"TENANT_ID", "CLIENT_ID", "CLIENT_SECRET", "SCOPE"} {
		if variable(name) == "" {
			t.Fatalf("SCAIVAULT_TEST_AZURE_%s is not set", name)
		}
	}
	e := openReal(t)
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Fatalf("health: %+v", h)
	}
	form := map[string]any{"azure_roles": []map[string]string{{"role_name": "Reader", "scope": variable("SCOPE")}}, "permanently_delete": true}
	if group := variable("GROUP"); group != "" {
		form["azure_groups"] = []string{group}
	}
	forms := map[string]map[string]any{"application": form}
	if id := variable("APPLICATION"); id != "" {
		forms["password"] = map[string]any{"application_object_id": id}
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := json.Marshal(form)
			if err != nil {
				t.Fatal(err)
			}
			role := parseRole(t, string(raw))
			warnings, err := e.PrepareRole(t.Context(), "real", role)
			if err != nil {
				t.Fatalf("try the role: %v", err)
			}
			t.Logf("warnings: %v", warnings)
			liveReal(t, e, role)
		})
	}
}

func openReal(t *testing.T) engineUnderTest {
	t.Helper()
	config, err := json.Marshal(map[string]any{
		"tenant_id": variable("TENANT_ID"), "environment": variable("ENVIRONMENT"), "root_credentials_path": "infra/root", "operation_timeout": "3m",
	})
	if err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	return open(t, engine.Options{
		Installation: "inst_real", EngineID: "eng_real", EngineName: "real", Node: "real", Epoch: 1, Config: config,
		Root: map[string]statement.Secret{
			"client_id": statement.Secret(variable("CLIENT_ID")), "client_secret": statement.Secret(variable("CLIENT_SECRET")),
		},
		Namer: statement.NewNamer("inst_real", []byte("key of the real tests"), nil), Dial: dialer.DialContext, Logger: slog.New(slog.DiscardHandler),
	})
}

// engineUnderTest is what a life needs of the engine.
type engineUnderTest interface {
	engine.Engine
	engine.RolePreparer
	engine.Lister
}

// liveReal makes a credential, finds it, and ends it. That it logs in is what Issue waits for.
func liveReal(t *testing.T, e engineUnderTest, role engine.Role) {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "real", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	p.Deadline = time.Now().Add(3 * time.Minute)
	t.Cleanup(func() { // whatever happened
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if _, err := e.Revoke(ctx, p.Recipe); err != nil {
			t.Errorf("end %s: %v", p.Username, err)
		}
	})
	begun := time.Now()
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	t.Logf("%s was issued in %s", p.Username, time.Since(begun))
	if found, err := e.Lookup(t.Context(), p.Recipe); err != nil || found.State != engine.Usable {
		t.Errorf("it is looked up as %d, %v", found.State, err)
	}
	accounts, err := e.List(t.Context())
	if err != nil || !slices.ContainsFunc(accounts, func(a engine.Account) bool { return a.Username == p.Username }) {
		t.Errorf("it is not among the %d that are listed: %v", len(accounts), err)
	}
	begun = time.Now()
	outcome, err := e.Revoke(t.Context(), recipe)
	if err != nil || outcome.Residue != "" || outcome.EffectiveAt == nil {
		t.Errorf("revoke: %+v, %v", outcome, err)
	}
	t.Logf("it was revoked in %s", time.Since(begun))
	if found, err := e.Lookup(t.Context(), recipe); err != nil || found.State != engine.Absent {
		t.Errorf("after the revocation it is looked up as %d, %v", found.State, err)
	}
}
