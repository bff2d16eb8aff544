package azure_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/test/azuretest"
)

// lagging makes everything known a little later than it was made, by the server's clock, which moves with
// each request.
func lagging() azuretest.Option { return azuretest.WithLag(5*time.Second, 2*time.Second) }

// Where what was made is not known everywhere at once, a credential is made all the same, works when it
// is handed out, and dies without a trace.
func TestEventualConsistency(t *testing.T) {
	t.Parallel()
	s := newSource(t, lagging())
	e := s.open(t, nil)
	before := s.Left()
	for _, role := range []engine.Role{s.reader(t), parseRole(t, `{"azure_groups": ["app readers"]}`)} {
		p, recipe := issue(t, e, role)
		if err := s.login(t, p); err != nil {
			t.Errorf("a credential that was handed out: %v", err)
		}
		revoke(t, e, recipe)
		if err := s.login(t, p); err == nil {
			t.Error("a dead credential logs in")
		}
		s.spotless(t, before)
	}
}

// What was issued a moment ago, and is shown nowhere yet, is ended by the ids that Microsoft told.
func TestRevokedWhileHidden(t *testing.T) {
	t.Parallel()
	s := newSource(t, azuretest.WithStaleReads())
	e := s.open(t, map[string]any{"operation_timeout": "20s"}) // half of it is spent on a login that is not taken yet
	before := s.Left()
	_, recipe := issue(t, e, s.reader(t))
	if left := s.Left(); left.Applications != before.Applications+1 {
		t.Fatalf("left are %s", left)
	}
	revoke(t, e, recipe)
	s.spotless(t, before)
}

// What fails right after the application was made is taken back, though nothing shows that application yet.
func TestTakenBackWhileHidden(t *testing.T) {
	t.Parallel()
	s := newSource(t, azuretest.WithLag(12*time.Second, 2*time.Second)) // more than two looks
	e := s.open(t, nil)
	before := s.Left()
	s.Fail(func(op string) azuretest.Fault { return azuretest.Fault{Before: op == "POST /servicePrincipals"} })
	if _, err := e.Issue(t.Context(), plan(t, e, s.reader(t))); engine.KindOf(err) != engine.Unreachable {
		t.Errorf("what failed, and was taken back: %v", err)
	}
	s.Fail(nil)
	s.spotless(t, before)
}

// Where somebody else deleted the application, its role assignments are still there, and lead to nobody.
func TestApplicationDeletedByOthers(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	p, recipe := issue(t, e, s.reader(t))
	s.Delete(p.Data["client_id"].Reveal())
	if left := s.Left(); left.Assignments != before.Assignments+1 {
		t.Fatalf("left are %s", left)
	}
	revoke(t, e, recipe)
	s.spotless(t, before)
}

// A credential is deleted from the recycle bin where its role says so, and otherwise stays there.
func TestPermanentlyDelete(t *testing.T) {
	t.Parallel()
	s := newSource(t, lagging())
	e := s.open(t, nil)
	scope := `"azure_roles": [{"role_name": "Reader", "scope": "` + s.Scope() + `"}]`
	_, kept := issue(t, e, parseRole(t, `{`+scope+`}`))
	p, purged := issue(t, e, parseRole(t, `{`+scope+`, "permanently_delete": true}`))
	revoke(t, e, kept)
	revoke(t, e, p.Recipe) // the ids that only the issue knew are not needed
	revoke(t, e, purged)
	revoke(t, e, purged)
	if left := s.Left(); left.Recycled != 1 {
		t.Errorf("left are %s", left)
	}
}

// What an application may make is limited, and what it deleted counts until it is gone for good.
func TestQuota(t *testing.T) {
	t.Parallel()
	s := newSource(t, azuretest.WithQuota(5))
	e := s.open(t, nil)
	for range 3 {
		_, recipe := issue(t, e, parseRole(t, `{"azure_groups": ["app readers"], "permanently_delete": true}`))
		revoke(t, e, recipe)
	}
	for range 2 {
		_, recipe := issue(t, e, s.reader(t))
		revoke(t, e, recipe)
	}
	before := s.Left()
	_, err := e.Issue(t.Context(), plan(t, e, s.reader(t)))
	if engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "permanently_delete") {
		t.Errorf("beyond the quota: %v", err)
	}
	s.spotless(t, before)
}

// Azure answers with 429 before it does anything: the engine waits for as long as it is told.
func TestThrottled(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	met := map[string]int{}
	s.Fail(func(op string) azuretest.Fault {
		met[op]++
		told := map[string]int{"POST /applications": 1, "POST /servicePrincipals": 0, "POST /applications/{application-id}/addPassword": 0, "DELETE /applications/{application-id}": 1}
		seconds, throttled := told[op]
		return azuretest.Fault{Throttle: throttled && met[op] == 1, RetryAfter: seconds}
	})
	p, recipe := issue(t, e, s.reader(t))
	if err := s.login(t, p); err != nil {
		t.Error(err)
	}
	revoke(t, e, recipe)
	s.Fail(nil)
	s.spotless(t, before)
	if met["POST /applications"] != 2 {
		t.Errorf("the application was asked for %d times", met["POST /applications"])
	}
}

// Where Azure asks for more patience than there is time, the answer says so at once, and nothing is left.
func TestThrottledForLong(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	s.Fail(func(op string) azuretest.Fault {
		return azuretest.Fault{Throttle: strings.HasPrefix(op, "PUT "), RetryAfter: 3600}
	})
	_, err := e.Issue(t.Context(), plan(t, e, s.reader(t)))
	if engine.KindOf(err) != engine.Busy {
		t.Errorf("an hour's patience is asked for: %v", err)
	}
	s.spotless(t, before)
}

// Each request of an issue fails in each way. What the error says is left is left, and what a revocation
// of the plan leaves is nothing.
func TestFailuresInTheMiddle(t *testing.T) {
	t.Parallel()
	ops := []string{
		"GET /applications", "POST /applications", "POST /servicePrincipals",
		"PUT /{scope}/providers/Microsoft.Authorization/roleAssignments/{roleAssignmentName}",
		"POST /groups/{group-id}/members/$ref", "POST /applications/{application-id}/addPassword",
	}
	faults := map[string]azuretest.Fault{"before": {Before: true}, "after": {After: true}, "lost": {Lost: true}}
	s := newSource(t)
	e := s.open(t, nil)
	role := s.reader(t)
	_, warm := issue(t, e, role)
	revoke(t, e, warm)
	before := s.Left()
	for _, op := range ops {
		for name, fault := range faults {
			for _, more := range []bool{false, true} { // whether what takes it back fails, too
				met := 0
				s.Fail(func(at string) azuretest.Fault {
					if at == op {
						met++
					}
					if at == op && (met == 1 || fault.Lost && met == 2) || more && met > 0 && strings.HasPrefix(at, "DELETE /applications") {
						return fault
					}
					return azuretest.Fault{}
				})
				p := plan(t, e, role)
				recipe, err := e.Issue(t.Context(), p)
				s.Fail(nil)
				what := fmt.Sprintf("%s fails %s, taking back fails %t: %v", op, name, more, err)
				switch kind := engine.KindOf(err); {
				case err == nil:
					revoke(t, e, recipe)
				case kind == engine.Uncertain:
					revoke(t, e, p.Recipe)
				case s.Left().Applications != before.Applications:
					t.Errorf("%s: left are %s", what, s.Left())
				}
				now := s.Left()
				now.Recycled = before.Recycled
				if now != before {
					t.Fatalf("%s: left are %s", what, now)
				}
			}
		}
	}
}

// What a revocation meets fails in each way: it is repeated until nothing is left.
func TestRevokeIsRepeated(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	for _, fault := range []azuretest.Fault{{Before: true}, {After: true}, {Lost: true}} {
		for step := range 12 {
			p, recipe := issue(t, e, s.reader(t))
			met := 0
			s.Fail(func(string) azuretest.Fault {
				if met++; met == step+1 || met == step+2 {
					return fault
				}
				return azuretest.Fault{}
			})
			_, err := e.Revoke(t.Context(), recipe)
			s.Fail(nil)
			if err != nil {
				revoke(t, e, recipe)
			}
			if err := s.login(t, p); err == nil {
				t.Errorf("step %d: a dead credential logs in", step)
			}
			s.spotless(t, before)
		}
	}
}

// What is sent and comes late makes an application that nobody can use. It is found by its name while the
// lease is looked at, and by its mark for ever.
func TestLate(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	p := plan(t, e, s.reader(t))
	s.Fail(func(op string) azuretest.Fault { return azuretest.Fault{Lost: op == "POST /applications"} })
	_, err := e.Issue(t.Context(), p)
	s.Fail(nil)
	if engine.KindOf(err) != engine.Uncertain {
		t.Fatalf("an answer that was lost: %v", err)
	}
	found, err := e.Lookup(t.Context(), p.Recipe)
	if err != nil || found.State != engine.Unusable {
		t.Errorf("what came late is looked up as %d, %v", found.State, err)
	}
	accounts, err := e.List(t.Context())
	if err != nil || len(accounts) != 1 || accounts[0].Username != p.Username {
		t.Errorf("listed are %+v, %v", accounts, err)
	}
	revoke(t, e, p.Recipe)
	s.spotless(t, before)
}

// A token that was given out before the revocation lives on, and the outcome tells until when. One of a
// credential that was never of use does not, nor one that has ended with its password.
func TestTokensLiveOn(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, map[string]any{"token_lifetime": "2h"})
	objectID, clientID := s.NewApplication("somebody's", s.root.PrincipalID)
	s.Assign(t, s.Scope(), "Reader", s.PrincipalOf(clientID))
	for name, role := range map[string]engine.Role{"application": s.reader(t), "password": parseRole(t, `{"application_object_id": "`+objectID+`"}`)} {
		p, recipe := issue(t, e, role)
		session, err := s.Login(t.Context(), p.Data["client_id"].Reveal(), p.Data["client_secret"].Reveal())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(session.Close)
		for range 2 {
			at := revoke(t, e, recipe).EffectiveAt
			if at == nil || time.Until(*at).Round(time.Hour) != 2*time.Hour {
				t.Errorf("%s: it is dead from %v on", name, at)
			}
		}
		// Azure looks at role assignments at each request: those of an application of ours are gone.
		if lives := session.Works(t.Context()); lives != (name == "password") {
			t.Errorf("%s: a token works after the revocation: %t", name, lives)
		}
		if at := revoke(t, e, plan(t, e, role).Recipe).EffectiveAt; at != nil {
			t.Errorf("%s: what was never made is dead from %s on", name, at)
		}
	}
	p := plan(t, e, s.reader(t))
	var past map[string]any
	if err := json.Unmarshal(p.Recipe, &past); err != nil {
		t.Fatal(err)
	}
	past["ends"], past["key_id"] = time.Now().Add(-3*time.Hour).Format(time.RFC3339), s.Tenant
	ended, err := json.Marshal(past)
	if err != nil {
		t.Fatal(err)
	}
	if at := revoke(t, e, engine.Recipe(ended)).EffectiveAt; at != nil {
		t.Errorf("what ended three hours ago is dead from %s on", at)
	}
}

// The end that Azure enforces, without anybody's help.
func TestPasswordEnds(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p, recipe := issue(t, e, s.reader(t))
	s.Advance(62 * time.Minute)
	if err := s.login(t, p); err == nil {
		t.Error("a password works after its end")
	}
	e.Close()
	again := s.open(t, nil)
	revoke(t, again, recipe)
}

// The principal is a member of each group, and of none when it is dead.
func TestMemberships(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	other := s.NewGroup("other readers")
	_, recipe := issue(t, e, parseRole(t, `{"azure_groups": ["app readers", "`+other+`"]}`))
	if left := s.Left(); left.Memberships != 2 {
		t.Errorf("there are %s", left)
	}
	revoke(t, e, recipe)
	if left := s.Left(); left.Memberships != 0 {
		t.Errorf("left are %s", left)
	}
}

// What somebody else gave to our principal ends with it, and where root may not take it, it is named.
func TestRightsOfOthers(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	p, recipe := issue(t, e, s.reader(t))
	for range 4 { // more than one page
		s.Assign(t, s.Scope()+"/resourceGroups/other", "Reader", s.PrincipalOf(p.Data["client_id"].Reveal()))
	}
	if o := revoke(t, e, recipe); o.Residue != "" {
		t.Errorf("a residue: %s", o.Residue)
	}
	s.spotless(t, before)
}

// Root has its role at two resource groups only, and loses it at one: what it may not take there keeps
// that one lease, and no other.
func TestForbiddenAtOneScope(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	rights := guide(t, s.Scope())
	one, two := s.Scope()+"/resourceGroups/one", s.Scope()+"/resourceGroups/two"
	rights.Roles = map[string]string{one: rights.Roles[s.Scope()], two: rights.Roles[s.Scope()]}
	s.root = s.NewRoot(t, rights)
	e := s.open(t, nil)
	before := s.Left()
	recipes := map[string]engine.Recipe{}
	for _, scope := range []string{one, two} {
		_, recipes[scope] = issue(t, e, parseRole(t, `{"azure_roles": [{"role_name": "Reader", "scope": "`+scope+`"}]}`))
	}
	s.Withdraw(one, s.root.PrincipalID)
	before.Assignments--
	if _, err := e.Revoke(t.Context(), recipes[one]); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), one) {
		t.Errorf("where root may not: %v", err)
	}
	revoke(t, e, recipes[two])
	s.Assign(t, one, "Role Based Access Control Administrator", s.root.PrincipalID)
	before.Assignments++
	revoke(t, e, recipes[one])
	s.spotless(t, before)
}

// What a list shows of others, though it was asked for ours only, is left to them.
func TestListOfOthers(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.Left()
	_, recipe := issue(t, e, s.reader(t))
	s.IgnoreFilter()
	if o := revoke(t, e, recipe); o.Residue != "" {
		t.Errorf("a residue: %s", o.Residue)
	}
	s.spotless(t, before)
}

// A token is sent to nobody else: neither where a redirect leads nor where a list goes on.
func TestNothingLeadsElsewhere(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	for range 5 {
		s.NewApplication("somebody's")
	}
	if _, err := e.List(t.Context()); err != nil {
		t.Errorf("a list of several pages: %v", err)
	}
	elsewhere := azuretest.Start(t)
	through := azuretest.NewFront(t, s.Server, func(_ http.Header, body string) (int, string) {
		return http.StatusOK, strings.ReplaceAll(body, s.URL(), elsewhere.URL())
	})
	crooked := s.open(t, map[string]any{"graph_endpoint": through})
	served := elsewhere.Served()
	if _, err := crooked.List(t.Context()); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a list that goes on elsewhere: %v", err)
	}
	redirecting := azuretest.NewFront(t, s.Server, func(header http.Header, _ string) (int, string) {
		header.Set("Location", elsewhere.URL()+"/v1.0/applications")
		return http.StatusTemporaryRedirect, ""
	})
	crooked = s.open(t, map[string]any{"graph_endpoint": redirecting})
	if _, err := crooked.List(t.Context()); err == nil {
		t.Error("a redirect is taken for an answer")
	}
	if elsewhere.Served() != served {
		t.Error("something was sent elsewhere")
	}
}

// A wrong root is told from a source that is away.
func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	for name, change := range map[string]func(*engine.Options){
		"password":    func(o *engine.Options) { o.Root["client_secret"] = "wrong" },
		"application": func(o *engine.Options) { o.Root["client_id"] = "00000000-0000-4000-8000-000000000000" },
		"no id":       func(o *engine.Options) { o.Root["client_id"] = "../../x" },
		"nothing":     func(o *engine.Options) { o.Root = nil },
	} {
		o := s.options(nil)
		change(&o)
		e, err := azure.Type{}.Open(context.Background(), o)
		if engine.KindOf(err) != engine.Misconfigured {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			e.Close()
		} else if strings.Contains(err.Error(), s.root.ClientSecret) {
			t.Errorf("%s: the error tells the password", name)
		}
	}
}

// Passwords of ours on an application of somebody are found, and nothing else of it is touched.
func TestListFindsPasswords(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	objectID, _ := s.NewApplication("somebody's", s.root.PrincipalID)
	role := parseRole(t, `{"application_object_id": "`+objectID+`"}`)
	p, _ := issue(t, e, role)
	accounts, err := e.List(t.Context())
	at := slices.IndexFunc(accounts, func(a engine.Account) bool { return a.Username == p.Username })
	if err != nil || at < 0 {
		t.Fatalf("listed are %+v, %v", accounts, err)
	}
	revoke(t, e, accounts[at].Recipe)
	if err := s.login(t, p); err == nil {
		t.Error("a password that was listed and revoked works")
	}
	if !slices.Contains(s.Names(), "somebody's") {
		t.Error("somebody's application was deleted")
	}
}

// A credential whose application was called otherwise by somebody, or lost its tags, is revoked: Microsoft
// told its id when it was made.
func TestRenamed(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	for _, name := range []string{"somebody's", ""} {
		p, r := issue(t, e, s.reader(t))
		if name == "" {
			name = p.Username // only the tags are gone
		}
		s.Rename(p.Data["client_id"].Reveal(), name)
		revoke(t, e, r)
		if err := s.login(t, p); err == nil {
			t.Errorf("a credential is said to be dead, and logs in as %s", name)
		}
	}
}
