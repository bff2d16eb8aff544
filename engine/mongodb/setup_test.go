package mongodb_test

import (
	"context"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/mongodb"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mongotest"
	"github.com/scaivault/scaivault/test/servertest"
)

// TestMain runs many tests at once: they wait for servers more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// The root that the guide makes, and the database in which it may have users.
const (
	guideRoot, rootPassword = servertest.GuideRoot, servertest.GuidePassword
	appDB                   = "app"
)

// readApp is what roles are where it does not matter.
const readApp = `{"database": "app", "roles": [{"role": "read", "db": "app"}]}`

// source is a server, and engines over it.
type source struct {
	server  *mongotest.Server
	root    string
	url     string
	namer   *statement.Namer
	secrets map[string]map[string]statement.Secret
}

func newSource(t testing.TB, opts ...mongotest.Option) *source {
	t.Helper()
	s := &source{server: mongotest.Start(t, opts...), namer: enginetest.NewNamer()}
	s.root = s.server.SetUp(t)
	thing := bson.D{{Key: "_id", Value: bson.NewObjectID()}}
	s.server.Do(t, appDB, bson.D{{Key: "insert", Value: "things"}, {Key: "documents", Value: bson.A{thing}}})
	if mongotest.Real() != "" {
		t.Cleanup(func() {
			s.sweep(t)
			s.server.Do(t, appDB, bson.D{{Key: "delete", Value: "things"}, {Key: "deletes", Value: bson.A{bson.D{{Key: "q", Value: thing}, {Key: "limit", Value: 1}}}}})
		})
	}
	addresses := []string{s.server.Addr()}
	for _, m := range s.server.Members {
		addresses = append(addresses, m.Addr())
	}
	slices.Sort(addresses)
	s.url = "mongodb://{{username}}:{{password}}@" + strings.Join(slices.Compact(addresses), ",") + "/"
	return s
}

// sweep drops what the engines of a test have left: a server that is not the test's own is left as it was.
func (s *source) sweep(t testing.TB) {
	t.Helper()
	for _, name := range s.server.Users(t) {
		if s.namer.Ours(name) {
			s.server.Do(t, appDB, bson.D{{Key: "dropUser", Value: name}})
		}
	}
	for _, database := range []string{appDB, "admin"} {
		for _, name := range s.roles(t, database) {
			if s.namer.OursMark(name) {
				s.server.Do(t, database, bson.D{{Key: "dropRole", Value: name}})
			}
		}
	}
}

// roles are the names of the roles of a database.
func (s *source) roles(t testing.TB, database string) (names []string) {
	t.Helper()
	list, _ := s.server.Do(t, database, bson.D{{Key: "rolesInfo", Value: 1}}).Lookup("roles").ArrayOK()
	values, _ := list.Values()
	for _, v := range values {
		names = append(names, v.Document().Lookup("role").StringValue())
	}
	return names
}

func (s *source) options(extra map[string]any) engine.Options {
	c := map[string]any{"connection_url": s.url, "root_credentials_path": "infra/root", "connect_timeout": "60s", "operation_timeout": "120s"}
	maps.Copy(c, extra)
	return enginetest.Options(c, map[string]statement.Secret{"username": statement.Secret(s.root), "password": rootPassword}, s.namer, s.secrets)
}

func open(t testing.TB, o engine.Options) *mongodb.Engine {
	t.Helper()
	return enginetest.Open[*mongodb.Engine](t, mongodb.Type{}, o)
}

func (s *source) open(t testing.TB, extra map[string]any) *mongodb.Engine {
	t.Helper()
	return open(t, s.options(extra))
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, mongodb.Type{}, document)
}

func plan(t testing.TB, e engine.Engine, role string) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: parseRole(t, role), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(20 * time.Second)
	return p
}

// credential is one that was issued.
type credential struct {
	data   map[string]statement.Secret
	name   string
	recipe engine.Recipe
}

func issue(t testing.TB, e engine.Engine, role string) credential {
	t.Helper()
	p := plan(t, e, role)
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return credential{p.Data, p.Username, recipe}
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) {
	t.Helper()
	if _, err := e.Revoke(t.Context(), r); err != nil {
		t.Fatalf("revoke: %v", err)
	}
}

// login is the official client as a credential, at one member, with a session that has read.
func (s *source) login(ctx context.Context, address string, data map[string]statement.Secret) (session, error) {
	c := s.server.ClientAt(address, data["username"].Reveal(), data["password"].Reveal(), data["database"].Reveal())
	err := read(ctx, c)
	if err != nil {
		_ = c.Disconnect(bg)
		return session{}, err
	}
	return session{c}, nil
}

func read(ctx context.Context, c *driver.Client) error {
	return c.Database(appDB).RunCommand(ctx, bson.D{{Key: "find", Value: "things"}, {Key: "limit", Value: 1}}).Err()
}

// session is an open connection of a credential. Were it lost, the client would log in anew, which fails
// just so.
type session struct{ client *driver.Client }

func (s session) Works(ctx context.Context) bool { return read(ctx, s.client) == nil }
func (s session) Close()                         { _ = s.client.Disconnect(bg) }

// works fails unless the credential reads at every member.
func (s *source) works(t testing.TB, c credential) {
	t.Helper()
	for _, address := range s.addresses() {
		opened, err := s.login(t.Context(), address, c.data)
		if err != nil {
			t.Fatalf("%s does not work at %s: %v", c.name, address, err)
		}
		opened.Close()
	}
}

// dead fails unless no login works and the source has no such user.
func (s *source) dead(t testing.TB, c credential) {
	t.Helper()
	for _, address := range s.addresses() {
		if opened, err := s.login(t.Context(), address, c.data); err == nil {
			opened.Close()
			t.Errorf("%s logs in at %s", c.name, address)
		}
	}
	if slices.Contains(s.server.Users(t), c.name) {
		t.Errorf("the user %s is still there", c.name)
	}
}

func (s *source) addresses() []string {
	addresses := []string{s.server.Addr()}
	for _, m := range s.server.Members {
		if m.Addr() != s.server.Addr() {
			addresses = append(addresses, m.Addr())
		}
	}
	return addresses
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

// bg is for looks that may come after the end of a test's own context.
var bg = context.Background()
