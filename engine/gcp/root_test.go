package gcp_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/gcp"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/gcptest"
)

func (s *source) rootKeys() []string {
	for _, a := range s.Accounts() {
		if a.Email == s.email {
			return a.Keys
		}
	}
	return nil
}

// A rotation may be cut off at any request, before it is done or after: the former root or the
// candidate is accepted, and doing it again ends it, with the candidate's key alone.
func TestRootRotationCutOff(t *testing.T) {
	t.Parallel()
	for cut := 1; ; cut++ {
		if cut == 100 {
			t.Fatal("a rotation has no hundred requests")
		}
		s := newSource(t)
		e := s.open(t, map[string]any{"operation_timeout": "5s"})
		candidate, err := e.PlanRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		s.SetFault(func(gcptest.Request) gcptest.Fault {
			if calls++; calls < cut {
				return gcptest.Fault{}
			}
			return gcptest.Fault{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED", After: cut%2 == 0}
		})
		failed := e.SetRoot(t.Context(), candidate)
		s.SetFault(nil)
		opened := 0
		former := s.options(nil)
		with := former
		with.Root = candidate
		for _, o := range []engine.Options{former, with} {
			if x, err := (gcp.Type{}).Open(t.Context(), o); err == nil {
				opened++
				x.Close()
			}
		}
		if opened == 0 {
			t.Fatalf("after a cut at request %d no root is accepted", cut)
		}
		e.Close()
		again, err := (gcp.Type{}).Open(t.Context(), former)
		if err != nil { // the server tries the candidate then
			again, err = gcp.Type{}.Open(t.Context(), with)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := again.(engine.RootRotator).SetRoot(t.Context(), candidate); err != nil {
			t.Fatalf("after a cut at request %d: %v", cut, err)
		}
		again.Close()
		if next := open(t, with); next.Check(t.Context()).Status != "healthy" {
			t.Errorf("after a cut at request %d the candidate does not work", cut)
		}
		if failed == nil {
			if keys := s.rootKeys(); len(keys) != 1 {
				t.Errorf("the root has %d keys", len(keys))
			}
			return
		}
	}
}

// The key of a rotation that was cut off between the proof and the end of the former goes with the
// next one.
func TestRootRotationClearsUp(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	o := s.options(nil)
	for range 3 {
		candidate, err := e.PlanRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetFault(func(q gcptest.Request) gcptest.Fault {
			if q.Method == "iam.projects.serviceAccounts.keys.delete" {
				return gcptest.Fault{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED"}
			}
			return gcptest.Fault{}
		})
		if err := e.SetRoot(t.Context(), candidate); err == nil {
			t.Fatal("the former was not deleted, and nobody says so")
		}
		s.SetFault(nil)
		o.Root = candidate
		e = open(t, o)
	}
	if warned := strings.Join(e.Check(t.Context()).Warnings, " "); !strings.Contains(warned, "more keys") {
		t.Errorf("health says nothing of %d keys: %s", len(s.rootKeys()), warned)
	}
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if keys := s.rootKeys(); len(keys) != 2 { // the candidate's, and the one that an administrator made
		t.Errorf("the root has %d keys", len(keys))
	}
	if strings.Contains(s.Log(), "PRIVATE KEY") {
		t.Error("a private key was sent")
	}
}

// A full account is refused before anything is changed, and so is another account.
func TestRootRotationRefuses(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 9 {
		s.AddKey(s.email)
	}
	if err := e.SetRoot(t.Context(), candidate); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "10 keys") {
		t.Errorf("a full account: %v", err)
	}
	other := s.AddAccount("another-root")
	with := map[string]statement.Secret{"credentials": statement.Secret(s.AddKey(other.Email))}
	if err := e.SetRoot(t.Context(), with); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "keeps its name") {
		t.Errorf("another account: %v", err)
	}
	if err := e.SetRoot(t.Context(), nil); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("no root: %v", err)
	}
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("health: %+v", h)
	}
}

// An account may be the root of several engines, each with a key of its own in a secret of its own: the
// rotation of one leaves the others' alone.
func TestRootRotationBesideAnotherRoot(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	rotated := func(o engine.Options) engine.Options {
		e := open(t, o)
		candidate, err := e.PlanRoot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := e.SetRoot(t.Context(), candidate); err != nil {
			t.Fatal(err)
		}
		o.Root = candidate
		return o
	}
	theirs := s.options(map[string]any{"root_credentials_path": "infra/other"})
	theirs.Root = map[string]statement.Secret{"credentials": statement.Secret(s.AddKey(s.email))}
	theirs = rotated(theirs)
	tenants := s.options(nil)
	tenants.Tenant = "tnt_other"
	tenants.Root = map[string]statement.Secret{"credentials": statement.Secret(s.AddKey(s.email))}
	tenants = rotated(tenants)
	ours := rotated(s.options(nil))
	for _, o := range []engine.Options{theirs, tenants, ours} {
		e, err := gcp.Type{}.Open(t.Context(), o)
		if err != nil {
			t.Fatalf("a root was ended by the rotation of another one: %v", err)
		}
		e.Close()
	}
	if keys := s.rootKeys(); len(keys) != 3 {
		t.Errorf("the account of three roots has %d keys", len(keys))
	}
}

// Once the candidate works and the former root may be gone the candidate is never forgotten, whatever
// Google answers; and the same engine ends the former when it is asked again.
func TestRootRotationIsNotForgotten(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if q.Method == "iam.projects.serviceAccounts.keys.delete" {
			return gcptest.Fault{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED"}
		}
		return gcptest.Fault{}
	})
	if err := e.SetRoot(t.Context(), candidate); engine.KindOf(err) != engine.Uncertain {
		t.Errorf("the former was not deleted: kind %d, %v", engine.KindOf(err), err)
	}
	s.SetFault(nil)
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatal(err)
	}
	if keys := s.rootKeys(); len(keys) != 1 {
		t.Errorf("the root has %d keys", len(keys))
	}
}
