// Package e2e_test uses the real program as its callers do, over the wire,
// against real PostgreSQL servers, and looks at the source itself for what is
// true.
//
// SCAIVAULT_TEST_FULL=1, as in `make end-to-end`, takes the numbers that are
// promised in place of small ones.
package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/servertest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// size is how many, in the normal and in the full form of a test.
func size(normal, full int) int {
	if os.Getenv("SCAIVAULT_TEST_FULL") != "" {
		return full
	}
	return normal
}

// vault is a running server with its present administrator. At the end of every
// test all that it wrote is searched for the secrets that went through it.
type vault struct {
	*vaulttest.Server
	admin *client.Client

	mu      sync.Mutex
	secrets []string
}

func newVault(t *testing.T, env ...string) *vault {
	t.Helper()
	v := &vault{Server: vaulttest.Start(t, env...)}
	v.admin = v.Admin(t)
	v.remember(v.Token())
	t.Cleanup(func() { v.searchOutput(t) })
	v.allow(t, "engines", "system", "system:dynamic-engines",
		api.PolicyRule{PathPattern: "infra/**", Permissions: []api.Permission{"read", "rotate"}})
	return v
}

// again starts a server that was stopped or killed; the administrator has a new
// token then.
func (v *vault) again(t *testing.T) {
	t.Helper()
	v.Run(t)
	v.admin = v.Admin(t)
	v.remember(v.Token())
}

// remember names what must appear nowhere.
func (v *vault) remember(secrets ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets = append(v.secrets, secrets...)
}

// allow makes a policy and binds it.
func (v *vault) allow(t *testing.T, name, kind, identity string, rules ...api.PolicyRule) (policy api.Policy, binding api.Binding) {
	t.Helper()
	policy, err := v.admin.CreatePolicy(t.Context(), api.PolicyRequest{Name: name, Rules: rules})
	if err != nil {
		t.Fatalf("make the policy %s: %v", name, err)
	}
	binding, err = v.admin.BindPolicy(t.Context(), policy.ID, api.BindingRequest{IdentityType: kind, IdentityID: identity})
	if err != nil {
		t.Fatalf("bind the policy %s: %v", name, err)
	}
	return policy, binding
}

// account makes a service account that may generate on the given virtual paths
// and gives its client.
func (v *vault) account(t *testing.T, name string, paths ...string) *client.Client {
	t.Helper()
	account, err := v.admin.CreateServiceAccount(t.Context(), api.ServiceAccountRequest{
		Name: name, Scopes: []string{"dynamic:generate", "dynamic:read", "secrets:read"},
	})
	if err != nil {
		t.Fatalf("make the service account %s: %v", name, err)
	}
	v.remember(account.ClientSecret)
	rules := make([]api.PolicyRule, len(paths))
	for i, path := range paths {
		rules[i] = api.PolicyRule{PathPattern: path, Permissions: []api.Permission{"dynamic:generate"}}
	}
	v.allow(t, name, "service_account", account.IdentityID, rules...)
	return v.Client(t, client.Config{ClientID: account.ClientID, ClientSecret: account.ClientSecret})
}

// source is a database with one table and a root made by exactly the printed
// statements.
type source struct {
	server         *pgtest.Server
	addr           string // what engines connect to: the server, or a proxy before it
	db             string
	root, password string
}

// The ways to set up a root.
const (
	createRole = postgresql.SetupCreateRole
	functions  = postgresql.SetupDefiner
)

func newSource(t *testing.T, server *pgtest.Server, way string) *source {
	t.Helper()
	s := &source{server: server, addr: server.Addr(), db: server.CreateDB(t)}
	server.ExecIn(t, s.db, `CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one')`)
	s.root, s.password = server.NewRoot(t, pgtest.Plain)
	sql, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: s.db, Owner: pgtest.Superuser, Way: way})
	if err != nil {
		t.Fatalf("print the set-up: %v", err)
	}
	server.ExecIn(t, s.db, sql)
	return s
}

// document describes an engine over the source; settings are added to its
// config.
func (s *source) document(name string, settings map[string]any) api.EngineRequest {
	config := map[string]any{
		"plugin":                "postgresql",
		"connection_url":        fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", s.addr, s.db),
		"root_credentials_path": rootPath(name),
		"scram_iterations":      1, // the suite is not about the cost of hashing
	}
	for key, value := range settings {
		config[key] = value
	}
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	return api.EngineRequest{Name: name, Type: "database", Config: raw}
}

func rootPath(engine string) string { return "infra/" + engine + "/root" }

// engine makes an engine over the source.
func (v *vault) engine(t *testing.T, s *source, name string, settings map[string]any) {
	t.Helper()
	v.writeRoot(t, s, name)
	if _, err := v.admin.CreateEngine(t.Context(), s.document(name, settings)); err != nil {
		t.Fatalf("make the engine %s: %v", name, err)
	}
}

// database makes an engine of another plugin, with a root of its guide.
func (v *vault) database(t *testing.T, name, plugin, url, root string) {
	t.Helper()
	v.writeLogin(t, name, root, servertest.GuidePassword)
	config, err := json.Marshal(map[string]string{"plugin": plugin, "root_credentials_path": rootPath(name), "connection_url": url})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.CreateEngine(t.Context(), api.EngineRequest{Name: name, Type: "database", Config: config}); err != nil {
		t.Fatalf("make the engine %s: %v", name, err)
	}
}

// writeRoot stores the root credentials of the engine.
func (v *vault) writeRoot(t *testing.T, s *source, name string) {
	t.Helper()
	v.writeLogin(t, name, s.root, s.password)
}

func (v *vault) writeLogin(t *testing.T, name, username, password string) {
	t.Helper()
	v.remember(password)
	_, err := v.admin.WriteSecret(t.Context(), rootPath(name), api.SecretWrite{Data: map[string]json.RawMessage{
		"username": quoted(username), "password": quoted(password),
	}})
	if err != nil {
		t.Fatalf("write the root secret of %s: %v", name, err)
	}
}

func quoted(text string) json.RawMessage {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return raw
}

// reader is a role in the privileges form.
func reader(name string) client.Document {
	return client.Document{"name": name, "privileges": []string{"USAGE ON SCHEMA public", "SELECT ON ALL TABLES IN SCHEMA public"}}
}

// direct is a role in the statements form that grants to each account.
func direct(name string) client.Document {
	return client.Document{"name": name, "creation_statements": []string{
		`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
		`GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`,
	}}
}

func (v *vault) role(t *testing.T, engine string, role client.Document) {
	t.Helper()
	if _, err := v.admin.CreateRole(t.Context(), engine, role); err != nil {
		t.Fatalf("make the role %v of %s: %v", role["name"], engine, err)
	}
}

// credential is what a caller was given.
type credential struct {
	lease, username, password string
	expires                   time.Time
}

// issue asks for a credential and must get one; a zero life is the role's.
func (v *vault) issue(t *testing.T, c *client.Client, engine, role string, life time.Duration) credential {
	t.Helper()
	cred, err := v.ask(t.Context(), c, engine, role, life)
	if err != nil {
		t.Fatalf("have a credential of %s/%s: %v", engine, role, err)
	}
	return cred
}

func (v *vault) ask(ctx context.Context, c *client.Client, engine, role string, life time.Duration) (credential, error) {
	var r api.CredsRequest
	if life != 0 {
		ttl := api.Duration(life)
		r.TTL = &ttl
	}
	answer, err := c.GenerateCredential(ctx, engine, role, r)
	if err != nil {
		return credential{}, err
	}
	v.remember(answer.Data["password"])
	return credential{answer.LeaseID, answer.Data["username"], answer.Data["password"], answer.ExpiresAt}, nil
}

// issueMany asks with 8 callers at once; all of them must be given what they
// ask for.
func (v *vault) issueMany(t *testing.T, engine, role string, life time.Duration, n int) []credential {
	t.Helper()
	creds := make([]credential, n)
	each(t, 8, n, func(i int) error {
		var err error
		creds[i], err = v.ask(t.Context(), v.admin, engine, role, life)
		return err
	})
	return creds
}

// each calls do for 0 to n-1 from several goroutines; the first error fails the
// test.
func each(t *testing.T, workers, n int, do func(i int) error) {
	t.Helper()
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	failures := make(chan error, workers)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failures <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		t.Fatal(err)
	}
}

// login opens a session as the credential.
func (s *source) login(t *testing.T, c credential) *pgx.Conn {
	t.Helper()
	return s.server.Connect(t, c.username, c.password, s.db)
}

// tryLogin is nil when the source lets the credential in.
func (s *source) tryLogin(c credential) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.server.URL(c.username, c.password, s.db))
	if err == nil {
		_ = conn.Close(ctx)
	}
	return err
}

// readItems reads the table as the credential.
func (s *source) readItems(t *testing.T, c credential) {
	t.Helper()
	var name string
	if err := s.login(t, c).QueryRow(t.Context(), "SELECT name FROM public.items WHERE id = 1").Scan(&name); err != nil || name != "one" {
		t.Fatalf("%s reads %q: %v", c.username, name, err)
	}
}

// mustBeDead wants the source itself to refuse the login, and neither account
// nor session to be left.
func (s *source) mustBeDead(t *testing.T, creds ...credential) {
	t.Helper()
	for _, c := range creds {
		if err := s.tryLogin(c); !refusedLogin(err) {
			t.Errorf("%s is to be refused by the source, instead: %v", c.username, err)
		}
		if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1", c.username); n != 0 {
			t.Errorf("the account %s is still there", c.username)
		}
	}
}

func refusedLogin(err error) bool { return hasCode(err, "28P01") || hasCode(err, "28000") }

func hasCode(err error, code string) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && refused.Code == code
}

// count is the one number that a query gives the superuser in the source's
// database.
func (s *source) count(t *testing.T, sql string, args ...any) int {
	t.Helper()
	var n int
	if err := s.query(t, &n, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// query reads one value as superuser.
func (s *source) query(t *testing.T, into any, sql string, args ...any) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.server.SuperURL(s.db))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return conn.QueryRow(ctx, sql, args...).Scan(into)
}

// accounts are the names of all accounts in the form of ours on the whole
// server; only for servers that a test has to itself.
func (s *source) accounts(t *testing.T) []string {
	t.Helper()
	var names []string
	if err := s.query(t, &names, `SELECT coalesce(array_agg(rolname::text ORDER BY rolname), '{}') FROM pg_roles WHERE rolname LIKE 'v\_%'`); err != nil {
		t.Fatalf("list the accounts: %v", err)
	}
	return names
}

// leases lists what the filter selects.
func (v *vault) leases(t *testing.T, f client.LeaseFilter) []api.Lease {
	t.Helper()
	leases, err := client.Collect(v.admin.Leases(t.Context(), f))
	if err != nil {
		t.Fatalf("list leases: %v", err)
	}
	return leases
}

func (v *vault) lease(t *testing.T, id string) api.Lease {
	t.Helper()
	l, err := v.admin.Lease(t.Context(), id)
	if err != nil {
		t.Fatalf("read the lease %s: %v", id, err)
	}
	return l
}

// revoke wants the credential to be dead when it is answered.
func (v *vault) revoke(t *testing.T, c credential) {
	t.Helper()
	pending, err := v.admin.RevokeLease(t.Context(), c.lease, 0)
	if err != nil {
		t.Fatalf("revoke %s: %v", c.lease, err)
	}
	if pending != nil {
		t.Fatalf("revoke %s: it is still to die: %+v", c.lease, pending.Revocation)
	}
}

// eventually looks again until something holds.
func eventually(t *testing.T, within time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", within, what)
		}
	}
}

// mustFail wants one of the codes.
func mustFail(t *testing.T, what string, err error, codes ...client.Code) {
	t.Helper()
	for _, code := range codes {
		if errors.Is(err, code) {
			return
		}
	}
	t.Errorf("%s: want %v, got %v", what, codes, err)
}
