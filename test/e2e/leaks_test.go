package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// readableByPurpose are the files whose purpose it is to hold a secret.
var readableByPurpose = []string{"seal.key", "bootstrap-token", "dev.json"}

// searchOutput looks for what went through the server in its output and in every
// file of its store, and for panics.
func (v *vault) searchOutput(t *testing.T) {
	t.Helper()
	output := v.Output()
	for _, never := range []string{"panic", "DATA RACE", "goroutine "} {
		if at := strings.Index(output, never); at >= 0 {
			t.Errorf("the server said %q: %s", never, output[at:min(len(output), at+3000)])
		}
	}
	find := v.finder()
	find(t, "the output", []byte(output))
	for path, content := range v.files(t) {
		find(t, path, content)
	}
}

// files are those of the store, the write-ahead log included.
func (v *vault) files(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(v.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || slices.Contains(readableByPurpose, entry.Name()) {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Errorf("read the store: %v", err)
	}
	return files
}

// finder searches a text once for all remembered secrets, by their first bytes:
// there are thousands, and the texts are large.
func (v *vault) finder(except ...string) func(t *testing.T, place string, text []byte) {
	const head = 8
	v.mu.Lock()
	defer v.mu.Unlock()
	byHead := map[[head]byte][]string{}
	for _, secret := range v.secrets {
		if len(secret) >= head && !slices.Contains(except, secret) {
			byHead[[head]byte([]byte(secret))] = append(byHead[[head]byte([]byte(secret))], secret)
		}
	}
	return func(t *testing.T, place string, text []byte) {
		t.Helper()
		for i := 0; i+head <= len(text); i++ {
			for _, secret := range byHead[[head]byte(text[i:i+head])] {
				if bytes.HasPrefix(text[i:], []byte(secret)) {
					t.Errorf("%s holds a secret, %.4s..., near %q", place, secret, text[max(0, i-60):i])
					return
				}
			}
		}
	}
}

// Every way in and every way out: a canary goes in wherever a secret can, right
// and wrong requests are made, PostgreSQL logs every statement, and then all
// that was written anywhere is searched.
func TestNoSecretLeaves(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 17, pgtest.WithSetting("log_statement", "all"), pgtest.WithSetting("log_min_error_statement", "debug5"),
		pgtest.WithSetting("log_min_duration_statement", "0"), pgtest.WithSetting("log_parameter_max_length", "-1"),
		pgtest.WithSetting("log_parameter_max_length_on_error", "-1"))
	s := newSource(t, server, createRole)
	v := newVault(t, "LOG_LEVEL=debug")
	v.engine(t, s, "db", nil)
	ctx := t.Context()

	// What the superuser set up is in PostgreSQL's log with the root's first
	// password, so root gets another one, which only ScaiVault has ever sent.
	var said []string // what callers were told
	tell := func(err error) {
		if err == nil {
			t.Fatal("this was to be refused")
		}
		said = append(said, err.Error(), fmt.Sprintf("%+v", err))
		var refused *client.Error
		if errors.As(err, &refused) {
			said = append(said, fmt.Sprint(refused.Details))
		}
	}
	v.rotateRoot(t, "db")

	v.role(t, "db", reader("reader"))
	v.role(t, "db", direct("direct"))
	broken := direct("broken")
	broken["creation_statements"] = []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`, `SELECT 1/(NOT EXISTS (SELECT FROM pg_roles WHERE rolname LIKE 'v\_reader\_%'))::int`}
	v.role(t, "db", broken)

	// Secrets, of every type of value, right and wrong.
	canary := "canary-data-Zk93hWq1"
	v.remember(canary)
	write := func(path string, more *api.SecretOptions) error {
		_, err := v.admin.WriteSecret(ctx, path, api.SecretWrite{Data: map[string]json.RawMessage{
			"text": quoted(canary), "deep": json.RawMessage(`{"list": ["` + canary + `"]}`),
		}, SecretType: "json", Options: more})
		return err
	}
	if err := write("apps/canary", nil); err != nil {
		t.Fatal(err)
	}
	wrong := 7
	tell(write("apps/canary", &api.SecretOptions{CAS: &wrong}))
	tell(write("Apps/Canary", nil))
	_, err := v.admin.WriteSecret(ctx, "apps/broken", api.SecretWrite{SecretType: canary, Data: map[string]json.RawMessage{"a": quoted(canary)}})
	tell(err)
	if _, err := v.admin.ReadSecret(ctx, "apps/canary", 0); err != nil {
		t.Fatal(err)
	}

	// A URL with a password in it, a password that does not work, a literal one
	// in a template.
	inURL := "canary-url-Ub61rTz8"
	v.remember(inURL)
	bad := s.document("bad", nil)
	bad.Config = json.RawMessage(strings.Replace(string(bad.Config), "{{password}}", inURL, 1))
	_, err = v.admin.CreateEngine(ctx, bad)
	tell(err)
	wrongRoot := *s
	wrongRoot.password = "canary-root-Pm20xQy7"
	v.writeRoot(t, &wrongRoot, "refused")
	_, err = v.admin.CreateEngine(ctx, s.document("refused", nil))
	tell(err)

	// Tokens.
	token, err := v.admin.CreateToken(ctx, api.TokenRequest{Name: "canary", Scopes: []string{"dynamic:read"}})
	if err != nil {
		t.Fatal(err)
	}
	v.remember(token.Token)
	if _, err := v.Client(t, client.Config{Token: token.Token}).WhoAmI(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = v.Client(t, client.Config{Token: token.Token + "x"}).WhoAmI(ctx)
	tell(err)
	if _, err := v.admin.Introspect(ctx, token.Token); err != nil {
		t.Fatal(err)
	}
	if err := v.admin.DeleteToken(ctx, token.ID, false); err != nil {
		t.Fatal(err)
	}
	_, err = v.Client(t, client.Config{Token: token.Token}).WhoAmI(ctx)
	tell(err)
	app := v.account(t, "app", "dynamic/db/*")
	_, err = v.Client(t, client.Config{ClientID: "sa_x", ClientSecret: "canary-client-Lw54nBv3"}).WhoAmI(ctx)
	v.remember("canary-client-Lw54nBv3")
	tell(err)

	// Credentials: issued, renewed, revoked, expired, failed at the source.
	for _, role := range []string{"reader", "direct"} {
		cred := v.issue(t, app, "db", role, 0)
		s.readItems(t, cred)
		if _, err := app.RenewLease(ctx, cred.lease, api.RenewRequest{}); err != nil {
			t.Fatal(err)
		}
		if role == "reader" {
			_, err = app.GenerateCredential(ctx, "db", "broken", api.CredsRequest{})
			tell(err)
		}
		v.revoke(t, cred)
		short := v.issue(t, app, "db", role, time.Second)
		eventually(t, 20*time.Second, "a credential has expired", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
	}
	if test, err := v.admin.TestRole(ctx, "db", "reader"); err != nil || !test.OK {
		t.Fatalf("test a role: %+v, %v", test, err)
	}

	const control = "control: this place was looked at"
	s.server.Exec(t, "SELECT '"+control+"'")
	find := v.finder()
	for place, text := range v.pages(t) {
		find(t, place, []byte(text))
	}
	for i, text := range said {
		find(t, fmt.Sprintf("refusal %d (%.60s)", i, text), []byte(text))
	}
	log := s.server.Log(t)
	v.finder(s.password)(t, "PostgreSQL's log", []byte(log))
	for _, must := range []string{control, "v_reader_", "v_direct_", "SCRAM-SHA-256$"} {
		if !strings.Contains(log, must) {
			t.Errorf("PostgreSQL's log does not hold %q: it was not looked at where it matters", must)
		}
	}
	var files bytes.Buffer
	for _, content := range v.files(t) {
		files.Write(content)
	}
	h := newHost(t, "--data-dir", v.Dir)
	h.backup(t, "backup.age")
	backup := h.decrypted(t, "backup.age")
	find(t, "the decrypted backup", backup)
	for place, text := range map[string]string{"the output": v.Output(), "the store": files.String(), "the backup": string(backup)} {
		if !strings.Contains(text, "req_") {
			t.Errorf("%s does not name a single request: it was not looked at where it matters", place)
		}
	}
}

// rotateRoot rotates the engine's root at the source and remembers the new
// password.
func (v *vault) rotateRoot(t *testing.T, engine string) {
	t.Helper()
	if _, err := v.admin.RotateRoot(t.Context(), engine); err != nil {
		t.Fatalf("rotate the root: %v", err)
	}
	root, err := v.admin.ReadSecret(t.Context(), rootPath(engine), 0)
	if err != nil {
		t.Fatalf("read the rotated root: %v", err)
	}
	var password string
	if err := json.Unmarshal(root.Data["password"], &password); err != nil {
		t.Fatal(err)
	}
	v.remember(password)
}

// pages are all that the server shows to those who may see everything, but for
// the secrets themselves.
func (v *vault) pages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{"the metrics": v.Metrics(t)}
	for _, path := range []string{
		"/v1/health/detailed", "/v1/dynamic/engines", "/v1/dynamic/engines/db", "/v1/dynamic/engines/db/health",
		"/v1/dynamic/engines/db/roles", "/v1/dynamic/leases?limit=1000", "/v1/secrets", "/v1/secrets/apps/canary:metadata",
		"/v1/secrets/apps/canary:versions", "/v1/policies", "/v1/auth/tokens", "/v1/auth/service-accounts", "/v1/audit/summary", "/v1/audit/verify",
	} {
		status, body := v.raw(t, "GET", path, "")
		if status != 200 || len(body) < 3 {
			t.Errorf("GET %s: %d %s", path, status, body)
		}
		pages[path] = body
	}
	entries, err := client.Collect(v.admin.AuditLogs(t.Context(), client.AuditFilter{}))
	if err != nil || len(entries) < 30 {
		t.Errorf("the audit trail has %d entries: %v", len(entries), err)
	}
	trail, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	pages["the audit trail"] = string(trail)
	return pages
}
