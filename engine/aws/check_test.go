package aws_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/awstest"
)

// without is the policy of the guide without some actions.
func (a *account) without(t *testing.T, actions ...string) {
	t.Helper()
	policy, name := strings.ReplaceAll(guide(t, "aws-root"), "user/scaivault-root", "user/"+a.user), "root"
	for _, action := range actions {
		policy = strings.ReplaceAll(policy, `"`+action+`"`, `"iam:Nothing"`)
	}
	if _, err := a.front.Admin().PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &a.user, PolicyName: &name, PolicyDocument: &policy}); err != nil {
		t.Fatal(err)
	}
}

// The root of the guide is healthy; what it lacks is named, by IAM's own judgement or, where root may
// not ask for that, by trying.
func TestHealth(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 || h.ClockOffset.Abs() > 2*time.Second {
		t.Errorf("%+v", h)
	}
	for _, lacking := range [][]string{{"iam:DeleteUser"}, {"iam:DeleteUser", "iam:SimulatePrincipalPolicy"}, {"iam:CreateAccessKey"}} {
		a.without(t, lacking...)
		h := e.Check(t.Context())
		if h.Status != "misconfigured" || !slices.ContainsFunc(h.MissingGrants, func(g string) bool { return strings.Contains(g, lacking[0]) }) {
			t.Errorf("without %v: %+v", lacking, h)
		}
	}
	a.without(t)
}

// A root that is only meant for sessions is no fault of it.
func TestHealthOfSessionsOnly(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	policy, name := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`, "root"
	if _, err := a.front.Admin().PutUserPolicy(t.Context(), &iam.PutUserPolicyInput{UserName: &a.user, PolicyName: &name, PolicyDocument: &policy}); err != nil {
		t.Fatal(err)
	}
	e := a.open(t)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) != 1 {
		t.Errorf("%+v", h)
	}
	issue(t, e, a.roleOf(t, "assumed_role"), time.Hour)
}

// What AWS throttles is tried again, and nothing is done twice.
func TestThrottling(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	asked := map[string]int{}
	a.front.SetFault(func(action string) awstest.Fault {
		if asked[action]++; asked[action] == 1 && strings.HasPrefix(action, "Create") {
			return awstest.Throttle
		}
		return awstest.None
	})
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	a.front.SetFault(nil)
	if asked["CreateUser"] != 2 || asked["CreateAccessKey"] != 2 {
		t.Errorf("%v", asked)
	}
	if err := a.try(t.Context(), c.Data, "iam_user"); err != nil {
		t.Error(err)
	}
	revoke(t, e, c.recipe)
}

// What root may not do to one user is said of that user: it says nothing of others.
func TestForbiddenRevocation(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "iam_user"), time.Hour)
	a.without(t, "iam:DeleteUser")
	if _, err := e.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.Refused || !strings.Contains(reason(err), "iam:DeleteUser") {
		t.Errorf("%v", err)
	}
	a.without(t)
	revoke(t, e, c.recipe)
	if slices.Contains(a.front.Users(t), c.Username) {
		t.Error("the user is there")
	}
}

// Root's keys may only be good for a role that may do the rest.
func TestRootAssumesARole(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := open(t, a.options(map[string]any{"role_arn": a.role}))
	p := plan(t, e, a.roleOf(t, "iam_user"), time.Hour)
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(reason(err), "iam:CreateUser") {
		t.Errorf("the role may not make users, and root makes them: %v", err)
	}
	_, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: "lease_x", RoleName: "r", Role: a.roleOf(t, "assumed_role"), ExpiresAt: time.Now().Add(2 * time.Hour)})
	if engine.KindOf(err) != engine.Refused || !strings.Contains(reason(err), "1h") {
		t.Errorf("a role that is assumed by a role lasts two hours: %v", err)
	}
}

// A request whose answer is lost is not sent again: nobody knows whether it was done, and a second
// user or key would be nobody's.
func TestNothingIsDoneTwice(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	for _, action := range []string{"CreateUser", "CreateAccessKey"} {
		for _, fault := range []awstest.Fault{awstest.LoseAfter, awstest.FailAfter} {
			asked := 0
			a.front.SetFault(func(now string) awstest.Fault {
				if now != action {
					return awstest.None
				}
				asked++
				return fault
			})
			p := plan(t, e, a.roleOf(t, "iam_user"), time.Hour)
			if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Uncertain || asked != 1 {
				t.Errorf("%s, fault %d: asked %d times, %v", action, fault, asked, err)
			}
			a.front.SetFault(nil)
			revoke(t, e, p.Recipe)
		}
	}
}

// A root that may not look up what is gone, since the names of its users are not those of the guide, is
// seen before the first revocation waits for ever.
func TestCheckOfOtherNames(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := open(t, a.options(map[string]any{"username_template": "app-{{role}}-{{random:11}}"}))
	if h := e.Check(t.Context()); h.Status != "misconfigured" || !strings.Contains(strings.Join(h.MissingGrants, " "), "app-nobody-") {
		t.Errorf("%+v", h)
	}
}
