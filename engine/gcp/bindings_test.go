package gcp_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// conditionOf is when the binding of an account ends.
func (s *source) conditionOf(t *testing.T, email string) time.Time {
	t.Helper()
	for _, b := range s.Bindings(project) {
		if !slices.Contains(b.Members, "serviceAccount:"+email) || b.Condition == nil {
			continue
		}
		text := strings.TrimSuffix(strings.TrimPrefix(b.Condition.Expression, `request.time < timestamp("`), `")`)
		end, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return end
	}
	t.Fatalf("%s has no binding that ends", email)
	return time.Time{}
}

// A policy without an etag is not written: that would be over what others wrote since it was read.
func TestPolicyWithoutAnEtag(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	_, r := issue(t, e, keyOfItsOwn)
	s.HideEtags()
	p := plan(t, e, keyOfItsOwn)
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), "etag") {
		t.Errorf("issue: %v", err)
	}
	if s.exists(p.Username) {
		t.Error("the account was left behind")
	}
	if outcome := revoke(t, e, r); !strings.Contains(outcome.Residue, project) {
		t.Errorf("the binding that is left is not named: %+v", outcome)
	}
	if n := s.Calls("cloudresourcemanager.projects.setIamPolicy"); n != 1 {
		t.Errorf("policies were written %d times, once safely", n)
	}
}
