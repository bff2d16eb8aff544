package redis_test

import (
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/redis"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/redistest"
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

const rootName, rootPassword = servertest.GuideRoot, servertest.GuidePassword

// readApp is what roles are where it does not matter.
const readApp = `{"acl_rules": ["~app:*", "+@read", "+@connection", "+@pubsub", "+@transaction", "+@blocking", "&app:*"]}`

// source is one or more servers, and engines over them.
type source struct {
	servers []*redistest.Server
	url     string // with NAME:PORT of the servers
	namer   *statement.Namer
	secrets map[string]map[string]statement.Secret
}

func newSource(t testing.TB, s *redistest.Server, rules ...string) *source {
	t.Helper()
	s.SetUp(t, rules...)
	s.Do(t, "SET", "app:one", "1")
	return &source{servers: []*redistest.Server{s}, url: "redis://{{username}}:{{password}}@" + s.Addr(), namer: enginetest.NewNamer()}
}

func (s *source) options(extra map[string]any) engine.Options {
	c := map[string]any{"connection_url": s.url, "root_credentials_path": "infra/root", "operation_timeout": "10s"}
	maps.Copy(c, extra)
	return enginetest.Options(c, map[string]statement.Secret{"username": rootName, "password": rootPassword}, s.namer, s.secrets)
}

func open(t testing.TB, o engine.Options) *redis.Engine {
	t.Helper()
	return enginetest.Open[*redis.Engine](t, redis.Type{}, o)
}

func (s *source) open(t testing.TB, extra map[string]any) *redis.Engine {
	t.Helper()
	return open(t, s.options(extra))
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, redis.Type{}, document)
}

// credential is one that was issued.
type credential struct {
	username, password string
	recipe             engine.Recipe
}

func plan(t testing.TB, e engine.Engine, role engine.Role) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(20 * time.Second)
	return p
}

func issue(t testing.TB, e engine.Engine) credential {
	t.Helper()
	p := plan(t, e, parseRole(t, readApp))
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return credential{p.Username, p.Data["password"].Reveal(), recipe}
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) {
	t.Helper()
	if _, err := e.Revoke(t.Context(), r); err != nil {
		t.Fatalf("revoke: %v", err)
	}
}

// works fails unless the credential reads on the server.
func works(t testing.TB, s *redistest.Server, c credential) {
	t.Helper()
	client := s.Client(c.username, c.password)
	defer client.Close()
	eventually(t, c.username+" reads", func() bool {
		err := client.Get(bg, "app:one").Err()
		if err != nil && (strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "NOPERM")) {
			t.Fatalf("%s does not work: %v", c.username, err)
		}
		return err == nil || errors.Is(err, driver.Nil) || strings.HasPrefix(err.Error(), "MOVED")
	})
}

// dead fails unless the server refuses the login and has no such user.
func dead(t testing.TB, s *redistest.Server, c credential) {
	t.Helper()
	client := s.Client(c.username, c.password)
	defer client.Close()
	eventually(t, c.username+" is refused", func() bool { // a server that has just started may reset connections
		err := client.Ping(bg).Err()
		if err == nil {
			t.Fatalf("%s logs in", c.username)
		}
		return strings.Contains(err.Error(), "WRONGPASS")
	})
	if slices.Contains(s.Users(t), c.username) {
		t.Errorf("the user %s is still there", c.username)
	}
}

// eventually looks again until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	// Sentinels that were not given the processor for 2 s do nothing for 30 s.
	for deadline := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// bg is for looks that may come after the end of a test's own context.
var bg = context.Background()
