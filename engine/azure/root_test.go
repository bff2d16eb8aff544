package azure_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/azure"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/azuretest"
)

// rotate plans and sets a root, and tells what the root secret holds then.
func rotate(t *testing.T, e engine.RootRotator) map[string]statement.Secret {
	t.Helper()
	candidate, err := e.PlanRoot(t.Context())
	if err != nil {
		t.Fatalf("plan a root: %v", err)
	}
	if err := e.SetRoot(t.Context(), candidate); err != nil {
		t.Fatalf("set a root: %v", err)
	}
	return candidate
}

// Microsoft makes the next root beside the present one. One that a crash lost is nobody's and is ended by
// the next rotation; a password that somebody else made is left alone.
func TestRootRotationCutOff(t *testing.T) {
	t.Parallel()
	s := newSource(t, lagging())
	o := s.options(nil)
	o.Root["contact"] = "somebody"
	e := open(t, o)
	s.PlantPassword(s.root.ObjectID, "an administrator's")
	for range 3 {
		if _, err := e.PlanRoot(t.Context()); err != nil { // and lost
			t.Fatal(err)
		}
	}
	if left := s.Left(); left.Passwords != 3 {
		t.Errorf("while one is planned there are %s", left)
	}
	// The answer was lost after its effect.
	s.Fail(func(op string) azuretest.Fault { return azuretest.Fault{Lost: strings.HasSuffix(op, "/addPassword")} })
	if _, err := e.PlanRoot(t.Context()); engine.KindOf(err) != engine.Uncertain {
		t.Errorf("an answer that was lost: %v", err)
	}
	s.Fail(nil)
	root := rotate(t, e)
	if left := s.Left(); left.Passwords != 2 {
		t.Errorf("after the rotation there are %s", left)
	}
	if root["contact"] != "somebody" {
		t.Error("the root secret lost a field")
	}
	if _, err := e.PlanRoot(t.Context()); err != nil {
		t.Errorf("the engine goes on with the new root: %v", err)
	}
	former := o.Root
	o.Root = root
	next := open(t, o)
	again := rotate(t, next)
	if again["key_id"] == root["key_id"] || s.Left().Passwords != 2 {
		t.Errorf("after another rotation there are %s", s.Left())
	}
	for _, wrong := range []map[string]statement.Secret{former, root} {
		o.Root = wrong
		if _, err := (azure.Type{}).Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured {
			t.Errorf("a former root opens the source: %v", err)
		}
	}
	// The candidate that is not there any more must be forgotten, and the root lives.
	gone, err := next.PlanRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.PlanRoot(t.Context()); err != nil {
		t.Fatal(err)
	}
	hasty := open(t, func() engine.Options {
		o := s.options(map[string]any{"operation_timeout": "10s"})
		o.Root = again
		return o
	}())
	if err := hasty.SetRoot(t.Context(), gone); engine.KindOf(err) != engine.Refused {
		t.Errorf("a candidate that is gone: %v", err)
	}
	if h := hasty.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("after it: %+v", h)
	}
}

// Where the root secret does not say which password it holds, the first characters of it do.
func TestRootKeyUnknown(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	o := s.options(nil)
	e := open(t, o)
	s.PlantPassword(s.root.ObjectID, "another")
	if root := rotate(t, e); root["former_key_id"] == "" {
		t.Errorf("%+v", root)
	}
	o.Root["key_id"] = "no id"
	if _, err := (azure.Type{}).Open(t.Context(), o); engine.KindOf(err) != engine.Misconfigured {
		t.Errorf("a key_id that is none: %v", err)
	}
}

// A rotation was cut off, and somebody wrote another root by hand: the next rotation ends the password
// that was made and is in no root secret. That of another root secret of the same application lives.
func TestRootWrittenByHand(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	o := s.options(nil)
	byHand := s.AddPassword(s.root.ObjectID)
	others := map[string]engine.Options{"path": s.options(map[string]any{"root_credentials_path": "infra/other"}), "tenant": s.options(nil)}
	tenant := others["tenant"]
	tenant.Tenant = "tnt_other"
	others["tenant"] = tenant
	for name, other := range others {
		other.Root["client_secret"] = statement.Secret(s.AddPassword(s.root.ObjectID))
		other.Root = rotate(t, open(t, other))
		others[name] = other
	}
	if _, err := open(t, o).PlanRoot(t.Context()); err != nil { // and lost
		t.Fatal(err)
	}
	before := s.Left().Passwords
	o.Root["client_secret"] = statement.Secret(byHand)
	rotate(t, open(t, o))
	if after := s.Left().Passwords; after != before-1 { // the lost one
		t.Errorf("there were %d passwords, now there are %d", before, after)
	}
	for _, other := range others {
		open(t, other)
	}
}
