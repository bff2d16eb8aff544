package aws_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/test/awstest"
)

// A session is named after its lease, whoever else names it; what a request may not say is refused.
func TestSessionOfARequest(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	second := a.front.Role(t, strings.Replace(a.role[strings.LastIndex(a.role, "/")+1:], "app-", "app-2-", 1), allowed)
	role := a.roleOf(t, "assumed_role", map[string]any{"role_arns": []string{a.role, second}})
	p := plan(t, e, role, time.Hour, `{"role_arn": "`+second+`", "session_name": "ada@example.com"}`)
	if p.Username != "ada@example.com-"+p.LeaseID {
		t.Errorf("the session is named %s", p.Username)
	}
	r, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(r), second) || !a.server.Session(p.Username) {
		t.Errorf("recipe %s", r)
	}
	for request, kind := range map[string]string{
		`{}`: "assumed_role",
		`{"role_arn": "arn:aws:iam::123456789012:role/x"}`:                                  "assumed_role",
		`{"role_arn": "` + second + `", "session_name": "a b"}`:                             "assumed_role",
		`{"role_arn": "` + second + `", "session_name": "` + strings.Repeat("a", 32) + `"}`: "assumed_role",
		`{"nonsense": 1}`:                "iam_user",
		`{"role_arn": "` + second + `"}`: "iam_user",
	} {
		of := role
		if kind != "assumed_role" {
			of = a.roleOf(t, kind)
		}
		_, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "r", Role: of, ExpiresAt: time.Now().Add(time.Hour), Params: json.RawMessage(request)})
		if engine.KindOf(err) != engine.Refused {
			t.Errorf("%s of %s: %v", request, kind, err)
		}
	}
	long := strings.Repeat("r", 63)
	p, err = e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: long, Role: a.roleOf(t, "assumed_role"), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil || len(p.Username) > 64 {
		t.Errorf("%s, %v", p.Username, err)
	}
}

// A session says itself when it ends, and is dead then and not before, unless its role is told to deny
// it everything: then it is that session alone.
func TestEndOfASession(t *testing.T) {
	t.Parallel()
	a := newAccount(t, "aws-end-sessions")
	e := a.open(t)
	plain := issue(t, e, a.roleOf(t, "assumed_role"), time.Hour)
	ended := issue(t, e, a.roleOf(t, "assumed_role", map[string]any{"end_sessions": true}), 20*time.Minute)
	for _, c := range []credential{plain, ended} {
		outcome := revoke(t, e, c.recipe)
		if outcome.EffectiveAt == nil || outcome.EffectiveAt.Sub(c.ExpiresAt).Abs() > 2*time.Second {
			t.Errorf("it ends at %s, and is said to be dead at %v", c.ExpiresAt, outcome.EffectiveAt)
		}
	}
	if err := a.try(t.Context(), plain.Data, "assumed_role"); err != nil {
		t.Errorf("another session of the role: %v", err)
	}
	if err := a.try(t.Context(), ended.Data, "assumed_role"); err == nil {
		t.Error("a session that was denied everything works")
	}
	var recipe map[string]any
	if err := json.Unmarshal(ended.recipe, &recipe); err != nil {
		t.Fatal(err)
	}
	if policy := "scaivault-" + ended.LeaseID; !a.server.RolePolicy(a.role, policy) {
		t.Errorf("the role has no policy %s", policy)
	}
	recipe["ends"] = time.Now().Add(-time.Second) // as if it had ended by itself
	raw, _ := json.Marshal(recipe)                //nolint:errchkjson // decoded from JSON
	if outcome := revoke(t, e, raw); outcome.EffectiveAt != nil || a.server.RolePolicy(a.role, "scaivault-"+ended.LeaseID) {
		t.Errorf("the policy of a session that has ended is left: %+v", outcome)
	}
}

// A session that AWS does not give is nobody's, so nothing is left of it, whatever was lost.
func TestSessionLost(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	for _, f := range []awstest.Fault{awstest.LoseAfter, awstest.FailAfter} {
		a.front.SetFault(func(string) awstest.Fault { return f })
		if _, err := e.Issue(t.Context(), plan(t, e, a.roleOf(t, "assumed_role"), time.Hour)); engine.KindOf(err) != engine.Unreachable {
			t.Errorf("%v", err)
		}
	}
}

// A root that may not deny a session anything lets it live to its end, and its lease ends then.
func TestEndOfASessionWithoutTheRight(t *testing.T) {
	t.Parallel()
	a := newAccount(t)
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "assumed_role", map[string]any{"end_sessions": true}), 20*time.Minute)
	if outcome := revoke(t, e, c.recipe); outcome.EffectiveAt == nil || outcome.EffectiveAt.Sub(c.ExpiresAt).Abs() > 2*time.Second {
		t.Errorf("it ends at %s, and is said to be dead at %v", c.ExpiresAt, outcome.EffectiveAt)
	}
	if outcome := revoke(t, e, endedBefore(t, c.recipe)); outcome.EffectiveAt != nil {
		t.Errorf("a session that has ended: %+v", outcome)
	}
}

// A role of another account is not the one of the same name in root's: that one is left alone.
func TestEndOfASessionElsewhere(t *testing.T) {
	t.Parallel()
	a := newAccount(t, "aws-end-sessions")
	e := a.open(t)
	theirs := strings.Replace(a.role, awstest.Account, "999999999999", 1)
	role := a.roleOf(t, "assumed_role", map[string]any{"end_sessions": true, "role_arns": []string{theirs}})
	if _, err := e.PrepareRole(t.Context(), "deployer", role); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), theirs) {
		t.Errorf("%v", err)
	}
	p := plan(t, e, role, time.Hour)
	if outcome := revoke(t, e, p.Recipe); outcome.EffectiveAt == nil {
		t.Error("a session that cannot be ended is said to be dead")
	}
	if a.server.RolePolicy(a.role, "scaivault-"+p.LeaseID) {
		t.Error("a role of the same name in root's account got a policy")
	}
}

// Where AWS asks to slow down, ending a session is tried again.
func TestEndOfASessionThrottled(t *testing.T) {
	t.Parallel()
	a := newAccount(t, "aws-end-sessions")
	e := a.open(t)
	c := issue(t, e, a.roleOf(t, "assumed_role", map[string]any{"end_sessions": true}), 20*time.Minute)
	a.front.SetFault(func(action string) awstest.Fault {
		if action == "PutRolePolicy" {
			return awstest.Throttle
		}
		return awstest.None
	})
	if outcome, err := e.Revoke(t.Context(), c.recipe); engine.KindOf(err) != engine.Busy {
		t.Errorf("%+v, %v", outcome, err)
	}
}

// endedBefore is the recipe of a session as if that had ended by itself.
func endedBefore(t *testing.T, raw engine.Recipe) engine.Recipe {
	t.Helper()
	var recipe map[string]any
	if err := json.Unmarshal(raw, &recipe); err != nil {
		t.Fatal(err)
	}
	recipe["ends"] = time.Now().Add(-time.Second)
	raw, _ = json.Marshal(recipe) //nolint:errchkjson // decoded from JSON
	return raw
}
