package azure_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/azuretest"
)

// A role is tried when it is saved: what cannot work is refused then, and says what to do.
func TestPrepareRole(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	s.NewGroup("twice")
	s.NewGroup("twice")
	s.NewGroup("by rule", "DynamicMembership")
	own, _ := s.NewApplication("mine", s.root.PrincipalID)
	theirs, _ := s.NewApplication("theirs")
	for document, want := range map[string]string{
		`{"azure_roles": [{"role_name": "Reader"}], "azure_groups": ["app readers", "` + s.group + `"]}`: "",
		`{"azure_roles": [{"role_id": "acdd72a7-3385-48ef-bd42-f606fba81ae7"}]}`:                         "",
		`{"azure_roles": [{"role_name": "Reeder"}]}`:                                                     "no role 'Reeder'",
		`{"azure_roles": [{"role_id": "` + someID + `"}]}`:                                               "no role " + someID,
		`{"azure_roles": [{"role_name": "Reader", "scope": "/subscriptions/` + someID + `"}]}`:           "Role Based Access Control Administrator",
		`{"azure_groups": ["nobody's"]}`:                                                                 "no group 'nobody''s'",
		`{"azure_groups": ["` + someID + `"]}`:                                                           "no group " + someID,
		`{"azure_groups": ["twice"]}`:                                                                    "several groups",
		`{"azure_groups": ["by rule"]}`:                                                                  "found by a rule",
		`{"application_object_id": "` + own + `"}`:                                                       "",
		`{"application_object_id": "` + theirs + `"}`:                                                    "az ad app owner add --id " + theirs,
		`{"application_object_id": "` + someID + `"}`:                                                    "no application " + someID,
		`{"application_object_id": "` + s.root.ObjectID + `"}`:                                           "the application of the engine itself",
	} {
		_, err := e.PrepareRole(t.Context(), "role", parseRole(t, document))
		if want == "" && err != nil || want != "" && (engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", document, err)
		}
	}
	warnings, err := e.PrepareRole(t.Context(), "role", parseRole(t, `{"azure_roles": [{"role_name": "Owner"}], "permanently_delete": true}`))
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "give roles to others") {
		t.Errorf("a role that may give roles: %v, %v", warnings, err)
	}
	if warnings, err := e.PrepareRole(t.Context(), "role", parseRole(t, `{"azure_roles": [{"role_name": "Contributor"}], "permanently_delete": true}`)); err != nil || len(warnings) != 0 {
		t.Errorf("a role that may not: %v, %v", warnings, err)
	}
	if warnings, err := e.PrepareRole(t.Context(), "role", s.reader(t)); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "permanently_delete") {
		t.Errorf("a role that fills the recycle bin: %v, %v", warnings, err)
	}
	// A role that was saved before its application was the engine's is refused at the credential, too.
	_, err = e.Issue(t.Context(), plan(t, e, parseRole(t, `{"application_object_id": "`+s.root.ObjectID+`"}`)))
	if engine.KindOf(err) != engine.Refused {
		t.Errorf("a password for the engine's own application: %v", err)
	}
}

// The root of the guide lacks nothing; without one of its rights, that is named with the command that
// grants it.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	check := func(root azuretest.Root) engine.Health {
		t.Helper()
		before := s.root
		s.root = root
		defer func() { s.root = before }()
		e := s.open(t, nil)
		plan(t, e, s.reader(t)) // what roles ask for is looked at
		return e.Check(t.Context())
	}
	if h := check(s.root); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) != 0 {
		t.Errorf("the root of the guide: %+v", h)
	}
	for name, want := range map[string]string{
		"Application.ReadWrite.OwnedBy": "18a4783c-866b-4cc7-a460-3d5e5662c884=Role",
		"GroupMember.ReadWrite.All":     "dbaae8cf-10b5-4b86-a4a1-f871c94c6695=Role",
		"roles":                         "az role assignment create",
		"owner":                         "",
	} {
		rights := guide(t, s.Scope())
		rights.Permissions = slices.DeleteFunc(rights.Permissions, func(p string) bool { return p == name })
		switch name {
		case "roles":
			rights.Roles = nil
		case "owner":
			rights.OwnsItself = false
		}
		h := check(s.NewRoot(t, rights))
		if want == "" {
			if len(h.Warnings) != 1 || !strings.Contains(h.Warnings[0], "az ad app owner add") || h.Status != "healthy" {
				t.Errorf("without %s: %+v", name, h)
			}
		} else if len(h.MissingGrants) != 1 || !strings.Contains(h.MissingGrants[0], want) {
			t.Errorf("without %s: %+v", name, h)
		}
	}
}
