package failpoints_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

const (
	// operationTimeout is short, so that cut off issuances are decided soon; a
	// busy machine must still make an account in it.
	operationTimeout = "5s"
	life             = time.Hour
	longest          = 2 * time.Hour
	// patience is for what must happen; how long it took is in the table.
	patience = 2 * time.Minute
)

// place is where a scenario is played.
type place struct {
	store  *pgtest.Server // of nodes that share it; nil: one node with a store of its own
	source *pgtest.Server
}

func (p place) String() string {
	store := "sqlite"
	if p.store != nil {
		store = "shared"
	}
	return fmt.Sprintf("%s, source %d", store, p.source.Major)
}

// world is a deployment with one engine and one role, and a source.
type world struct {
	nodes  []*vaulttest.Server // the first is the one that dies
	source *pgtest.Server
	db     string
	root   string
	role   string // unique at the source, since names of accounts hold it
	known  map[string]bool
}

func newWorld(t *testing.T, p place, form client.Document) *world {
	t.Helper()
	return newWorldOf(t, vaulttest.Failing(t), p, form)
}

func newWorldOf(t *testing.T, program string, p place, form client.Document) *world {
	t.Helper()
	if p.store == nil {
		return newWorldOn(t, []*vaulttest.Server{vaulttest.StartProgram(t, program)}, p.source, form, operationTimeout)
	}
	return newWorldOn(t, vaulttest.StartNodes(t, program, 2, p.store.SuperURL(p.store.CreateDB(t))), p.source, form, operationTimeout)
}

// newWorldOn sets running nodes up.
func newWorldOn(t *testing.T, nodes []*vaulttest.Server, source *pgtest.Server, form client.Document, timeout string) *world {
	t.Helper()
	w := &world{nodes: nodes, source: source, db: source.CreateDB(t)}
	w.role = "r" + w.db[len(w.db)-8:]
	root, password := source.NewRoot(t, pgtest.Plain)
	w.root = root
	sql, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: w.db, Owner: pgtest.Superuser, Way: postgresql.SetupCreateRole})
	if err != nil {
		t.Fatal(err)
	}
	w.source.ExecIn(t, w.db, "CREATE TABLE items (id int);"+sql+";GRANT USAGE, CREATE ON SCHEMA public TO "+root+" WITH GRANT OPTION")
	if err := w.configure(t.Context(), w.nodes[0].Admin(t), "database", client.Document{
		"plugin": "postgresql", "operation_timeout": timeout, "scram_iterations": 1,
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", source.Addr(), w.db),
	}, map[string]string{"username": root, "password": password}, form); err != nil {
		t.Fatalf("set the server up: %v; its output: %s", err, tail(w.nodes[0].Output()))
	}
	return w
}

const rootPath = "infra/root"

// configure makes the root secret if there is one, the engine db of a type, and the world's role of a form.
func (w *world) configure(ctx context.Context, admin *client.Client, engine string, settings client.Document, root map[string]string, form client.Document) error {
	if root != nil {
		if err := giveRoot(ctx, admin, root); err != nil {
			return err
		}
		settings["root_credentials_path"] = rootPath
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	if _, err := admin.CreateEngine(ctx, api.EngineRequest{Name: "db", Type: engine, Config: config}); err != nil {
		return err
	}
	role := client.Document{"name": w.role, "default_ttl": life.String(), "max_ttl": longest.String()}
	for name, value := range form {
		role[name] = value
	}
	_, err = admin.CreateRole(ctx, "db", role)
	return err
}

// giveRoot writes the root secret and lets the engine db read and rotate it.
func giveRoot(ctx context.Context, admin *client.Client, root map[string]string) error {
	fields := map[string]json.RawMessage{}
	for name, value := range root {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		fields[name] = text
	}
	if _, err := admin.WriteSecret(ctx, rootPath, api.SecretWrite{Data: fields}); err != nil {
		return err
	}
	policy, err := admin.CreatePolicy(ctx, api.PolicyRequest{Name: "engines", Rules: []api.PolicyRule{
		{PathPattern: rootPath, Permissions: []api.Permission{"read", "rotate"}}}})
	if err != nil {
		return err
	}
	_, err = admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: "system", IdentityID: "dynamic:db"})
	return err
}

// The forms of a role.
func members() client.Document {
	return client.Document{"privileges": []string{"USAGE, CREATE ON SCHEMA public", "SELECT ON TABLE public.items"}}
}

func statements() client.Document {
	return client.Document{"creation_statements": []string{
		`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`,
		`GRANT SELECT ON TABLE public.items TO "{{name}}"`,
	}}
}

// first dies, other is the one that still runs then.
func (w *world) first() *vaulttest.Server { return w.nodes[0] }

func (w *world) other() *vaulttest.Server { return w.nodes[len(w.nodes)-1] }

// issue asks the node for a credential.
func (w *world) issue(ctx context.Context, c *client.Client) (api.Credential, error) {
	return c.GenerateCredential(ctx, "db", w.role, api.CredsRequest{})
}

// die arms the node and makes a request of which it must die. Who was told
// that it succeeded must not be told so by a server that was dead.
func (w *world) die(t *testing.T, node *vaulttest.Server, arm string, request func(ctx context.Context, c *client.Client) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	node.Arm(t, arm)
	err := request(ctx, node.Admin(t))
	if err == nil {
		t.Fatalf("the request was answered as if %q were not there", arm)
	}
	node.AwaitDeath(t)
	node.Arm(t)
}

// account is one at the source.
type account struct {
	until time.Time
	login bool
}

// accounts are those of the world's role.
func (w *world) accounts(t *testing.T) map[string]account {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.source.SuperURL(w.db))
	if err != nil {
		t.Fatalf("look at the source: %v", err)
	}
	defer conn.Close(t.Context())
	rows, err := conn.Query(t.Context(), `SELECT rolname, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil ELSE 'epoch' END, rolcanlogin FROM pg_roles WHERE starts_with(rolname, $1)`, "v_"+w.role+"_")
	if err != nil {
		t.Fatalf("list the accounts: %v", err)
	}
	found := map[string]account{}
	var name string
	var a account
	if _, err := pgx.ForEachRow(rows, []any{&name, &a.until, &a.login}, func() error {
		found[name] = a
		return nil
	}); err != nil {
		t.Fatalf("list the accounts: %v", err)
	}
	return found
}

// leases are all, as the node knows them.
func (w *world) leases(t *testing.T, node *vaulttest.Server) []api.Lease {
	t.Helper()
	leases, err := client.Collect(node.Admin(t).Leases(t.Context(), client.LeaseFilter{}))
	if err != nil {
		t.Fatalf("list the leases: %v", err)
	}
	return leases
}

// login uses a credential at the source.
func (w *world) login(t *testing.T, username, password string, sql ...string) error {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), w.source.URL(username, password, w.db))
	if err != nil {
		return err
	}
	defer conn.Close(t.Context())
	for _, s := range sql {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			return err
		}
	}
	return nil
}

// drops counts the messages by which the source was told to drop an account.
func (w *world) drops(t *testing.T, username string) (n int) {
	t.Helper()
	for entry := range strings.SplitSeq(strings.ReplaceAll(w.source.Log(t), "\n\t", " "), "\n") {
		if strings.Contains(entry, "statement:") && strings.Contains(entry, "DROP ROLE") && strings.Contains(entry, username) {
			n++
		}
	}
	return n
}

// eventually waits for what must happen and answers how long it took.
func eventually(t *testing.T, what func() string, happened func() bool) time.Duration {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if happened() {
			return time.Since(begun)
		}
		if time.Since(begun) > patience {
			t.Fatalf("it does not happen: %s", what())
		}
	}
}

func tail(text string) string { return text[max(0, len(text)-3000):] }
