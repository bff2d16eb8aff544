package access_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

// office is a world with an administrator and alice, who runs team's policies: she may write all
// policies and holds read and generate on app/**.
type office struct {
	*world
	policies *access.Policies
	admin    *access.Caller
	alice    *access.Caller
}

func newOffice(t *testing.T) *office {
	w := setup(t, noLimits)
	w.user("alice")
	w.account("ci", access.ScopeAdmin)
	w.policy("team", rule("app/**", policy.Read, policy.DynamicGenerate), rule("sys/policies/**", policy.Read, policy.Write, policy.Delete))
	w.bind("team", "user:alice", nil)
	return &office{world: w, policies: access.NewPolicies(w.store, w.door),
		admin: w.caller("user:admin", access.ScopeAdmin),
		alice: w.caller("user:alice", access.ScopePoliciesRead, access.ScopePoliciesWrite)}
}

func (o *office) create(c *access.Caller, name string, rules ...policy.Rule) *api.Policy {
	o.t.Helper()
	p, err := o.policies.Create(o.t.Context(), c, &api.PolicyRequest{Name: name, Rules: rules})
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}

func TestPolicyLife(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	p := o.create(o.admin, "readers", rule("app/**", policy.Read))
	if p.ID == "" || p.Scope != "tenant" || !p.IsActive || p.CreatedAt.IsZero() || len(p.Bindings) != 0 || len(p.Rules) != 1 {
		t.Errorf("created %+v", p)
	}
	_, err := o.policies.Create(ctx, o.admin, &api.PolicyRequest{Name: "readers", Rules: p.Rules})
	wantCode(t, err, fault.PolicyExists)

	b, err := o.policies.Bind(ctx, o.admin, p.ID, &api.BindingRequest{IdentityType: "user", IdentityID: "user:bob"})
	if err != nil || b.PolicyID != p.ID || b.IdentityID != "user:bob" || b.IdentityType != "user" || b.ID == "" || b.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", b, err)
	}
	_, err = o.policies.Bind(ctx, o.admin, p.ID, &api.BindingRequest{IdentityType: "user", IdentityID: "user:bob"})
	wantCode(t, err, fault.BindingExists)

	name, description := "viewers", "who may look"
	changed, err := o.policies.Patch(ctx, o.admin, p.ID, &api.PolicyPatch{Name: &name, Description: &description})
	if err != nil || changed.Name != name || changed.Description != description || len(changed.Rules) != 1 || len(changed.Bindings) != 1 {
		t.Fatalf("%+v, %v", changed, err)
	}
	off := false
	replaced, err := o.policies.Replace(ctx, o.admin, "viewers", &api.PolicyRequest{Name: "viewers", Rules: []policy.Rule{}, IsActive: &off})
	if err != nil || replaced.Description != "" || replaced.IsActive || len(replaced.Rules) != 0 || len(replaced.Bindings) != 1 {
		t.Fatalf("%+v, %v", replaced, err)
	}
	list, err := o.policies.List(ctx, o.admin, false, page.Request{})
	if err != nil || len(list.Policies) != 2 || list.Policies[0].Name != "administrator" || list.Policies[1].Name != "team" ||
		list.Policies[1].RuleCount != 2 || list.Policies[1].BindingCount != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	first, err := o.policies.List(ctx, o.admin, true, page.Request{Limit: 2})
	if err != nil || len(first.Policies) != 2 || !first.HasMore {
		t.Fatalf("%+v, %v", first, err)
	}
	rest, err := o.policies.List(ctx, o.admin, true, page.Request{Limit: 2, Cursor: *first.Cursor})
	if err != nil || len(rest.Policies) != 1 || rest.Policies[0].Name != "viewers" || rest.HasMore {
		t.Fatalf("%+v, %v", rest, err)
	}

	wantCode(t, o.policies.Delete(ctx, o.admin, p.ID, false), fault.PolicyInUse)
	bindings, err := o.policies.Bindings(ctx, o.admin, p.ID, page.Request{})
	if err != nil || len(bindings.Bindings) != 1 {
		t.Fatalf("%+v, %v", bindings, err)
	}
	team := "team"
	wantCode(t, o.policies.Unbind(ctx, o.admin, team, b.ID), fault.BindingNotFound)
	if err := o.policies.Unbind(ctx, o.admin, p.ID, b.ID); err != nil {
		t.Fatal(err)
	}
	if err := o.policies.Delete(ctx, o.admin, p.ID, false); err != nil {
		t.Fatal(err)
	}
	_, err = o.policies.Policy(ctx, o.admin, p.ID)
	wantCode(t, err, fault.PolicyNotFound)

	var actions []string
	for _, e := range o.entries() {
		if e.Success && strings.HasPrefix(e.Action, "policy_") {
			actions = append(actions, e.Action)
		}
	}
	if got := strings.Join(actions, " "); got != "policy_create policy_bind policy_update policy_update policy_unbind policy_delete" {
		t.Errorf("recorded %s", got)
	}
}

func TestForceEndsBindings(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	if err := o.policies.Delete(t.Context(), o.admin, "team", true); err != nil {
		t.Fatal(err)
	}
	if o.door.Allowed(o.alice, access.Right{Permission: "read", Path: "app/x"}) {
		t.Error("the rules of a deleted policy still hold")
	}
	if n := len(access.BindingsTo(o.store.Config(), tenant, "user:alice")); n != 0 {
		t.Errorf("%d bindings are left", n)
	}
}

// Nobody hands out what they do not hold: alice tries every way to get more than she has.
func TestNobodyGrantsMoreThanTheyHold(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	soon := time.Now().Add(time.Hour)
	o.policy("visit", rule("vault/**", policy.Read))
	o.bind("visit", "user:alice", &soon)
	office := []string{"10.0.0.0/8"}
	o.policy("onsite", policy.Rule{PathPattern: "site/**", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{IPRanges: office}})
	o.bind("onsite", "user:alice", nil)
	o.put(store.KindPolicy, "pol-asleep", "asleep", map[string]any{"rules": []policy.Rule{rule("**", policy.Admin)}, "is_active": false})
	o.bind("asleep", "user:alice", nil)
	mine := o.create(o.alice, "mine", rule("app/web/*", policy.Read))
	on, off := true, false
	create := func(rules ...policy.Rule) func() error {
		return func() error {
			_, err := o.policies.Create(ctx, o.alice, &api.PolicyRequest{Name: "grab", Rules: rules})
			return err
		}
	}
	patch := func(id string, req api.PolicyPatch) func() error {
		return func() error { _, err := o.policies.Patch(ctx, o.alice, id, &req); return err }
	}
	bind := func(id, kind, identity string, end *time.Time) func() error {
		return func() error {
			_, err := o.policies.Bind(ctx, o.alice, id, &api.BindingRequest{IdentityType: kind, IdentityID: identity, ExpiresAt: end})
			return err
		}
	}
	more := []policy.Rule{rule("app/web/*", policy.Read), rule("**", policy.Admin)}
	renamed := "administrator"
	for name, attempt := range map[string]func() error{
		"bind herself the administrator's policy":  bind("pol-administrator", "user", "user:alice", nil),
		"bind it to a service account":             bind("pol-administrator", "service_account", "sa:ci", nil),
		"bind it for an hour":                      bind("pol-administrator", "user", "user:alice", &soon),
		"write admin on everything":                create(rule("**", policy.Admin)),
		"write admin where she has read":           create(rule("app/**", policy.Admin)),
		"write another permission":                 create(rule("app/x", policy.Write)),
		"write a wider path":                       create(rule("app*", policy.Read), rule("*", policy.Read)),
		"write beside what she may":                create(rule("app/web/*", policy.Read), rule("db/*", policy.Read)),
		"add a rule to her own":                    patch(mine.ID, api.PolicyPatch{Rules: &more}),
		"make permanent what she has for an hour":  create(rule("vault/**", policy.Read)),
		"bind for longer what she has for an hour": bind("pol-visit", "user", "user:bob", nil),
		"take a condition away":                    create(rule("site/**", policy.Read)),
		"wake a policy that grants more":           patch("pol-asleep", api.PolicyPatch{IsActive: &on}),
		"replace a policy by more": func() error {
			_, err := o.policies.Replace(ctx, o.alice, mine.ID, &api.PolicyRequest{Name: "mine", Rules: more})
			return err
		},
		"sleep, change, wake": func() error {
			if _, err := o.policies.Patch(ctx, o.alice, mine.ID, &api.PolicyPatch{IsActive: &off}); err != nil {
				return err
			}
			if _, err := o.policies.Patch(ctx, o.alice, mine.ID, &api.PolicyPatch{Rules: &more, IsActive: &off}); err != nil {
				return err
			}
			return patch(mine.ID, api.PolicyPatch{IsActive: &on})()
		},
	} {
		if got := fault.CodeOf(attempt()); got != fault.AccessDenied && got != fault.InvalidGlob {
			t.Errorf("%s: code %q", name, got)
		}
	}
	if o.door.Allowed(o.alice, access.Right{Permission: "write", Path: "app/x"}) {
		t.Error("alice got more than she had")
	}
	_, err := o.policies.Patch(ctx, o.admin, mine.ID, &api.PolicyPatch{Name: &renamed})
	wantCode(t, err, fault.PolicyExists)

	// What she holds she may give on, as long as she holds it.
	for name, give := range map[string]func() error{
		"a narrower rule":            create(rule("app/web/x", policy.Read, policy.DynamicGenerate)),
		"for the time she has it":    bind("pol-visit", "user", "user:bob", &soon),
		"with the condition she has": bind("pol-onsite", "user", "user:bob", nil),
		"her whole policy":           bind("pol-team", "group", "group:web", nil),
		"less than there was":        patch(mine.ID, api.PolicyPatch{Rules: &[]policy.Rule{rule("app/web/x", policy.Read)}}),
	} {
		if err := give(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPolicyRights(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	o.user("bob")
	o.policy("own", rule("sys/policies/own", policy.Read, policy.Write), rule("x", policy.Read))
	o.bind("own", "user:bob", nil)
	bob := o.caller("user:bob", access.ScopePoliciesRead, access.ScopePoliciesWrite)

	if _, err := o.policies.Policy(ctx, bob, "own"); err != nil {
		t.Error(err)
	}
	_, err := o.policies.Policy(ctx, bob, "pol-team")
	wantCode(t, err, fault.AccessDenied)
	_, err = o.policies.Policy(ctx, bob, "pol_unknown")
	wantCode(t, err, fault.AccessDenied)
	wantCode(t, o.policies.Delete(ctx, bob, "own", true), fault.AccessDenied)
	other := "other"
	_, err = o.policies.Patch(ctx, bob, "own", &api.PolicyPatch{Name: &other})
	wantCode(t, err, fault.AccessDenied)
	list, err := o.policies.List(ctx, bob, true, page.Request{})
	if err != nil || len(list.Policies) != 1 || list.Policies[0].Name != "own" {
		t.Errorf("bob sees %+v, %v", list, err)
	}
	reader := o.caller("user:admin", access.ScopePoliciesRead)
	_, err = o.policies.Create(ctx, reader, &api.PolicyRequest{Name: "x"})
	wantCode(t, err, fault.InsufficientScope)
	none := o.caller("user:admin", access.ScopeSecretsRead)
	_, err = o.policies.List(ctx, none, false, page.Request{})
	wantCode(t, err, fault.InsufficientScope)
}

// Whatever is done, somebody can still write policies afterwards.
func TestTheLastAdministratorStays(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	if err := o.policies.Unbind(ctx, o.admin, "team", "bind-teamuser:alice"); err != nil {
		t.Fatal(err)
	}
	off, soon := false, time.Now().Add(time.Hour)
	narrow := []policy.Rule{rule("app/**", policy.Admin)}
	conditional := []policy.Rule{{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}, Conditions: &policy.Conditions{RequireMFA: true}}}
	patch := func(req api.PolicyPatch) func() error {
		return func() error { _, err := o.policies.Patch(ctx, o.admin, "administrator", &req); return err }
	}
	attempts := map[string]func() error{
		"narrow it":           patch(api.PolicyPatch{Rules: &narrow}),
		"make it conditional": patch(api.PolicyPatch{Rules: &conditional}),
		"switch it off":       patch(api.PolicyPatch{IsActive: &off}),
		"delete it":           func() error { return o.policies.Delete(ctx, o.admin, "administrator", true) },
		"unbind it":           func() error { return o.policies.Unbind(ctx, o.admin, "administrator", "bind-administratoruser:admin") },
	}
	refused := func() {
		t.Helper()
		for name, attempt := range attempts {
			if got := fault.CodeOf(attempt()); got != fault.PolicyInUse {
				t.Errorf("%s: code %q", name, got)
			}
		}
	}
	refused()
	// None of these can write policies for ever: a group, who does not exist, who is bound for an
	// hour, an account whose tokens never have the scope.
	o.account("reader", access.ScopePoliciesRead)
	for kind, identity := range map[string]string{"group": "group:ops", "user": "user:nobody", "system": "system:x", "service_account": "sa:reader"} {
		if _, err := o.policies.Bind(ctx, o.admin, "administrator", &api.BindingRequest{IdentityType: kind, IdentityID: identity}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.policies.Bind(ctx, o.admin, "administrator", &api.BindingRequest{IdentityType: "service_account", IdentityID: "sa:ci", ExpiresAt: &soon}); err != nil {
		t.Fatal(err)
	}
	refused()

	second := o.create(o.admin, "second", rule("sys/policies/*", policy.Write))
	if _, err := o.policies.Bind(ctx, o.admin, second.ID, &api.BindingRequest{IdentityType: "service_account", IdentityID: "sa:ci"}); err != nil {
		t.Fatal(err)
	}
	if err := attempts["narrow it"](); err != nil {
		t.Errorf("with a second administrator: %v", err)
	}
	wantCode(t, func() error {
		_, err := o.policies.Create(ctx, o.admin, &api.PolicyRequest{Name: "again", Rules: []policy.Rule{rule("**", policy.Admin)}})
		return err
	}(), fault.AccessDenied)
}

func TestBadPoliciesAndBindings(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	past := time.Now().Add(-time.Minute)
	many := make([]policy.Rule, 101)
	for i := range many {
		many[i] = rule("app/x", policy.Read)
	}
	before := len(o.entries())
	n := 0
	for name, tt := range map[string]struct {
		req  api.PolicyRequest
		want fault.Code
	}{
		"no name":          {api.PolicyRequest{}, fault.InvalidPolicy},
		"upper case":       {api.PolicyRequest{Name: "Admins"}, fault.InvalidPolicy},
		"slash":            {api.PolicyRequest{Name: "a/b"}, fault.InvalidPolicy},
		"long":             {api.PolicyRequest{Name: strings.Repeat("a", 64)}, fault.InvalidPolicy},
		"bad glob":         {api.PolicyRequest{Name: "a", Rules: []policy.Rule{rule("a*b", policy.Read)}}, fault.InvalidGlob},
		"permission":       {api.PolicyRequest{Name: "a", Rules: []policy.Rule{rule("a", "fly")}}, fault.InvalidPolicy},
		"too many rules":   {api.PolicyRequest{Name: "a", Rules: many}, fault.InvalidPolicy},
		"long description": {api.PolicyRequest{Name: "a", Description: strings.Repeat("a", 1025)}, fault.InvalidPolicy},
	} {
		_, err := o.policies.Create(ctx, o.admin, &tt.req)
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", name, got, tt.want)
		}
		n++
	}
	for name, tt := range map[string]struct {
		req  api.BindingRequest
		want fault.Code
	}{
		"type":            {api.BindingRequest{IdentityType: "robot", IdentityID: "user:x"}, fault.InvalidRequest},
		"mismatch":        {api.BindingRequest{IdentityType: "user", IdentityID: "sa:ci"}, fault.InvalidRequest},
		"system as user":  {api.BindingRequest{IdentityType: "user", IdentityID: "system:lease"}, fault.InvalidRequest},
		"user as system":  {api.BindingRequest{IdentityType: "system", IdentityID: "user:alice"}, fault.InvalidRequest},
		"no prefix":       {api.BindingRequest{IdentityType: "user", IdentityID: "alice"}, fault.InvalidRequest},
		"space":           {api.BindingRequest{IdentityType: "user", IdentityID: "user:a b"}, fault.InvalidRequest},
		"empty":           {api.BindingRequest{IdentityType: "user", IdentityID: "user:"}, fault.InvalidRequest},
		"past":            {api.BindingRequest{IdentityType: "user", IdentityID: "user:bob", ExpiresAt: &past}, fault.InvalidRequest},
		"unknown account": {api.BindingRequest{IdentityType: "service_account", IdentityID: "sa:nobody"}, fault.IdentityNotFound},
	} {
		_, err := o.policies.Bind(ctx, o.admin, "team", &tt.req)
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", name, got, tt.want)
		}
		n++
	}
	for _, id := range []string{"dynamic:support-db", "system:dynamic-engines"} {
		if _, err := o.policies.Bind(ctx, o.admin, "team", &api.BindingRequest{IdentityType: "system", IdentityID: id}); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		n++
	}
	if got := len(o.entries()) - before; got != n {
		t.Errorf("%d requests made %d entries", n, got)
	}
}

func TestPolicyTest(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	ctx := t.Context()
	o.policy("onsite", policy.Rule{PathPattern: "site/*", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{IPRanges: []string{"10.0.0.0/8"}}})
	o.bind("onsite", "user:alice", nil)
	o.policy("engines", rule("infra/**", policy.Read))
	o.bind("engines", access.EnginesGroup, nil)
	ask := func(c *access.Caller, identity, path, permission string, in *api.PolicyTestContext) (*api.PolicyTestResult, error) {
		return o.policies.Test(ctx, c, &api.PolicyTestRequest{IdentityID: identity, Path: path, Permission: permission, Context: in})
	}

	got, err := ask(o.admin, "user:alice", "app/x", "read", nil)
	if err != nil || !got.Allowed || got.MatchedPolicy != "team" || got.MatchedRule == nil || got.MatchedRule.PathPattern != "app/**" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ask(o.admin, "user:alice", "site/x", "read", &api.PolicyTestContext{SourceIP: "192.0.2.1"})
	if err != nil || got.Allowed || got.Reason != "ip_not_allowed" || got.FailedCondition != "ip_ranges" || got.EvaluatedPolicies == nil || *got.EvaluatedPolicies != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ask(o.admin, "user:alice", "site/x", "read", &api.PolicyTestContext{SourceIP: "10.1.2.3"})
	if err != nil || !got.Allowed {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ask(o.admin, "dynamic:db", "infra/db", "read", nil)
	if err != nil || !got.Allowed || got.MatchedPolicy != "engines" {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = ask(o.admin, "user:nobody", "app/x", "read", nil)
	if err != nil || got.Allowed || got.Reason != "access_denied" || *got.EvaluatedPolicies != 0 {
		t.Errorf("%+v, %v", got, err)
	}

	o.user("bob")
	bob := o.caller("user:bob", access.ScopePoliciesRead)
	if _, err := ask(bob, "user:bob", "app/x", "read", nil); err != nil {
		t.Errorf("about oneself: %v", err)
	}
	_, err = ask(bob, "user:alice", "app/x", "read", nil)
	wantCode(t, err, fault.AccessDenied)
	for _, bad := range [][3]string{{"alice", "app/x", "read"}, {"user:alice", "", "read"}, {"user:alice", "app/x", "fly"}} {
		_, err := ask(o.admin, bad[0], bad[1], bad[2], nil)
		wantCode(t, err, fault.InvalidRequest)
	}
	_, err = ask(o.admin, "user:alice", "app/x", "read", &api.PolicyTestContext{SourceIP: "here"})
	wantCode(t, err, fault.InvalidRequest)
}

// Changes that race are put in order, and each is judged by what the one before left.
func TestConcurrentChangesKeepTheLastAdministrator(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	const n = 8
	o.policy("twin", rule("**", policy.Admin))
	o.bind("twin", "user:admin", nil)
	if err := o.policies.Unbind(t.Context(), o.admin, "team", "bind-teamuser:alice"); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, n)
	for i := range n {
		name := []string{"twin", "administrator"}[i%2]
		c := o.caller("user:admin", access.ScopeAdmin)
		go func() { errs <- o.policies.Delete(context.Background(), c, name, true) }()
	}
	deleted := 0
	for range n {
		err := <-errs
		if err == nil {
			deleted++
		} else if code := fault.CodeOf(err); code != fault.PolicyInUse && code != fault.PolicyNotFound {
			t.Error(err)
		}
	}
	if deleted != 1 {
		t.Errorf("%d of two administrators' policies were deleted", deleted)
	}
	if fmt.Sprint(o.door.Allowed(o.admin, access.Right{Permission: "write", Path: "sys/policies/x"})) != "true" {
		t.Error("nobody is left")
	}
}
