package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
	"github.com/scaivault/scaivault/test/vaulttest"
)

const (
	rootPath = "infra/root"
	// reader is issued, renewed, revoked and left to its end; batch is revoked by
	// its prefix now and then.
	reader = "reader"
	batch  = "batch"

	// operationTimeout is short, so that issuances that were cut off are decided soon.
	operationTimeout = "3s"
)

// world is the servers under test, their store and source, and what the callers
// were told.
type world struct {
	name     string
	nodes    []*node
	source   *pgtest.Server
	db       string         // at the source
	database *pgtest.Server // of the store; nil where it is embedded
	full     bool           // see plan
	away     atomic.Bool    // the database is not there
	returned atomic.Int64   // when it was there again, in Unix nanoseconds

	mu        sync.Mutex
	given     []*credential
	prefixes  []prefixRevocation
	rotations rotations
	answers   map[string]int // of other calls, by what was asked
	refusals  []string       // that no trouble explains
	done      map[string]int // steps, by kind
	cuts      map[string]int // of networks, by fault
	lateness  lateness
	left      int // under way, after everything had its time to finish
}

func newWorld(t *testing.T, name string, major int) *world {
	t.Helper()
	w := &world{name: name, answers: map[string]int{}, done: map[string]int{}, cuts: map[string]int{},
		source: pgtest.Start(t, major), lateness: lateness{late: map[string]time.Duration{}}}
	w.db = w.source.CreateDB(t)
	w.source.ExecIn(t, w.db, "CREATE TABLE items (id int)")
	return w
}

// newEmbedded is one node with its store in a folder. Its engine's root makes
// users itself, by statements.
func newEmbedded(t *testing.T, vault *vaulttest.Server) *world {
	t.Helper()
	w := newWorld(t, "one node, embedded store", 15)
	n := &node{vault: vault, source: proxy.New(t, w.source.Addr())}
	w.nodes = []*node{n}
	w.configure(t, setup{addr: n.source.Addr(), kind: pgtest.CreateRole, way: postgresql.SetupCreateRole, role: client.Document{
		"creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}}})
	return w
}

// newShared is nodes on one database. Their engine's root calls functions that
// an administrator has installed, and members of a group come of it.
func newShared(t *testing.T, count int) *world {
	t.Helper()
	w := newWorld(t, fmt.Sprintf("%d nodes, PostgreSQL as the store", count), 17)
	w.database = pgtest.Start(t, 16, pgtest.WithFsync())
	url := w.database.SuperURL(w.database.CreateDB(t))
	sources := newRouter(t, w.source.Addr())
	started := vaulttest.Node{Program: vaulttest.Program(t), KeyFile: filepath.Join(t.TempDir(), "seal.key")}
	for range count {
		n := &node{source: proxy.New(t, w.source.Addr()), store: proxy.New(t, w.database.Addr())}
		started.Database = n.store.Through(t, url)
		n.vault = vaulttest.StartNode(t, started)
		started.Token = n.vault.Token()
		id, err := os.ReadFile(filepath.Join(n.vault.Dir, "node-id"))
		if err != nil {
			t.Fatal(err)
		}
		sources.lead(strings.TrimSpace(string(id)), n.source.Addr())
		w.nodes = append(w.nodes, n)
	}
	w.configure(t, setup{addr: sources.addr(), kind: pgtest.Plain, way: postgresql.SetupDefiner, role: client.Document{
		"privileges": []string{"SELECT ON ALL TABLES IN SCHEMA public"}}})
	return w
}

// setup is how the engine reaches its source, and what its roles are.
type setup struct {
	addr string
	kind pgtest.RootKind
	way  string
	role client.Document
}

func (w *world) configure(t *testing.T, s setup) {
	t.Helper()
	root, password := w.source.NewRoot(t, s.kind)
	sql, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: w.db, Owner: pgtest.Superuser, Way: s.way})
	if err != nil {
		t.Fatal(err)
	}
	w.source.ExecIn(t, w.db, sql)
	ctx, admin := t.Context(), w.nodes[0].vault.Admin(t)
	config, err := json.Marshal(map[string]any{
		"plugin": "postgresql", "root_credentials_path": rootPath, "operation_timeout": operationTimeout, "connect_timeout": "2s",
		"connection_url":   fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", s.addr, w.db),
		"scram_iterations": 1, "max_open_connections": 8, // more of the work is ours
	})
	must(t, err)
	_, err = admin.WriteSecret(ctx, rootPath, api.SecretWrite{Data: map[string]json.RawMessage{"username": quoted(root), "password": quoted(password)}})
	must(t, err)
	w.allow(ctx, t, "system", "dynamic:db", api.PolicyRule{PathPattern: rootPath, Permissions: []api.Permission{"read", "rotate"}})
	app := w.account(ctx, t, "app", api.PolicyRule{PathPattern: "dynamic/db/*", Permissions: []api.Permission{"dynamic:generate", "dynamic:manage"}})
	keeper := w.account(ctx, t, "keeper", api.PolicyRule{PathPattern: "dynamic/db", Permissions: []api.Permission{"dynamic:manage"}},
		api.PolicyRule{PathPattern: rootPath, Permissions: []api.Permission{"rotate"}})
	for _, n := range w.nodes {
		n.app, n.keeper = login(t, n, app), login(t, n, keeper)
	}
	_, err = admin.CreateEngine(ctx, api.EngineRequest{Name: "db", Type: "database", Config: config})
	must(t, err)
	for _, name := range []string{reader, batch} {
		s.role["name"] = name
		_, err = admin.CreateRole(ctx, "db", s.role)
		must(t, err)
	}
}

// account makes a service account with these rules.
func (w *world) account(ctx context.Context, t *testing.T, name string, rules ...api.PolicyRule) api.ServiceAccount {
	t.Helper()
	account, err := w.nodes[0].vault.Admin(t).CreateServiceAccount(ctx, api.ServiceAccountRequest{Name: name, Scopes: []string{"dynamic:generate", "dynamic:manage"}})
	must(t, err)
	w.allow(ctx, t, "service_account", account.IdentityID, rules...)
	return account
}

// login is a service account's client at one node. Tokens outlive the kills.
func login(t *testing.T, n *node, account api.ServiceAccount) *client.Client {
	t.Helper()
	return n.vault.Client(t, client.Config{
		ClientID: account.ClientID, ClientSecret: account.ClientSecret,
		HTTPClient: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}},
	})
}

func (w *world) allow(ctx context.Context, t *testing.T, kind, identity string, rules ...api.PolicyRule) {
	t.Helper()
	admin := w.nodes[0].vault.Admin(t)
	_, name, _ := strings.Cut(identity, ":")
	policy, err := admin.CreatePolicy(ctx, api.PolicyRequest{Name: name, Rules: rules})
	must(t, err)
	_, err = admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: kind, IdentityID: identity})
	must(t, err)
}

// able tells whether a node is up, with its store and its source within reach.
func (w *world) able() bool {
	if w.away.Load() {
		return false
	}
	for _, n := range w.nodes {
		if n.well() {
			return true
		}
	}
	return false
}

// wasAble tells whether the node could do its work while it served a request
// that ends now.
func (w *world) wasAble(n *node) bool {
	begun := time.Now().Add(-patience).UnixNano()
	return n.well() && n.healed.Load() < begun && !w.away.Load() && w.returned.Load() < begun
}

// admin is the administrator at the first node.
func (w *world) admin(t *testing.T) *client.Client {
	t.Helper()
	return w.nodes[0].vault.Admin(t)
}

func quoted(text string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", text)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// seconds prints a duration for the table.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
