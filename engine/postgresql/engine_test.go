package postgresql_test

import (
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestIssueUseRevoke(t *testing.T) {
	t.Parallel()
	for _, major := range majors() {
		for _, w := range []way{createRole, definer} {
			s := newSource(t, pgtest.Shared(t, major), w)
			e := s.open(t, nil)
			roles := map[string]string{"privileges": readItems}
			if w == createRole {
				roles["statements"] = statements
			}
			for form, document := range roles {
				role := parseRole(t, document)
				if _, err := e.PrepareRole(t.Context(), "reader", role); err != nil {
					t.Fatalf("%d %s %s: prepare: %v", major, w, form, err)
				}
				c := issue(t, e, role)
				var name string
				if err := s.login(t, c).QueryRow(t.Context(), "SELECT name FROM public.items").Scan(&name); err != nil || name != "one" {
					t.Fatalf("%d %s %s: read: %q, %v", major, w, form, name, err)
				}
				if p, err := e.Lookup(t.Context(), c.recipe); err != nil || p.State != engine.Usable {
					t.Fatalf("%d %s %s: lookup: %v, %v", major, w, form, p, err)
				}
				if o := revoke(t, e, c.recipe); o.Residue != "" {
					t.Errorf("%d %s %s: residue: %s", major, w, form, o.Residue)
				}
				if n := s.roles(t, c.username); n != 0 || !s.loginFails(c) {
					t.Errorf("%d %s %s: the account lives", major, w, form)
				}
				revoke(t, e, c.recipe)
			}
			if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants) > 0 || len(h.Warnings) > 0 {
				t.Errorf("%d %s: health: %+v", major, w, h)
			}
		}
	}
}

// majors are the versions on both sides of the change of CREATEROLE.
func majors() []int { return []int{15, 16, 17, 18} }
