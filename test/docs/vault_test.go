package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// vault is a real scaivault dev with the engine and the role that the page names.
type vault struct {
	bin   string // folder of the program
	url   string
	pg    *pgtest.Server
	db    string
	admin *client.Client

	adminToken string
}

// identity is a service account and a token of it.
type identity struct{ identity, clientID, clientSecret, token string }

func startVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{bin: build(t), pg: pgtest.Shared(t, 17)}
	v.startServer(t)
	v.makeRole(t)
	return v
}

// build makes the program, and psql where there is none, in a folder for PATH.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	targets := []string{"build", "-o", bin, "../../cmd/scaivault"}
	if _, err := exec.LookPath("psql"); err != nil {
		targets = append(targets, "./psql")
	}
	if out, err := exec.Command("go", targets...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func (v *vault) startServer(t *testing.T, env ...string) {
	t.Helper()
	dir := t.TempDir()
	server := exec.Command(filepath.Join(v.bin, "scaivault"), "dev", "--data", dir)
	server.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_RATE_LIMITS=off"}
	server.Env = append(server.Env, env...)
	var log strings.Builder
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Errorf("scaivault dev ended with %v:\n%s", err, &log)
		}
	})
	var dev struct{ URL, Token string }
	v.eventually(t, "the server is ready", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "dev.json"))
		return err == nil && json.Unmarshal(text, &dev) == nil
	})
	v.url, v.adminToken = dev.URL, dev.Token
	admin, err := client.New(client.Config{URL: dev.URL, Token: dev.Token})
	if err != nil {
		t.Fatal(err)
	}
	v.admin = admin
}

// makeRole makes what the page takes for granted. Lives are so short, and the
// query so long, that nothing works without renewing. Who calls itself quick gets
// a quick answer.
func (v *vault) makeRole(t *testing.T) {
	t.Helper()
	ctx := t.Context()
	v.db = v.pg.CreateDB(t)
	root, password := v.pg.NewRoot(t, pgtest.CreateRole)
	v.pg.ExecIn(t, v.db, `CREATE VIEW tickets AS SELECT i AS id FROM (
			SELECT i, pg_sleep(CASE current_setting('application_name') WHEN 'quick' THEN 0.1 ELSE 3 END) AS slow FROM generate_series(1, 3) AS i OFFSET 0
		) AS t WHERE slow IS NOT NULL;
		GRANT USAGE ON SCHEMA public TO `+root+` WITH GRANT OPTION; GRANT SELECT ON tickets TO `+root+` WITH GRANT OPTION`)

	secret := map[string]json.RawMessage{"username": quoted(root), "password": quoted(password)}
	_, err := v.admin.WriteSecret(ctx, "infra/postgres/support/root", api.SecretWrite{Data: secret})
	must(t, err)
	v.allow(t, "support-db-root", "dynamic:support-db", "system", "infra/postgres/support/root", "read")
	config, err := json.Marshal(map[string]string{
		"plugin": "postgresql", "root_credentials_path": "infra/postgres/support/root",
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", v.pg.Addr(), v.db),
	})
	must(t, err)
	_, err = v.admin.CreateEngine(ctx, api.EngineRequest{Name: "support-db", Type: "database", Config: config})
	must(t, err)
	_, err = v.admin.CreateRole(ctx, "support-db", client.Document{
		"name": "readonly", "default_ttl": "6s", "max_ttl": "14s",
		"privileges": []string{"USAGE ON SCHEMA public", "SELECT ON TABLE public.tickets"},
	})
	must(t, err)
}

func (v *vault) newIdentity(t *testing.T, name string) identity {
	t.Helper()
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{Name: name, Scopes: []string{"dynamic:generate"}})
	must(t, err)
	v.allow(t, name, account.IdentityID, "service_account", "dynamic/support-db/readonly", "dynamic:generate")
	token, err := v.admin.ClientCredentials(t.Context(), account.ClientID, account.ClientSecret)
	must(t, err)
	return identity{account.IdentityID, account.ClientID, account.ClientSecret, token.AccessToken}
}

func (v *vault) allow(t *testing.T, name, identity, kind, pattern string, permission api.Permission) {
	t.Helper()
	p, err := v.admin.CreatePolicy(t.Context(), api.PolicyRequest{
		Name: name, Rules: []api.PolicyRule{{PathPattern: pattern, Permissions: []api.Permission{permission}}},
	})
	must(t, err)
	_, err = v.admin.BindPolicy(t.Context(), p.ID, api.BindingRequest{IdentityType: kind, IdentityID: identity})
	must(t, err)
}

// environ is what the page says that a program finds.
func (v *vault) environ(who identity, dir string, more ...string) []string {
	return append(more,
		"PATH="+v.bin+":"+os.Getenv("PATH"), "HOME="+dir,
		"SCAIVAULT_URL="+v.url, "SCAIVAULT_TOKEN="+who.token,
		"SCAIVAULT_CLIENT_ID="+who.clientID, "SCAIVAULT_CLIENT_SECRET="+who.clientSecret,
		"PGHOST=127.0.0.1", "PGPORT="+strconv.Itoa(v.pg.Port), "PGDATABASE="+v.db, "PGSSLMODE=disable",
	)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quoted(text string) json.RawMessage {
	b, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return b
}
