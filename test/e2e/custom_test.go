package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/customtest"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCustom is the life of credentials that a program makes: the example of the guide.
func TestCustom(t *testing.T) {
	t.Parallel()
	folder := customtest.New(t)
	tenants := customtest.NewTenants(t, folder, pgtest.Shared(t, 17))
	v := newVault(t, folder.Env()...)
	v.customEngine(t, "tenants", customtest.Program, tenants)
	v.role(t, "tenants", client.Document{"name": "acme", "parameters": client.Document{"tenant": "acme"}})
	v.role(t, "tenants", client.Document{"name": "other", "parameters": client.Document{"tenant": "other"}})
	app := v.account(t, "app", "dynamic/tenants/*")

	use := func(c *api.Credential, sql string) error {
		t.Helper()
		conn, err := tenants.Login(t.Context(), c.Data)
		if err != nil {
			return err
		}
		defer conn.Close(t.Context())
		_, err = conn.Exec(t.Context(), sql)
		return err
	}
	get := func(role string, life time.Duration) *api.Credential {
		t.Helper()
		ttl := api.Duration(life)
		c, err := app.GenerateCredential(t.Context(), "tenants", role, api.CredsRequest{TTL: &ttl})
		if err != nil {
			t.Fatalf("%v; output: %s", err, v.Output())
		}
		v.remember(c.Data["password"])
		return &c
	}
	one, other := get("acme", time.Hour), get("other", time.Hour)
	if err := use(one, "CREATE TABLE notes (text text); INSERT INTO notes VALUES ('one')"); err != nil {
		t.Error(err)
	}
	if err := use(other, "SELECT * FROM tenant_acme.notes"); !hasCode(err, "42501") {
		t.Errorf("another tenant reads it: %v", err)
	}
	open, err := tenants.Login(t.Context(), one.Data)
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"SET ROLE NONE", "CREATE TABLE tenant_acme.own (id int)", "BEGIN", "INSERT INTO notes VALUES ('two')"} {
		if _, err := open.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	longer := api.Duration(90 * time.Minute)
	if _, err := app.RenewLease(t.Context(), one.LeaseID, api.RenewRequest{TTL: &longer}); err != nil {
		t.Errorf("renew: %v", err)
	}
	if pending, err := app.RevokeLease(t.Context(), one.LeaseID, 0); err != nil || pending != nil {
		t.Errorf("revoke: %v, %v", pending, err)
	}
	if _, err := open.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a session goes on after the revocation was answered")
	}
	if err := use(one, "SELECT 1"); !refusedLogin(err) {
		t.Errorf("who was revoked logs in: %v", err)
	}
	if err := use(get("acme", time.Hour), "SELECT * FROM notes, own"); err != nil {
		t.Errorf("what the tenant has made is gone: %v", err)
	}

	short := get("acme", time.Second)
	v.Kill(t)
	v.again(t)
	eventually(t, time.Minute, "who expired while ScaiVault was dead is refused", func() bool { return v.lease(t, short.LeaseID).Status == api.LeaseRevoked })
	if err := use(short, "SELECT 1"); !refusedLogin(err) {
		t.Errorf("who expired logs in: %v", err)
	}
	if result, err := v.admin.RevokePrefix(t.Context(), "tenants", time.Minute); err != nil || result.Pending != 0 {
		t.Errorf("%+v, %v", result, err)
	}
	if left := append(tenants.Names(t, "v_acme_"), tenants.Names(t, "v_other_")...); len(left) > 0 {
		t.Errorf("left at the source: %v", left)
	}
	if h, err := v.admin.EngineHealth(t.Context(), "tenants"); err != nil || h.Status != "healthy" {
		t.Errorf("health: %+v, %v", h, err)
	}
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
}

// customEngine makes an engine of a program; tenants may be nil for one without a root.
func (v *vault) customEngine(t *testing.T, name, command string, tenants *customtest.Tenants) {
	t.Helper()
	config := map[string]any{"runtime": "exec", "command": command, "operation_timeout": "60s"}
	if tenants != nil {
		v.remember(tenants.Password)
		_, err := v.admin.WriteSecret(t.Context(), rootPath(name), api.SecretWrite{Data: map[string]json.RawMessage{
			"username": quoted(tenants.Root), "password": quoted(tenants.Password),
		}})
		if err != nil {
			t.Fatalf("write the root secret: %v", err)
		}
		config["root_credentials_path"], config["parameters"] = rootPath(name), tenants.Parameters()
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: name, Type: "custom", Config: raw}); err != nil {
		t.Fatalf("make the engine: %v; output: %s", err, v.Output())
	}
}

// TestCustomRefuses: what is no program of the operator's is refused when the engine is saved; a
// program that fails is an engine_error with its code and none of its words, and what it may have made
// is revoked.
func TestCustomRefuses(t *testing.T) {
	t.Parallel()
	folder := customtest.New(t)
	folder.Add(t, "fails", []byte(`#!/bin/sh
read -r request
case "$request" in
*'"function":"check"'*) echo '{"ok": true}';;
*'"function":"revoke"'*) echo '{}';;
*) echo "hunter2hunter2"; exit 3;;
esac
`))
	v := newVault(t, folder.Env()...)
	for _, command := range []string{"absent", "../fails", "/bin/sh", folder.Dir + "/fails", ""} {
		_, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: "own", Type: "custom",
			Config: json.RawMessage(`{"runtime": "exec", "command": "` + command + `"}`)})
		mustFail(t, command, err, client.InvalidConfig)
	}
	v.customEngine(t, "own", "fails", nil)
	v.role(t, "own", client.Document{"name": "any"})
	_, err := v.admin.GenerateCredential(t.Context(), "own", "any", api.CredsRequest{})
	mustFail(t, "a program that fails", err, client.EngineError)
	var refused *client.Error
	if errors.As(err, &refused) && (refused.Details["code"] != "program_failed" || strings.Contains(refused.Message, "hunter2")) {
		t.Errorf("%+v", refused)
	}
	// It is dead for good when the program's time is over, until which nobody knows.
	eventually(t, time.Minute, "what it may have made is revoked", func() bool {
		leases, err := client.Collect(v.admin.Leases(t.Context(), client.LeaseFilter{Engine: "own"}))
		return err == nil && len(leases) == 1 && leases[0].Revocation != nil && leases[0].Revocation.Reason == api.ReasonIssueFailed &&
			leases[0].Revocation.Attempts > 0
	})
}

// TestCustomCheck: authors try the example out by the command, and see what another does wrong.
func TestCustomCheck(t *testing.T) {
	t.Parallel()
	folder := customtest.New(t)
	tenants := customtest.NewTenants(t, folder, pgtest.Shared(t, 15))
	folder.Add(t, "wrong", []byte("#!/bin/sh\nread -r request\necho '{\"ok\": true}'\n"))
	check := func(program, stdin string, more ...string) (string, error) {
		cmd := exec.Command(vaulttest.Program(t), append([]string{"custom", "check", filepath.Join(folder.Dir, program), "--user", folder.User, "--operation-timeout", "60s"}, more...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	parameters, err := json.Marshal(tenants.Parameters())
	if err != nil {
		t.Fatal(err)
	}
	out, err := check(customtest.Program, `{"username": "`+tenants.Root+`", "password": "`+tenants.Password+`"}`,
		"--root", "-", "--parameters", string(parameters), "--role-parameters", `{"tenant": "acme"}`)
	if err != nil || strings.Count(out, "pass  ") != 13 || strings.Contains(out, tenants.Password) {
		t.Errorf("%v\n%s", err, out)
	}
	if left := tenants.Names(t, "v_trial_"); len(left) > 0 {
		t.Errorf("left at the source: %v", left)
	}
	if out, err := check("wrong", ""); err == nil || !strings.Contains(out, "FAIL  issue makes a credential") || !strings.Contains(out, "laws are not kept") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := check("absent", ""); err == nil || !strings.Contains(out, "there is no program absent") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestNeighbourOfHostilePrograms: while programs of other engines fork, loop and flood, each asked for as
// often as the product lets one caller ask, an engine of the same server gives and ends credentials. How
// much longer that takes is printed, not judged: it is the machine's affair. The same without hostile
// programs is measured before and after.
func TestNeighbourOfHostilePrograms(t *testing.T) {
	t.Parallel()
	folder := customtest.New(t)
	const healthy = `#!/bin/sh
read -r request
case "$request" in
*'"function":"check"'*) echo '{"ok": true}'; exit;;
*'"function":"revoke"'*) echo '{}'; exit;;
esac
`
	for name, script := range map[string]string{
		"forks":  `while :; do setsid sh -c 'while :; do setsid sleep 1000 & done' & done`,
		"loops":  `while :; do :; done`,
		"floods": `exec cat /dev/zero`,
	} {
		folder.Add(t, name, []byte(healthy+script+"\n"))
	}
	v := newVault(t, folder.Env()...)
	s := newSource(t, pgtest.Shared(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	lives := func(n int) (times []time.Duration) {
		for range n {
			begun := time.Now()
			v.revoke(t, v.issue(t, v.admin, "db", "reader", time.Minute))
			times = append(times, time.Since(begun))
		}
		slices.Sort(times)
		return times
	}
	lives(5)
	before := lives(size(50, 2000))

	ctx, cancel := context.WithCancel(t.Context())
	var hostile sync.WaitGroup
	for _, name := range []string{"forks", "loops", "floods"} {
		_, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: name, Type: "custom", Config: json.RawMessage(`{"runtime": "exec", "command": "` + name + `"}`)})
		if err != nil {
			t.Fatal(err)
		}
		v.role(t, name, client.Document{"name": "any"})
		hostile.Go(func() {
			turn := time.NewTicker(time.Minute / 100)
			defer turn.Stop()
			for ctx.Err() == nil {
				select {
				case <-turn.C:
				case <-ctx.Done():
				}
				_, err := v.ask(ctx, v.admin, name, "any", 0)
				if ctx.Err() == nil && !errors.Is(err, client.EngineError) && !errors.Is(err, client.EngineUnavailable) {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	beside := lives(size(50, 20000))
	cancel()
	hostile.Wait()
	after := lives(size(50, 2000))
	alone := slices.Sorted(slices.Values(slices.Concat(before, after)))
	quantile := func(times []time.Duration, q int) time.Duration { return times[len(times)*q/100] }
	ratio := func(a, b []time.Duration) float64 { return float64(quantile(a, 99)) / float64(quantile(b, 99)) }
	t.Logf("a credential made and ended, p50 and p99: %d alone %s, %s, after to before p99 times %.2f; %d beside hostile programs %s, %s: p99 times %.2f",
		len(alone), quantile(alone, 50), quantile(alone, 99), ratio(after, before), len(beside), quantile(beside, 50), quantile(beside, 99), ratio(beside, alone))
}
