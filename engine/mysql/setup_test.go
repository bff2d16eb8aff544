package mysql_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/servertest"
)

// servers are what the tests of this package share.
var servers mysqltest.Pool

// TestMain runs many tests at once: they wait for servers more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := m.Run()
	servers.Close()
	os.Exit(code)
}

const rootPassword = servertest.GuidePassword

// made numbers what must have a name of its own on a shared server.
var made atomic.Int64

// source is a server with a root and a schema of its own.
type source struct {
	server  *mysqltest.Server
	url     string
	root    string
	app     string // the schema
	namer   *statement.Namer
	secrets map[string]map[string]statement.Secret
}

// newSource makes the guide's root, under another name, for a schema of its own.
func newSource(t testing.TB, server *mysqltest.Server) *source {
	t.Helper()
	n := made.Add(1)
	return newSourceNamed(t, server, fmt.Sprintf("root_%d", n), fmt.Sprintf("app_%d", n))
}

func newSourceNamed(t testing.TB, server *mysqltest.Server, root, app string) *source {
	t.Helper()
	s := &source{server: server, url: "mysql://{{username}}:{{password}}@" + server.Addr() + "/", root: root, app: app, namer: enginetest.NewNamer()}
	server.Exec(t, "CREATE DATABASE "+s.app, "CREATE TABLE "+s.app+".orders (id INT PRIMARY KEY)", "INSERT INTO "+s.app+".orders VALUES (1)")
	server.SetUp(t, s.root, s.app)
	return s
}

// shared is a source on the server that the tests share.
func shared(t testing.TB, kind string) *source {
	t.Helper()
	return newSource(t, servers.Shared(t, kind))
}

func (s *source) options(extra map[string]any) engine.Options {
	c := map[string]any{"connection_url": s.url, "root_credentials_path": "infra/root"}
	maps.Copy(c, extra)
	return enginetest.Options(c, map[string]statement.Secret{"username": statement.Secret(s.root), "password": rootPassword}, s.namer, s.secrets)
}

func open(t testing.TB, o engine.Options) *mysql.Engine {
	t.Helper()
	return enginetest.Open[*mysql.Engine](t, mysql.Type{}, o)
}

func (s *source) open(t testing.TB, extra map[string]any) *mysql.Engine {
	t.Helper()
	return open(t, s.options(extra))
}

// reader is a role that reads the schema.
func (s *source) reader(t testing.TB) engine.Role {
	t.Helper()
	return parseRole(t, map[string]any{"privileges": []string{"SELECT ON " + s.app + ".*"}})
}

func parseRole(t testing.TB, document map[string]any) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, mysql.Type{}, document)
}

// credential is one that was issued.
type credential struct {
	*engine.Plan
	recipe engine.Recipe
}

func (c credential) password() string { return c.Data["password"].Reveal() }

func plan(t testing.TB, e engine.Engine, role engine.Role) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(time.Minute)
	return p
}

func issue(t testing.TB, e engine.Engine, role engine.Role) credential {
	t.Helper()
	p := plan(t, e, role)
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return credential{p, recipe}
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) engine.Outcome {
	t.Helper()
	outcome, err := e.Revoke(t.Context(), r)
	if err != nil {
		t.Fatalf("revoke: %v", err)
	}
	return outcome
}

// eachKind runs a test against every kind of server.
func eachKind(t *testing.T, run func(t *testing.T, s *source)) {
	t.Helper()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			run(t, shared(t, kind))
		})
	}
}

// eventually looks again until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
