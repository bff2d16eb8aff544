package aws_test

import (
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/aws"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/awstest"
)

// servers is the moto of this package: what tests make there bears names of their own.
var servers awstest.Pool

// TestMain runs few tests at once: all wait for one server, which does one thing at a time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	status := m.Run()
	servers.Close()
	os.Exit(status)
}

// The roles of the tests, by their credential_type. What they allow is what works tries.
const allowed = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iam:ListGroups", "iam:ListRoles"], "Resource": "*"}]}`

// account is a root in the account of the shared server, and engines over it.
type account struct {
	server *awstest.Server
	front  *awstest.Front

	region, endpoint string // empty for AWS's own

	root  awstest.Keys
	user  string // root's
	role  string // ARN of one that root may assume
	namer *statement.Namer
}

// guide is a policy of the guide, as it is written there.
func guide(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```json "+name+"\n")
	if !ok {
		t.Fatalf("the guide has no policy %s", name)
	}
	policy, _, _ := strings.Cut(rest, "```")
	return policy
}

// newAccount makes a root with exactly the policies of the guide that its credentials need.
func newAccount(t testing.TB, more ...string) *account {
	t.Helper()
	s := servers.Shared(t)
	a := &account{server: s, front: s.Front(t), region: awstest.Region, namer: enginetest.NewNamer()}
	a.endpoint = a.front.URL
	id := strings.TrimPrefix(ident.New("tnt"), "tnt_")
	a.user = "scaivault-root-" + id
	a.root = a.front.User(t, "/", a.user, strings.ReplaceAll(guide(t, "aws-root"), "user/scaivault-root", "user/"+a.user))
	for _, name := range more {
		a.front.Permit(t, a.user, name, guide(t, name))
	}
	a.role = a.front.Role(t, "app-"+id, allowed)
	return a
}

func (a *account) options(extra map[string]any) engine.Options {
	c := map[string]any{
		"region": a.region, "root_credentials_path": "infra/root", "iam_endpoint": a.endpoint, "sts_endpoint": a.endpoint,
		"operation_timeout": "60s", "connect_timeout": "30s", "consistency_delay": "1s",
	}
	maps.Copy(c, extra)
	root := map[string]statement.Secret{"access_key_id": statement.Secret(a.root.ID), "secret_access_key": statement.Secret(a.root.Secret)}
	return enginetest.Options(c, root, a.namer, nil)
}

func open(t testing.TB, o engine.Options) *aws.Engine {
	t.Helper()
	return enginetest.Open[*aws.Engine](t, aws.Type{}, o)
}

func (a *account) open(t testing.TB) *aws.Engine {
	t.Helper()
	return open(t, a.options(nil))
}

func parseRole(t testing.TB, fields map[string]any) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, aws.Type{}, fields)
}

// roleOf is a role that gives credentials of a kind.
func (a *account) roleOf(t testing.TB, kind string, extra ...map[string]any) engine.Role {
	t.Helper()
	fields := map[string]any{"credential_type": kind}
	switch kind {
	case "iam_user", "federation_token":
		fields["policy_document"] = json.RawMessage(allowed)
	case "assumed_role":
		fields["role_arns"] = []string{a.role}
	}
	for _, more := range extra {
		for k, v := range more {
			fields[k] = v
		}
	}
	return parseRole(t, fields)
}

func plan(t testing.TB, e engine.Engine, role engine.Role, ttl time.Duration, params ...string) *engine.Plan {
	t.Helper()
	request := engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: role, ExpiresAt: time.Now().Add(ttl)}
	if len(params) > 0 {
		request.Params = json.RawMessage(params[0])
	}
	p, err := e.Plan(t.Context(), request)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(time.Minute)
	return p
}

// credential is one that was issued.
type credential struct {
	*engine.Plan
	recipe engine.Recipe
}

func issue(t testing.TB, e engine.Engine, role engine.Role, ttl time.Duration) credential {
	t.Helper()
	p := plan(t, e, role, ttl)
	r, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return credential{p, r}
}

func revoke(t testing.TB, e engine.Engine, r engine.Recipe) engine.Outcome {
	t.Helper()
	outcome, err := e.Revoke(t.Context(), r)
	if err != nil {
		t.Fatalf("revoke: %v", err)
	}
	return outcome
}

func keysOf(data map[string]statement.Secret) awstest.Keys {
	return awstest.Keys{ID: data["access_key_id"].Reveal(), Secret: data["secret_access_key"].Reveal(), Token: data["session_token"].Reveal()}
}

// try uses a credential as its holder would. Sessions that only the front knows can say who they are.
func (a *account) try(ctx context.Context, data map[string]statement.Secret, kind string) error {
	users, sessions := a.front.Clients(keysOf(data))
	var err error
	if kind == "federation_token" || kind == "session_token" {
		_, err = sessions.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	} else {
		_, err = users.ListGroups(ctx, &iam.ListGroupsInput{})
	}
	return err
}
