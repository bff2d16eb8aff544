package gcp_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/test/gcptest"
)

var kinds = map[string]string{
	"a key of an account": keyOfAnAccount, "a key of its own account": keyOfItsOwn, "Google's key of its own account": googleKeyOfOwn,
	"a token of an account": tokenOfAnAccount, "a token of its own account": tokenOfItsOwn,
}

// What a caller gets is the file that Google gives.
func TestKeyFile(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	p, r := issue(t, s.open(t, nil), keyOfAnAccount)
	text, err := base64.StdEncoding.DecodeString(p.Data["private_key_data"].Reveal())
	if err != nil {
		t.Fatal(err)
	}
	var file, made map[string]any
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(s.AddKey(s.app.Email), &made); err != nil {
		t.Fatal(err)
	}
	for field := range made {
		if file[field] == nil || file[field] == "" {
			t.Errorf("the file lacks %s", field)
		}
	}
	if len(file) != len(made) || file["client_id"] != s.app.ID || file["client_email"] != s.app.Email || !strings.Contains(string(r), file["private_key_id"].(string)) {
		t.Errorf("a file with %d fields, Google's has %d", len(file), len(made))
	}
	if _, err := s.login(t.Context(), p.Data); err != nil {
		t.Fatalf("log in: %v", err)
	}
}

// The certificate that Google gets of a key ends with the lease, to the second, and Google takes the key until
// then only. The lease is short: an assertion of its holder's clock would have ended after an hour by itself.
func TestKeyEnds(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]string{"of an account": keyOfAnAccount, "of its own account": keyOfItsOwn} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			e := s.open(t, nil)
			p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: parseRole(t, role), ExpiresAt: time.Now().Add(10 * time.Minute).Truncate(time.Second)})
			if err != nil {
				t.Fatal(err)
			}
			p.Deadline = time.Now().Add(time.Minute)
			if _, err := e.Issue(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			email, id, _ := s.find(p.Username)
			if cert := s.Certificate(email, id); cert == nil || !cert.NotAfter.Equal(p.ExpiresAt) {
				t.Errorf("the lease ends at %s, and not so the certificate: %+v", p.ExpiresAt, cert)
			}
			s.Advance(8 * time.Minute)
			if _, err := s.login(t.Context(), p.Data); err != nil {
				t.Errorf("before the end: %v", err)
			}
			s.Advance(2 * time.Minute)
			if _, err := s.login(t.Context(), p.Data); err == nil {
				t.Error("the key is taken after the end of its lease")
			}
		})
	}
}

// A token ends with the lease; a longer one is for organisations that allow it.
func TestTokenEnds(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p, _ := issue(t, e, tokenOfAnAccount)
	if ends := s.TokenEnds(p.Data["access_token"].Reveal()); ends.Sub(p.ExpiresAt).Abs() > time.Minute {
		t.Errorf("the token ends at %s, the lease at %s", ends, p.ExpiresAt)
	}
	extended := strings.TrimSuffix(tokenOfAnAccount, "}") + `, "extended_token_lifetime": true}`
	long := func() (*engine.Plan, error) {
		p := plan(t, e, extended)
		p.ExpiresAt = time.Now().Add(5 * time.Hour)
		_, err := e.Issue(t.Context(), p)
		return p, err
	}
	if _, err := long(); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "lifetime") {
		t.Errorf("a long token that the organisation does not allow: %v", err)
	}
	s.ExtendTokens(12 * time.Hour)
	p, err := long()
	if err != nil {
		t.Fatal(err)
	}
	if ends := s.TokenEnds(p.Data["access_token"].Reveal()); time.Until(ends) < 4*time.Hour {
		t.Errorf("a long token ends at %s", ends)
	}
}

// Google's limit of keys is refused in our words before it is run into, and watched.
func TestTenKeys(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	warned := func() bool {
		warnings, err := e.PrepareRole(t.Context(), "reader", parseRole(t, keyOfAnAccount))
		if err != nil {
			t.Fatalf("try the role: %v", err)
		}
		return strings.Contains(strings.Join(warnings, " ")+strings.Join(e.Check(t.Context()).Warnings, " "), "Google allows 10")
	}
	_, first := issue(t, e, keyOfAnAccount)
	if warned() {
		t.Error("an account with one key is worth a warning")
	}
	for range 9 {
		s.AddKey(s.app.Email)
	}
	if !warned() {
		t.Error("an account with ten keys is worth no warning")
	}
	uploads := s.Calls("iam.projects.serviceAccounts.keys.upload")
	_, err := e.Issue(t.Context(), plan(t, e, keyOfAnAccount))
	if engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "10 keys, which is all that Google allows") {
		t.Errorf("the eleventh key: %v", err)
	}
	if s.Calls("iam.projects.serviceAccounts.keys.upload") != uploads {
		t.Error("the limit was run into")
	}
	revoke(t, e, first)
	if _, err := e.Issue(t.Context(), plan(t, e, keyOfAnAccount)); err != nil {
		t.Errorf("after a key is gone: %v", err)
	}
}

// A request has no fields of its own, and a role of another engine is none.
func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	e := newSource(t).open(t, nil)
	for _, params := range []string{`{"token_scopes": []}`, `[]`, `null`} {
		_, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "r", Role: parseRole(t, keyOfAnAccount), Params: json.RawMessage(params)})
		if engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: %v", params, err)
		}
	}
	root := parseRole(t, `{"credential_type": "access_token", "service_account_email": "scaivault-root@fake-project-123.iam.gserviceaccount.com"}`)
	if _, err := e.Plan(t.Context(), engine.PlanRequest{Role: root}); engine.KindOf(err) != engine.Refused {
		t.Errorf("credentials of the root itself: %v", err)
	}
	if _, err := e.PrepareRole(t.Context(), "r", root); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a role of the root itself: %v", err)
	}
	if _, err := e.Plan(t.Context(), engine.PlanRequest{Role: "a role"}); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("another engine's role: %v", err)
	}
}

// Names are ones that Google takes, whatever the role is called.
func TestAccountNames(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	for _, name := range []string{"r", "read-only", "read_only_", "a-very-long-name-of-a-role-that-does-not-fit", "0", "___"} {
		p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: name, Role: parseRole(t, tokenOfItsOwn), ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		p.Deadline = time.Now().Add(time.Minute)
		if _, err := e.Issue(t.Context(), p); err != nil || len(p.Username) > 30 || !s.namer.Ours(p.Username) {
			t.Errorf("%s: %s: %v", name, p.Username, err)
		}
	}
}

// Google knows late of what was made just now: a credential that is given works, and one that is
// revoked is dead as soon as Google knows.
func TestEventualConsistency(t *testing.T) {
	t.Parallel()
	for name, role := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			e := s.open(t, nil)
			s.SetLag(3*time.Second, 2*time.Second)
			p, r := issue(t, e, role)
			s.Advance(3 * time.Second)
			h, err := s.login(t.Context(), p.Data)
			if err != nil || !h.Works(t.Context()) {
				t.Fatalf("the credential does not work: %v", err)
			}
			if found, err := e.Lookup(t.Context(), r); err != nil || found.State != engine.Usable {
				t.Errorf("looked up as %d, %v", found.State, err)
			}
			outcome := revoke(t, e, r)
			if outcome.EffectiveAt == nil {
				t.Error("what works until Google knows is said to be dead")
			}
			s.Advance(time.Minute)
			revoke(t, e, r)
			if role != tokenOfAnAccount && s.exists(p.Username) {
				t.Error("it is there after all")
			}
			s.Advance(time.Hour)
			if h.Works(t.Context()) {
				t.Error("its token works when it is said to be dead")
			}
		})
	}
}

// Quotas are waited for as long as the deadline allows, and no longer.
func TestThrottled(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	left := 3
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if left > 0 && q.Method != "oauth2.token" {
			left--
			return gcptest.Fault{Status: http.StatusTooManyRequests, Reason: "RESOURCE_EXHAUSTED", RetryAfter: 1}
		}
		return gcptest.Fault{}
	})
	begun := time.Now()
	_, r := issue(t, e, keyOfAnAccount)
	if took := time.Since(begun); took < 3*time.Second {
		t.Errorf("Google asked for three seconds in all, and it took %s", took)
	}
	s.SetFault(nil)
	revoke(t, e, r)

	s.SetFault(func(gcptest.Request) gcptest.Fault {
		return gcptest.Fault{Status: http.StatusTooManyRequests, Reason: "RESOURCE_EXHAUSTED", RetryAfter: 3600}
	})
	asked := s.Calls("iam.projects.serviceAccounts.keys.list")
	_, err := e.Issue(t.Context(), plan(t, e, keyOfAnAccount))
	if asked = s.Calls("iam.projects.serviceAccounts.keys.list") - asked; engine.KindOf(err) != engine.Busy || asked != 1 {
		t.Errorf("asked %d times by who is to wait an hour: %v", asked, err)
	}
}

// What is refused halfway is taken back.
func TestRefusedHalfway(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	const unknown = `{"credential_type": "access_token", "bindings": [{"resource": "projects/fake-project-123", "roles": ["roles/app.reader"]}, {"resource": "projects/fake-project-123/secrets/app", "roles": ["roles/unknown"]}]}`
	s.AddResource(project + "/secrets/app")
	s.DefineRole("roles/secrets", "secretmanager.secrets.getIamPolicy", "secretmanager.secrets.setIamPolicy")
	s.Grant(project, "roles/secrets", "serviceAccount:"+s.email)
	before := s.state()
	if _, err := e.Issue(t.Context(), plan(t, e, unknown)); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "roles/unknown") {
		t.Errorf("a role that there is not: %v", err)
	}
	if after := s.state(); after != before {
		t.Errorf("something is left:\n%s\nafter\n%s", after, before)
	}
}

// Every kind of resource has the policy where Google describes it: the server refuses everything else.
func TestResources(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	s.DefineRole("roles/all", "secretmanager.secrets.getIamPolicy", "secretmanager.secrets.setIamPolicy", "pubsub.topics.getIamPolicy", "pubsub.topics.setIamPolicy",
		"pubsub.subscriptions.getIamPolicy", "pubsub.subscriptions.setIamPolicy", "iam.serviceAccounts.getIamPolicy", "iam.serviceAccounts.setIamPolicy",
		"resourcemanager.folders.getIamPolicy", "resourcemanager.folders.setIamPolicy", "resourcemanager.organizations.getIamPolicy", "resourcemanager.organizations.setIamPolicy")
	var list []string
	resources := []string{project, "folders/123", "organizations/456", project + "/serviceAccounts/" + s.app.Email, project + "/topics/t", project + "/subscriptions/s", project + "/secrets/app"}
	for _, name := range resources {
		s.AddResource(name)
		s.Grant(name, "roles/all", "serviceAccount:"+s.email)
		list = append(list, `{"resource": "`+name+`", "roles": ["roles/app.reader", "roles/other"]}`)
	}
	role := `{"credential_type": "access_token", "bindings": [` + strings.Join(list, ", ") + `]}`
	before := s.state()
	if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, role)); err != nil {
		t.Fatalf("try the role: %v", err)
	}
	p, r := issue(t, e, role)
	members := s.Members()
	for _, name := range resources {
		if !strings.Contains(strings.Join(members[name], " "), p.Data["service_account_email"].Reveal()) {
			t.Errorf("the policy of %s does not name the account", name)
		}
	}
	revoke(t, e, r)
	if after := s.state(); after != before {
		t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
	}
}

// The identity of a source is the project's, and a lease of another project is not touched.
func TestAnotherProject(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	_, r := issue(t, e, keyOfAnAccount)
	other := s.open(t, map[string]any{"source_id": "elsewhere"})
	if _, err := other.Revoke(t.Context(), r); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("revoke: %v", err)
	}
	if _, err := other.Lookup(t.Context(), r); engine.KindOf(err) != engine.WrongServer {
		t.Errorf("look up: %v", err)
	}
	if e.SourceID() != "gcp/"+gcptest.Project || other.SourceID() != "elsewhere" {
		t.Errorf("%s, %s", e.SourceID(), other.SourceID())
	}
	if _, err := e.Revoke(t.Context(), engine.Recipe(`{"nonsense": true}`)); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("no recipe: %v", err)
	}
	if _, err := (gcp.Type{}).ParseRole(json.RawMessage(`nonsense`)); err == nil {
		t.Error("no role is taken for one")
	}
}
