package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/node"
	"github.com/scaivault/scaivault/test/pgtest"
)

// fleet is nodes on one database, with the engine db and one role.
type fleet struct {
	nodes  []*node.Node
	dirs   []string
	admin  string // token
	source *pgtest.Server
	db     string // at the source
	super  *pgx.Conn
	role   string
	creds  string // where credentials are asked for
}

// startFleet runs nodes on the database that the URL names. The role's name tells its accounts from
// those of other tests at the source.
func startFleet(t *testing.T, count int, database string, source *pgtest.Server, role string) *fleet {
	t.Helper()
	f := &fleet{source: source, db: source.CreateDB(t), super: source.Superuser(t), role: role, creds: "/v1/dynamic/engines/db/creds/" + role}
	key := filepath.Join(t.TempDir(), "seal.key")
	for range count {
		dir := t.TempDir()
		f.dirs = append(f.dirs, dir)
		f.nodes = append(f.nodes, start(t, load(t, dir, map[string]string{"DATABASE_URL": database, "SEAL_KEY_FILE": key,
			"SCAIVAULT_RATE_LIMITS": "off"}), node.Options{}))
	}
	f.admin = bootstrapToken(t, f.dirs[0])

	root, password := source.NewRoot(t, pgtest.Plain)
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: root, Database: f.db, Owner: pgtest.Superuser, Way: postgresql.SetupDefiner})
	if err != nil {
		t.Fatal(err)
	}
	source.ExecIn(t, f.db, setup)
	first, last := f.nodes[0], f.nodes[count-1]
	f.call(t, first, "PUT", "/v1/secrets/infra/db/root", fmt.Sprintf(`{"data": {"username": %q, "password": %q}}`, root, password), 200)
	made := f.call(t, first, "POST", "/v1/policies", `{"name": "roots", "rules": [{"path_pattern": "infra/db/root", "permissions": ["read"]}]}`, 201)
	f.call(t, last, "POST", fmt.Sprintf("/v1/policies/%v/bindings", made["id"]), `{"identity_type": "system", "identity_id": "system:dynamic-engines"}`, 201)
	f.call(t, last, "POST", "/v1/dynamic/engines", fmt.Sprintf(`{"name": "db", "type": "database", "config": {"plugin": "postgresql",
		"connection_url": "postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", "root_credentials_path": "infra/db/root",
		"scram_iterations": 1}}`, source.Addr(), f.db), 201)
	f.call(t, first, "POST", "/v1/dynamic/engines/db/roles", fmt.Sprintf(`{"name": %q, "privileges": ["USAGE ON SCHEMA public"]}`, role), 201)
	return f
}

// call is a request of the administrator's that must be answered with one of the statuses.
func (f *fleet) call(t *testing.T, n *node.Node, method, path, body string, want ...int) map[string]any {
	t.Helper()
	status, answer := ask(t, n, method, path, f.admin, body)
	if !slices.Contains(want, status) {
		t.Errorf("%s %s: %d, want %d: %v", method, path, status, want, answer)
	}
	return answer
}

// accounts counts the role's at the source.
func (f *fleet) accounts(t *testing.T) (n int) {
	t.Helper()
	if err := f.super.QueryRow(t.Context(), "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1", `v\_`+f.role+`\_%`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
