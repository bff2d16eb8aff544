package azure_test

import (
	"context"
	"flag"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/azuretest"
)

// TestMain runs many tests at once: they wait more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// guide reads the root's rights from the table of the guide: the rows whose first cell is a name in
// backquotes.
func guide(t testing.TB, scope string) azuretest.Rights {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines/azure.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| right | where |")
	table, _, _ = strings.Cut(table, "\n\n")
	rights := azuretest.Rights{Roles: map[string]string{}}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name := strings.Trim(cells[1], " `")
		switch where := strings.TrimSpace(cells[2]); {
		case where == "Microsoft Graph":
			rights.Permissions = append(rights.Permissions, name)
		case strings.HasPrefix(where, "the scopes of roles"):
			rights.Roles[scope] = name
		case strings.HasPrefix(where, "its own application"):
			rights.OwnsItself = true
		default:
			t.Fatalf("the guide names a place that is not known: %s", where)
		}
	}
	if !found || len(rights.Permissions) != 2 || len(rights.Roles) != 1 || !rights.OwnsItself {
		t.Fatalf("the guide makes no root: %+v", rights)
	}
	return rights
}

// source is a server with the guide's root, and engines over it.
type source struct {
	*azuretest.Server
	root  azuretest.Root
	group string
	namer *statement.Namer
}

func newSource(t testing.TB, opts ...azuretest.Option) *source {
	t.Helper()
	s := azuretest.Start(t, opts...)
	return &source{
		Server: s, root: s.NewRoot(t, guide(t, s.Scope())), group: s.NewGroup("app readers"),
		namer: enginetest.NewNamer(),
	}
}

func (s *source) options(extra map[string]any) engine.Options {
	c := map[string]any{
		"tenant_id": s.Tenant, "subscription_id": s.Subscription, "root_credentials_path": "infra/root", "tls_ca_path": "infra/ca",
		"login_endpoint": s.URL(), "graph_endpoint": s.URL(), "resource_manager_endpoint": s.URL(), "operation_timeout": "60s",
	}
	maps.Copy(c, extra)
	root := map[string]statement.Secret{"client_id": statement.Secret(s.root.ClientID), "client_secret": statement.Secret(s.root.ClientSecret)}
	return enginetest.Options(c, root, s.namer, map[string]map[string]statement.Secret{"infra/ca": {"certificate": statement.Secret(s.CA)}})
}

func open(t testing.TB, o engine.Options) *azure.Engine {
	t.Helper()
	return enginetest.Open[*azure.Engine](t, azure.Type{}, o)
}

func (s *source) open(t testing.TB, extra map[string]any) *azure.Engine {
	t.Helper()
	return open(t, s.options(extra))
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, azure.Type{}, document)
}

// reader is what roles are where it does not matter: a role of Azure, and a group.
func (s *source) reader(t testing.TB) engine.Role {
	t.Helper()
	return parseRole(t, `{"azure_roles": [{"role_name": "Reader", "scope": "`+s.Scope()+`/resourceGroups/app"}], "azure_groups": ["app readers"]}`)
}

func plan(t testing.TB, e engine.Engine, role engine.Role) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(2 * time.Minute)
	return p
}

func issue(t testing.TB, e engine.Engine, role engine.Role) (*engine.Plan, engine.Recipe) {
	t.Helper()
	p := plan(t, e, role)
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return p, recipe
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) engine.Outcome {
	t.Helper()
	o, err := e.Revoke(t.Context(), r)
	if err != nil {
		t.Fatalf("revoke: %v", err)
	}
	return o
}

// login is that of a holder of a credential.
func (s *source) login(t testing.TB, p *engine.Plan) error {
	t.Helper()
	session, err := s.Login(context.Background(), p.Data["client_id"].Reveal(), p.Data["client_secret"].Reveal())
	if err == nil {
		session.Close()
	}
	return err
}

// spotless fails unless nothing is left of what was made since before.
func (s *source) spotless(t testing.TB, before azuretest.Left) {
	t.Helper()
	now := s.Left()
	now.Recycled = before.Recycled
	if now != before {
		t.Errorf("left are %s, and there were %s", now, before)
	}
}
