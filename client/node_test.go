package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// start gives an administrator's client of a real server.
func start(t *testing.T) *client.Client {
	t.Helper()
	settings := map[string]string{"DATA_DIR": t.TempDir(), "BIND_ADDRESS": "127.0.0.1:0", "METRICS_ADDRESS": "off", "SCAIVAULT_RATE_LIMITS": "off"}
	c, err := config.Load(func(name string) (string, bool) { return settings[name], settings[name] != "" })
	must(t, err)
	n, err := node.Start(t.Context(), c, node.Options{Logger: slog.New(slog.DiscardHandler), Dev: true})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		must(t, n.Shutdown(ctx))
	})
	admin, err := client.New(client.Config{URL: n.URL(), Token: n.Token().Reveal()})
	must(t, err)
	return admin
}

// Every call is understood by the server, and its answer by the client.
func TestAgainstTheServer(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := start(t)

	health, err := c.Health(ctx)
	must(t, err)
	ready, err := c.Ready(ctx)
	must(t, err)
	version, err := c.Version(ctx)
	must(t, err)
	if health.Status != "ok" || ready.Status != "ready" || version.API != "v1" {
		t.Errorf("got %+v, %+v, %+v", health, ready, version)
	}
	detailed, err := c.DetailedHealth(ctx)
	must(t, err)
	if detailed.Node == "" {
		t.Errorf("got %+v", detailed)
	}
	document, err := c.OpenAPI(ctx)
	must(t, err)
	if len(document) < 1000 {
		t.Errorf("the description has %d bytes", len(document))
	}
	me, err := c.WhoAmI(ctx)
	must(t, err)

	t.Run("secrets", func(t *testing.T) {
		t.Parallel()
		secrets(t, c)
	})
	t.Run("identities", func(t *testing.T) {
		t.Parallel()
		identities(t, c)
	})
	t.Run("credentials", func(t *testing.T) {
		t.Parallel()
		credentials(t, c)
	})
	t.Cleanup(func() {
		entries, err := client.Collect(c.IdentityAudit(context.Background(), me.IdentityID, client.AuditFilter{Action: "write"}))
		must(t, err)
		if len(entries) == 0 {
			t.Error("nothing that was written is on record")
		}
		verified, err := c.VerifyAudit(context.Background())
		must(t, err)
		if !verified.OK {
			t.Errorf("the record does not verify: %+v", verified)
		}
		summary, err := c.AuditSummary(context.Background(), time.Time{}, time.Time{})
		must(t, err)
		if summary.Total == 0 {
			t.Errorf("got %+v", summary)
		}
	})
}

func secrets(t *testing.T, c *client.Client) {
	ctx, path := t.Context(), "app/db"
	none, one, owner := 0, 1, "team"
	_, err := c.WriteSecret(ctx, path, api.SecretWrite{Data: fields("a", "first"), Options: &api.SecretOptions{CAS: &none}})
	must(t, err)
	_, err = c.WriteSecret(ctx, path, api.SecretWrite{Data: fields("a", "second"), Options: &api.SecretOptions{CAS: &none}})
	wantCode(t, err, client.VersionConflict)
	_, err = c.WriteSecret(ctx, path, api.SecretWrite{Data: fields("a", "second"), Options: &api.SecretOptions{CAS: &one}})
	must(t, err)
	_, err = c.UpdateSecret(ctx, path, api.SecretPatch{Metadata: &api.SecretMetadataPatch{Owner: &owner}})
	must(t, err)

	s, err := c.ReadSecret(ctx, path, 0)
	must(t, err)
	old, err := c.ReadSecret(ctx, path, 1)
	must(t, err)
	if s.Version != 2 || string(s.Data["a"]) != `"second"` || s.Metadata.Owner != "team" || string(old.Data["a"]) != `"first"` {
		t.Errorf("got %+v and %+v", s, old)
	}
	versions, err := c.SecretVersions(ctx, path)
	must(t, err)
	metadata, err := c.SecretMetadata(ctx, path)
	must(t, err)
	if len(versions) != 2 || metadata.Version != 2 || len(metadata.Data) != 0 {
		t.Errorf("got %+v and %+v", versions, metadata)
	}
	batch, err := c.ReadSecrets(ctx, path, "app/none")
	must(t, err)
	if len(batch) != 2 || batch[0].Secret == nil || batch[1].Error == nil {
		t.Errorf("got %+v", batch)
	}
	listed, err := client.Collect(c.Secrets(ctx, "app"))
	must(t, err)
	if len(listed) != 1 || listed[0].Path != path {
		t.Errorf("got %+v", listed)
	}
	_, err = c.DeleteSecret(ctx, path)
	must(t, err)
	_, err = c.ReadSecret(ctx, path, 0)
	wantCode(t, err, client.SecretNotFound)
	_, err = c.UndeleteSecret(ctx, path)
	must(t, err)
	must(t, c.DestroySecret(ctx, path))
	entries, err := client.Collect(c.SecretAudit(ctx, path, client.AuditFilter{}))
	must(t, err)
	if len(entries) < 9 {
		t.Errorf("%d entries are on record", len(entries))
	}
}

func identities(t *testing.T, c *client.Client) {
	ctx := t.Context()
	account, err := c.CreateServiceAccount(ctx, api.ServiceAccountRequest{Name: "ci", Scopes: []string{"secrets:read"}})
	must(t, err)
	got, err := c.ServiceAccount(ctx, account.ID)
	must(t, err)
	if got.IdentityID != "sa:ci" || got.ClientSecret != "" {
		t.Errorf("got %+v", got)
	}
	program, err := client.New(client.Config{URL: c.URL(), ClientID: account.ClientID, ClientSecret: account.ClientSecret})
	must(t, err)
	me, err := program.WhoAmI(ctx)
	must(t, err)
	if me.IdentityID != "sa:ci" {
		t.Errorf("got %+v", me)
	}

	p, err := c.CreatePolicy(ctx, api.PolicyRequest{Name: "readers", Rules: []api.PolicyRule{{PathPattern: "x/*", Permissions: []api.Permission{"read"}}}})
	must(t, err)
	b, err := c.BindPolicy(ctx, p.ID, api.BindingRequest{IdentityType: "service_account", IdentityID: "sa:ci"})
	must(t, err)
	decision, err := c.TestPolicies(ctx, api.PolicyTestRequest{IdentityID: "sa:ci", Path: "x/y", Permission: "read"})
	must(t, err)
	if !decision.Allowed {
		t.Errorf("got %+v", decision)
	}
	_, err = program.ReadSecret(ctx, "x/y", 0)
	wantCode(t, err, client.SecretNotFound)
	_, err = program.ReadSecret(ctx, "z/y", 0)
	wantCode(t, err, client.AccessDenied)
	_, err = program.WriteSecret(ctx, "x/y", api.SecretWrite{Data: fields("a", "b")})
	wantCode(t, err, client.InsufficientScope)
	must(t, c.UnbindPolicy(ctx, p.ID, b.ID))
	must(t, c.DeletePolicy(ctx, p.ID, false))

	token, err := c.CreateToken(ctx, api.TokenRequest{Name: "laptop", Scopes: []string{"secrets:read"}})
	must(t, err)
	about, err := c.Introspect(ctx, token.Token)
	must(t, err)
	if !about.Active || about.Scope != "secrets:read" {
		t.Errorf("got %+v", about)
	}
	must(t, c.DeleteToken(ctx, token.ID, false))
	person, err := client.New(client.Config{URL: c.URL(), Token: token.Token})
	must(t, err)
	_, err = person.WhoAmI(ctx)
	if code := codeOf(err); code != client.TokenRevoked && code != client.TokenInvalid {
		t.Errorf("a deleted token gives %v", err)
	}
	must(t, c.DeleteServiceAccount(ctx, account.ID, true))
}

func credentials(t *testing.T, c *client.Client) {
	ctx := t.Context()
	pg := pgtest.Shared(t, 17)
	db := pg.CreateDB(t)
	root, password := pg.NewRoot(t, pgtest.CreateRole)
	pg.ExecIn(t, db, "GRANT USAGE ON SCHEMA public TO "+root+" WITH GRANT OPTION")
	_, err := c.WriteSecret(ctx, "pg/root", api.SecretWrite{Data: fields("username", root, "password", password)})
	must(t, err)
	p, err := c.CreatePolicy(ctx, api.PolicyRequest{Name: "pg-root", Rules: []api.PolicyRule{{PathPattern: "pg/root", Permissions: []api.Permission{"read", "rotate"}}}})
	must(t, err)
	_, err = c.BindPolicy(ctx, p.ID, api.BindingRequest{IdentityType: "system", IdentityID: "dynamic:db"})
	must(t, err)

	request := api.EngineRequest{Name: "db", Type: "database", Config: json.RawMessage(fmt.Sprintf(
		`{"plugin": "postgresql", "root_credentials_path": "pg/root", "connection_url": "postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable"}`, pg.Addr(), db))}
	_, err = c.CreateEngine(ctx, request)
	must(t, err)
	_, err = c.ReplaceEngine(ctx, "db", request, false)
	must(t, err)
	maximum := api.Duration(4 * time.Hour)
	engine, err := c.UpdateEngine(ctx, "db", api.EnginePatch{MaxTTL: &maximum}, false)
	must(t, err)
	state, err := c.EngineHealth(ctx, "db")
	must(t, err)
	if engine.MaxTTL != maximum || state.Status != api.EngineHealthy {
		t.Errorf("got %+v and %+v", engine, state)
	}
	role := client.Document{"name": "ro", "privileges": []string{"USAGE ON SCHEMA public"}, "default_ttl": "1h", "max_ttl": "2h"}
	_, err = c.CreateRole(ctx, "db", role)
	must(t, err)
	_, err = c.UpdateRole(ctx, "db", "ro", client.Document{"default_ttl": "30m"})
	must(t, err)
	test, err := c.TestRole(ctx, "db", "ro")
	must(t, err)
	if !test.OK {
		t.Errorf("got %+v", test)
	}

	lease, err := c.Generate(ctx, "db", "ro", client.GenerateOptions{Metadata: map[string]string{"k": "v"}})
	must(t, err)
	if lease.TTL != 30*time.Minute || login(t, pg, db, lease) != nil {
		t.Errorf("%v lives %v and logs in: %v", lease, lease.TTL, login(t, pg, db, lease))
	}
	must(t, lease.Renew(ctx))
	if left := time.Until(lease.Expires()); left < 29*time.Minute || left > 31*time.Minute {
		t.Errorf("renewed, it lives %v", left)
	}
	must(t, lease.Close(ctx))
	must(t, lease.Close(ctx))
	if login(t, pg, db, lease) == nil {
		t.Error("closed, it logs in")
	}
	wantCode(t, lease.Renew(ctx), client.LeaseRevoked)
	_, err = c.Generate(ctx, "db", "ro", client.GenerateOptions{TTL: 5 * time.Hour})
	wantCode(t, err, client.InvalidDuration)
	record, err := c.Lease(ctx, lease.ID)
	must(t, err)
	if record.Status != api.LeaseRevoked || record.Metadata["k"] != "v" {
		t.Errorf("got %+v", record)
	}

	one, err := c.Generate(ctx, "db", "ro", client.GenerateOptions{})
	must(t, err)
	_, err = c.DeleteRole(ctx, "db", "ro", false)
	wantCode(t, err, client.RoleInUse)
	result, err := c.RevokePrefix(ctx, "db/ro", 10*time.Second)
	must(t, err)
	if result.Matched != 1 || result.Revoked != 1 || login(t, pg, db, one) == nil {
		t.Errorf("got %+v", result)
	}
	if result, err = c.RevokeBy(ctx, api.RevokeFilterRequest{Engine: "db", Role: "ro"}, 0); err != nil || result.Matched != 0 {
		t.Errorf("got %+v, %v", result, err)
	}
	found, err := c.Reconcile(ctx, "db", false)
	must(t, err)
	if len(found.Orphans) != 0 {
		t.Errorf("got %+v", found)
	}
	_, err = c.RotateRoot(ctx, "db")
	must(t, err)
	pending, err := c.DeleteRole(ctx, "db", "ro", true)
	must(t, err)
	if pending {
		t.Error("nothing is left that the role waits for")
	}
	_, err = c.DeleteEngine(ctx, "db", false)
	must(t, err)
	_, err = c.Engine(ctx, "db")
	wantCode(t, err, client.EngineNotFound)
}

func login(t *testing.T, pg *pgtest.Server, db string, lease *client.Lease) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), pg.URL(lease.Username(), lease.Password(), db))
	if err == nil {
		err = conn.Close(t.Context())
	}
	return err
}

func fields(pairs ...string) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = json.RawMessage(fmt.Sprintf("%q", pairs[i+1]))
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func codeOf(err error) client.Code {
	var e *client.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func wantCode(t *testing.T, err error, code client.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Errorf("got %v, want %s", err, code)
	}
}
