package gcp_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/gcptest"
)

// The root of the guide is what every kind of role needs, and no more: without any one of its
// permissions something is missing, and named.
func TestMissingPermissions(t *testing.T) {
	t.Parallel()
	all := guide(t)
	s := newSource(t)
	e := s.open(t, nil)
	for _, role := range kinds {
		if warnings, err := e.PrepareRole(t.Context(), "reader", parseRole(t, role)); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v", role, warnings, err)
		}
	}
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
		t.Fatalf("health with the root of the guide: %+v", h)
	}
	for _, lacking := range all {
		s.DefineRole(rootRole, slices.DeleteFunc(slices.Clone(all), func(p string) bool { return p == lacking })...)
		refused := 0
		for _, role := range kinds {
			if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, role)); err != nil {
				refused++
				if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "--add-permissions") || !strings.Contains(err.Error(), lacking) {
					t.Errorf("without %s: %v", lacking, err)
				}
			}
		}
		h := e.Check(t.Context())
		if listing := lacking == "iam.serviceAccounts.list"; listing {
			if _, err := e.List(t.Context()); refused > 0 || engine.KindOf(err) != engine.Refused || h.Status != "healthy" || !strings.Contains(strings.Join(h.Warnings, " "), lacking) {
				t.Errorf("without %s: %v, %+v", lacking, err, h)
			}
			continue
		}
		if refused == 0 || h.Status != "misconfigured" || !strings.Contains(strings.Join(h.MissingGrants, " "), lacking) {
			t.Errorf("without %s %d roles are refused, and health is %+v", lacking, refused, h)
		}
	}
}

// A root that may do less on purpose is healthy for the roles that it is for.
func TestRootForOneAccount(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	s.DefineRole(rootRole)
	account := project + "/serviceAccounts/" + s.app.Email
	s.AddResource(account)
	s.DefineRole("roles/tokens", "iam.serviceAccounts.getAccessToken")
	s.Grant(account, "roles/tokens", "serviceAccount:"+s.email)
	e := s.open(t, nil)
	if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, tokenOfAnAccount)); err != nil {
		t.Fatal(err)
	}
	p, _ := issue(t, e, tokenOfAnAccount)
	if h, err := s.login(t.Context(), p.Data); err != nil || !h.Works(t.Context()) {
		t.Errorf("the token does not work: %v", err)
	}
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("health: %+v", h)
	}
	if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, keyOfAnAccount)); err == nil {
		t.Error("a role of keys is taken")
	}
	const nobody = `{"credential_type": "access_token", "service_account_email": "nobody@fake-project-123.iam.gserviceaccount.com"}`
	if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, nobody)); engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a role of an account that there is not: %v", err)
	}
}

// A token that Google does not take any more is replaced by a new one, once.
func TestTokenRefused(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	refuse := 1
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if q.Method != "oauth2.token" && refuse > 0 {
			refuse--
			return gcptest.Fault{Status: 401, Reason: "UNAUTHENTICATED"}
		}
		return gcptest.Fault{}
	})
	issue(t, e, tokenOfAnAccount)
	if s.Calls("oauth2.token") != 2 {
		t.Errorf("%d tokens were fetched", s.Calls("oauth2.token"))
	}
	refuse = 100
	if _, err := e.Issue(t.Context(), plan(t, e, tokenOfAnAccount)); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a root whose tokens are all refused: %v", err)
	}
	if h := e.Check(t.Context()); h.Status != "misconfigured" {
		t.Errorf("health: %+v", h)
	}
}
