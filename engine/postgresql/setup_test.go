package postgresql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// way is how a root is set up.
type way string

const (
	createRole way = postgresql.SetupCreateRole
	definer    way = postgresql.SetupDefiner
	makers     way = postgresql.SetupMakers
)

// source is a database with a table, a root made by exactly the printed
// statements, and engines over it.
type source struct {
	server         *pgtest.Server
	db             string
	root, password string
	namer          *statement.Namer
	addr           string // of the server, or of a proxy before it

	mu    sync.Mutex
	admin *pgx.Conn // a superuser's, opened at first use
}

func newSource(t testing.TB, server *pgtest.Server, w way) *source {
	t.Helper()
	s := &source{server: server, db: server.CreateDB(t), addr: server.Addr()}
	s.namer = namer()
	server.ExecIn(t, s.db, `CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one')`)
	s.root, s.password = server.NewRoot(t, pgtest.Plain)
	sql, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: s.db, Owner: pgtest.Superuser, Way: string(w)})
	if err != nil {
		t.Fatal(err)
	}
	server.ExecIn(t, s.db, sql)
	return s
}

// config is a configuration of the engine over the source; extra overrides.
func (s *source) config(extra map[string]any) json.RawMessage {
	c := map[string]any{
		"connection_url":        fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", s.addr, s.db),
		"root_credentials_path": "infra/root",
		"operation_timeout":     "10s",
	}
	for k, v := range extra {
		c[k] = v
	}
	raw, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return raw
}

func (s *source) options(extra map[string]any) engine.Options {
	var dialer net.Dialer
	return engine.Options{
		Installation: "inst_test", EngineID: ident.New(ident.Engine), EngineName: "db", Node: "node-a", Epoch: 1,
		Config: s.config(extra),
		Root:   map[string]statement.Secret{"username": statement.Secret(s.root), "password": statement.Secret(s.password)},
		Namer:  s.namer, Dial: dialer.DialContext, Logger: slog.New(slog.DiscardHandler),
	}
}

// open opens an engine and closes it at the test's end.
func (s *source) open(t testing.TB, extra map[string]any) *postgresql.Engine {
	t.Helper()
	return openEngine(t, s.options(extra))
}

func openEngine(t testing.TB, o engine.Options) *postgresql.Engine {
	t.Helper()
	return enginetest.Open[*postgresql.Engine](t, postgresql.Type{}, o)
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, postgresql.Type{}, document)
}

const (
	readItems  = `{"privileges": ["SELECT ON ALL TABLES IN SCHEMA public", "USAGE ON SCHEMA public"]}`
	statements = `{"creation_statements": ["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO \"{{name}}\""]}`
)

// plan plans a credential that ends in an hour.
func plan(t testing.TB, e *postgresql.Engine, role engine.Role) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(20 * time.Second)
	return p
}

// credential is an issued one.
type credential struct {
	username, password string
	recipe             engine.Recipe
}

func issue(t testing.TB, e *postgresql.Engine, role engine.Role) credential {
	t.Helper()
	p := plan(t, e, role)
	r, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return credential{p.Username, p.Data["password"].Reveal(), r}
}

func revoke(t testing.TB, e *postgresql.Engine, r engine.Recipe) engine.Outcome {
	t.Helper()
	outcome, err := e.Revoke(t.Context(), r)
	if err != nil {
		t.Fatalf("revoke: %v", err)
	}
	return outcome
}

// login opens a session as the credential.
func (s *source) login(t testing.TB, c credential) *pgx.Conn {
	t.Helper()
	return s.server.Connect(t, c.username, c.password, s.db)
}

// loginFails tells whether the source refuses the credential.
func (s *source) loginFails(c credential) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.server.URL(c.username, c.password, s.db))
	if err != nil {
		return true
	}
	_ = conn.Close(ctx) // only whether it opened counts
	return false
}

// count is the one number that a query gives to the superuser.
func (s *source) count(t testing.TB, sql string, args ...any) int {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.admin == nil {
		s.admin = s.server.Superuser(t)
	}
	var n int
	if err := s.admin.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (s *source) roles(t testing.TB, name string) int {
	t.Helper()
	return s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1", name)
}

func namer() *statement.Namer {
	return statement.NewNamer("inst_test", []byte("0123456789abcdef"), nil)
}
