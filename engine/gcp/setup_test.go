package gcp_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/gcptest"
)

// TestMain runs many tests at once: they wait for time-outs more than they compute.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// What every source here has: an account of an application, a role that lets it do something, and an
// administrator's bindings that nobody may lose.
const (
	project   = "projects/" + gcptest.Project
	rootRole  = project + "/roles/scaivault"
	appRole   = "roles/app.reader"
	mayRead   = "app.items.get"
	bystander = "user:somebody@example.com"
)

// The kinds of credentials.
const (
	keyOfAnAccount   = `{"credential_type": "service_account_key", "service_account_email": "app-reader@fake-project-123.iam.gserviceaccount.com"}`
	keyOfItsOwn      = `{"credential_type": "service_account_key", "bindings": [{"resource": "projects/fake-project-123", "roles": ["roles/app.reader"]}]}`
	googleKeyOfOwn   = `{"credential_type": "service_account_key", "key_origin": "google", "bindings": [{"resource": "projects/fake-project-123", "roles": ["roles/app.reader"]}]}`
	tokenOfAnAccount = `{"credential_type": "access_token", "service_account_email": "app-reader@fake-project-123.iam.gserviceaccount.com"}`
	tokenOfItsOwn    = `{"credential_type": "access_token", "bindings": [{"resource": "projects/fake-project-123", "roles": ["roles/app.reader"]}]}`
)

// guide are the permissions of the role in the guide.
func guide(t testing.TB) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines/gcp.md")
	if err != nil {
		t.Fatal(err)
	}
	permissions := gcptest.RoleOf(string(text))
	if len(permissions) == 0 {
		t.Fatal("the guide has no role")
	}
	return permissions
}

// source is a project with exactly the root of the guide.
type source struct {
	*gcptest.Server
	root  map[string]statement.Secret
	app   gcptest.Account
	email string // of the root
	namer *statement.Namer
}

func newSource(t testing.TB) *source { return furnish(t, gcptest.Start(t)) }

func furnish(t testing.TB, server *gcptest.Server) *source {
	t.Helper()
	s := &source{Server: server, namer: enginetest.NewNamer()}
	root := s.AddAccount("scaivault-root")
	s.app, s.email = s.AddAccount("app-reader"), root.Email
	s.root = map[string]statement.Secret{"credentials": statement.Secret(s.AddKey(root.Email))}
	s.AddResource(project)
	s.DefineRole(rootRole, guide(t)...)
	s.DefineRole(appRole, mayRead)
	s.DefineRole("roles/other", "other.things.get")
	s.Grant(project, rootRole, "serviceAccount:"+root.Email)
	s.Grant(project, appRole, "serviceAccount:"+s.app.Email)
	s.Grant(project, appRole, bystander)
	return s
}

// endpoints lead all services to an address.
func endpoints(url string) map[string]string {
	all := map[string]string{}
	for _, name := range []string{"iam", "iamcredentials", "cloudresourcemanager", "pubsub", "secretmanager", "oauth2", "sts"} {
		all[name] = url
	}
	return all
}

func (s *source) options(extra map[string]any) engine.Options {
	c := map[string]any{
		"project": gcptest.Project, "root_credentials_path": "infra/root", "operation_timeout": "60s",
		"endpoints": endpoints(s.URL()), "tls_ca_path": "infra/ca",
	}
	maps.Copy(c, extra)
	return enginetest.Options(c, s.root, s.namer, map[string]map[string]statement.Secret{"infra/ca": {"certificate": statement.Secret(s.CA)}})
}

func open(t testing.TB, o engine.Options) *gcp.Engine {
	t.Helper()
	return enginetest.Open[*gcp.Engine](t, gcp.Type{}, o)
}

func (s *source) open(t testing.TB, extra map[string]any) *gcp.Engine {
	t.Helper()
	return open(t, s.options(extra))
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, gcp.Type{}, document)
}

func plan(t testing.TB, e engine.Engine, role string) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: parseRole(t, role), ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Second)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(time.Minute)
	return p
}

func issue(t testing.TB, e engine.Engine, role string) (*engine.Plan, engine.Recipe) {
	t.Helper()
	p := plan(t, e, role)
	r, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return p, r
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) engine.Outcome {
	t.Helper()
	outcome, err := e.Revoke(t.Context(), r)
	if err != nil {
		t.Fatalf("revoke: %v", err)
	}
	return outcome
}

// holder is a session of a credential.
type holder struct{ *gcptest.Holder }

func (s *source) login(ctx context.Context, data map[string]statement.Secret) (holder, error) {
	h, err := s.LogIn(ctx, data["access_token"].Reveal(), data["private_key_data"].Reveal())
	return holder{h}, err
}

// Works implements enginetest.Session.
func (h holder) Works(ctx context.Context) bool {
	ok, err := h.May(ctx, project, mayRead)
	return ok && err == nil
}

// Close implements enginetest.Session.
func (holder) Close() {}

// exists tells whether the server has an account, or an uploaded key, of the name.
func (s *source) exists(name string) bool {
	_, _, found := s.find(name)
	return found
}

func (s *source) find(name string) (email, keyID string, found bool) {
	for _, a := range s.Accounts() {
		own := strings.HasPrefix(a.Email, name+"@")
		for _, id := range a.Keys {
			cert := s.Certificate(a.Email, id)
			if own || cert != nil && cert.Subject.CommonName == name {
				return a.Email, id, true
			}
		}
		if own {
			return a.Email, "", true
		}
	}
	return "", "", false
}

// state is all that the server has, but etags, as one text to compare.
func (s *source) state() string {
	var all strings.Builder
	for _, a := range s.Accounts() {
		fmt.Fprintf(&all, "%s %v\n", a.Email, a.Keys)
	}
	members := s.Members()
	for _, name := range slices.Sorted(maps.Keys(members)) {
		slices.Sort(members[name])
		fmt.Fprintf(&all, "%s %v\n", name, members[name])
	}
	return all.String()
}
