package gcp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/gcptest"
)

// Nothing is said to be dead that still works, and the moment that is said is right.
func TestEffectiveAt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role  string
		after time.Duration // of the revocation
	}{
		"a key of an account":        {keyOfAnAccount, time.Hour},
		"a key of its own account":   {keyOfItsOwn, 7 * time.Minute},
		"a token of an account":      {tokenOfAnAccount, time.Hour},
		"a token of its own account": {tokenOfItsOwn, 7 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			e := s.open(t, nil)
			p, r := issue(t, e, c.role)
			h, err := s.login(t.Context(), p.Data)
			if err != nil || !h.Works(t.Context()) {
				t.Fatalf("the credential does not work: %v", err)
			}
			s.SetLag(6*time.Minute, 0)
			outcome := revoke(t, e, r)
			if outcome.EffectiveAt == nil || (time.Until(*outcome.EffectiveAt)-c.after).Abs() > 2*time.Minute {
				t.Fatalf("dead at %v, in %s", outcome.EffectiveAt, c.after)
			}
			if outcome := revoke(t, e, p.Recipe); outcome.EffectiveAt != nil {
				t.Error("what nobody confirmed is in nobody's hands, and dead now")
			}
			s.Advance(time.Until(*outcome.EffectiveAt))
			if h.Works(t.Context()) {
				t.Error("it works at the moment from which it is dead")
			}
			if h, err := s.login(t.Context(), p.Data); err == nil && h.Works(t.Context()) {
				t.Error("it logs in at the moment from which it is dead")
			}
		})
	}
}

// A policy that may not be changed any more does not keep an account alive: what is left is powerless,
// and named.
func TestResidue(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.AddResource("folders/123")
	s.DefineRole("roles/folders", "resourcemanager.folders.getIamPolicy", "resourcemanager.folders.setIamPolicy")
	s.Grant("folders/123", "roles/folders", "serviceAccount:"+s.email)
	e := s.open(t, nil)
	p, r := issue(t, e, `{"credential_type": "service_account_key", "bindings": [{"resource": "projects/fake-project-123", "roles": ["roles/app.reader"]}, {"resource": "folders/123", "roles": ["roles/app.reader"]}]}`)
	s.Withdraw("folders/123", "serviceAccount:"+s.email)
	if outcome := revoke(t, e, r); !strings.Contains(outcome.Residue, "folders/123") || s.exists(p.Username) {
		t.Errorf("what is left: %+v; the account exists: %t", outcome, s.exists(p.Username))
	}
	s.Grant("folders/123", "roles/folders", "serviceAccount:"+s.email)
	if outcome := revoke(t, e, r); outcome.Residue != "" {
		t.Errorf("what is left when it may be changed again: %s", outcome.Residue)
	}
	if left := strings.Join(s.Members()["folders/123"], " "); strings.Contains(left, p.Username) {
		t.Errorf("the policy still names the account: %s", left)
	}
}

// An account of the planned name that is not ours, or not the one that was made, is left alone with
// its bindings; so is one that somebody described as we do.
func TestStrangers(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p, r := issue(t, e, keyOfItsOwn)
	email := p.Data["service_account_email"].Reveal()
	var description string
	for _, a := range s.Accounts() {
		if a.Email == email {
			description = a.Description
		}
	}
	s.DeleteAccount(email)
	s.AddAccount(p.Username)
	s.Grant(project, appRole, "serviceAccount:"+email)
	for _, as := range []string{"", "Made by ScaiVault, which also deletes it: ", description} {
		s.Describe(email, as)
		revoke(t, e, r)
		if !s.exists(p.Username) || !strings.Contains(strings.Join(s.Members()[project], " "), "serviceAccount:"+email) {
			t.Fatalf("a stranger's account is touched when it is described as %q", as)
		}
		if found, err := e.Lookup(t.Context(), r); err != nil || found.State != engine.Foreign {
			t.Errorf("a stranger's account that is described as %q is looked up as %d, %v", as, found.State, err)
		}
	}
	other := s.AddAccount("v-copy-0123456789abcdef")
	s.Describe(other.Email, description)
	accounts, err := e.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range accounts {
		if a.Username == "v-copy-0123456789abcdef" {
			t.Error("an account with a copied description is listed as ours")
		}
	}
}

// An account that an administrator deleted leaves its deleted name in policies: it is taken out.
func TestDeletedByOthers(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	before := s.state()
	p, r := issue(t, e, keyOfItsOwn)
	s.DeleteAccount(p.Data["service_account_email"].Reveal())
	if !strings.Contains(strings.Join(s.Members()[project], " "), "deleted:serviceAccount:"+p.Username) {
		t.Fatal("the deleted name is not in the policy")
	}
	revoke(t, e, r)
	if after := s.state(); after != before {
		t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
	}
}

// A key is known by the id that Google gave for it, where its certificate is not shown, too.
func TestKeyWithoutACertificate(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p, r := issue(t, e, keyOfAnAccount)
	email, id, _ := s.find(p.Username)
	s.HideCertificate(email, id)
	if found, err := e.Lookup(t.Context(), r); err != nil || found.State != engine.Usable {
		t.Errorf("it is looked up as %d, %v", found.State, err)
	}
	revoke(t, e, r)
	if s.exists(p.Username) {
		t.Error("the key is there")
	}
}

// A permission that is refused is no proof of death.
func TestForbiddenIsNotGone(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]string{"a key": keyOfAnAccount, "an account": keyOfItsOwn} {
		s := newSource(t)
		e := s.open(t, nil)
		p, r := issue(t, e, role)
		s.DefineRole(rootRole, "iam.serviceAccounts.getAccessToken")
		if _, err := e.Revoke(t.Context(), r); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "denied") {
			t.Errorf("%s: revoke: %v", name, err)
		}
		if _, err := e.Lookup(t.Context(), r); engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: look up: %v", name, err)
		}
		s.DefineRole(rootRole, guide(t)...)
		revoke(t, e, r)
		if s.exists(p.Username) {
			t.Errorf("%s is there", name)
		}
	}
}

// An answer that is lost after the effect is Uncertain, and what was made is found again: a key by its
// public key, an account by its name.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		role, method string
		state        engine.State
	}{
		"an uploaded key":             {keyOfAnAccount, "iam.projects.serviceAccounts.keys.upload", engine.Usable},
		"an account":                  {keyOfItsOwn, "iam.projects.serviceAccounts.create", engine.Unusable},
		"a key of its account":        {keyOfItsOwn, "iam.projects.serviceAccounts.keys.upload", engine.Usable},
		"a key that Google made":      {googleKeyOfOwn, "iam.projects.serviceAccounts.keys.create", engine.Unusable},
		"bindings of an account":      {keyOfItsOwn, "cloudresourcemanager.projects.setIamPolicy", engine.Unusable},
		"a token, in nobody's hands":  {tokenOfAnAccount, "iamcredentials.projects.serviceAccounts.generateAccessToken", engine.Absent},
		"a token of its own account":  {tokenOfItsOwn, "iamcredentials.projects.serviceAccounts.generateAccessToken", engine.Unusable},
		"an error of Google's own":    {keyOfAnAccount, "500", engine.Usable},
		"an error before it was done": {keyOfAnAccount, "503", engine.Absent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			e := s.open(t, nil)
			before := s.state()
			s.SetFault(func(q gcptest.Request) gcptest.Fault {
				upload := q.Method == "iam.projects.serviceAccounts.keys.upload"
				switch {
				case c.method == q.Method:
					return gcptest.Fault{Lose: true}
				case c.method == "500" && upload:
					return gcptest.Fault{Status: http.StatusInternalServerError, Reason: "INTERNAL", After: true}
				case c.method == "503" && upload:
					return gcptest.Fault{Status: http.StatusServiceUnavailable, Reason: "UNAVAILABLE"}
				}
				return gcptest.Fault{}
			})
			p := plan(t, e, c.role)
			_, err := e.Issue(t.Context(), p)
			if k := engine.KindOf(err); k != engine.Uncertain && (c.role != tokenOfAnAccount && c.role != tokenOfItsOwn || k != engine.Unreachable) {
				t.Errorf("issue: kind %d, %v", k, err)
			}
			s.SetFault(nil)
			found, err := e.Lookup(t.Context(), p.Recipe)
			if err != nil || found.State != c.state {
				// What was refused for good was taken back before.
				if !(engine.KindOf(err) == 0 && found.State == engine.Absent && s.state() == before) {
					t.Errorf("looked up as %d, not %d: %v", found.State, c.state, err)
				}
			}
			revoke(t, e, p.Recipe)
			if after := s.state(); after != before {
				t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
			}
		})
	}
}

// What was made just now may not be seen yet: it is ended all the same, by the ids that Google gave.
func TestEndedBeforeItIsSeen(t *testing.T) {
	t.Parallel()
	for name, role := range map[string]string{"a key of an account": keyOfAnAccount, "a key of its own account": keyOfItsOwn, "a token of its own account": tokenOfItsOwn} {
		s := newSource(t)
		e := s.open(t, nil)
		before := s.state()
		_, r := issue(t, e, role)
		s.Advance(-time.Hour) // to before it was made
		if found, err := e.Lookup(t.Context(), r); err != nil || role != tokenOfItsOwn && found.State == engine.Usable {
			t.Fatalf("%s is seen: %d, %v", name, found.State, err)
		}
		if outcome := revoke(t, e, r); outcome.EffectiveAt == nil {
			t.Errorf("%s was given to somebody, and is said to be dead now", name)
		}
		if after := s.state(); after != before {
			t.Errorf("%s is left:\n%s", name, after)
		}
	}

	s := newSource(t)
	e := s.open(t, nil)
	before := s.state()
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if strings.HasSuffix(q.Method, ".getIamPolicy") && s.Calls(q.Method) == 1 {
			s.Advance(-time.Hour)
			return gcptest.Fault{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED"}
		}
		return gcptest.Fault{}
	})
	if _, err := e.Issue(t.Context(), plan(t, e, keyOfItsOwn)); engine.KindOf(err) != engine.Refused {
		t.Errorf("issue: %v", err)
	}
	if after := s.state(); after != before {
		t.Errorf("an account that was not seen is left when its bindings were refused:\n%s", after)
	}
}

// A credential whose account was described anew by somebody is revoked: Google told its number when it was
// made. One that was only found in the list is not.
func TestDescribedAnew(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	p, r := issue(t, e, keyOfItsOwn)
	listed, err := e.List(t.Context())
	if err != nil || len(listed) != 1 {
		t.Fatal(listed, err)
	}
	s.Describe(p.Data["service_account_email"].Reveal(), "do not delete")
	revoke(t, e, listed[0].Recipe)
	if !s.exists(p.Username) {
		t.Error("an account without a mark was removed by its name alone")
	}
	revoke(t, e, r)
	if s.exists(p.Username) {
		t.Error("a credential is said to be dead, and its account is there")
	}
}
