package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The root's password is changed at the source and in the secret at once: the
// former is refused there, what was issued before is revoked with the new one,
// and issuing goes on, also after a restart and over a wrong version by hand.
func TestRotateRoot(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		for _, way := range []string{createRole, functions} {
			t.Run(fmt.Sprint(major, " ", way), func(t *testing.T) {
				t.Parallel()
				v := newVault(t)
				s := newSource(t, pgtest.Shared(t, major), way)
				v.engine(t, s, "db", nil)
				v.role(t, "db", reader("reader"))
				old := v.issue(t, v.admin, "db", "reader", 0)

				v.rotateRoot(t, "db")
				if err := s.tryLogin(credential{username: s.root, password: s.password}); !refusedLogin(err) {
					t.Errorf("root's former password is to be refused by the source, instead: %v", err)
				}
				v.rootWorks(t, s, "db", 2)
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
				v.revoke(t, old)
				s.mustBeDead(t, old)

				v.Kill(t)
				v.again(t)
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
				v.rotateRoot(t, "db")
				right := v.rootWorks(t, s, "db", 3)

				wrong, known := *s, *s
				wrong.password, known.password = "by-hand-and-wrong", right
				v.writeRoot(t, &wrong, "db")
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
				if h := v.health(t, "db"); h.Status != api.EngineMisconfigured {
					t.Errorf("with a wrong root secret the engine is %+v", h)
				}
				v.Kill(t)
				v.again(t)
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
				v.writeRoot(t, &known, "db")
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
				if h := v.health(t, "db"); h.Status != api.EngineHealthy {
					t.Errorf("with the right root secret the engine is %+v", h)
				}
			})
		}
	}
}

// rootWorks wants this to be the root secret's version, and the source to accept
// its password, which it returns.
func (v *vault) rootWorks(t *testing.T, s *source, engine string, version int) (password string) {
	t.Helper()
	root, err := v.admin.ReadSecret(t.Context(), rootPath(engine), 0)
	if err != nil {
		t.Fatalf("read the root secret: %v", err)
	}
	if err := json.Unmarshal(root.Data["password"], &password); err != nil {
		t.Fatal(err)
	}
	if root.Version != version {
		t.Errorf("the root secret is at version %d, want %d", root.Version, version)
	}
	if err := s.tryLogin(credential{username: s.root, password: password}); err != nil {
		t.Errorf("the source is to accept version %d of the root: %v", root.Version, err)
	}
	return password
}

func (v *vault) health(t *testing.T, engine string) api.EngineHealth {
	t.Helper()
	h, err := v.admin.EngineHealth(t.Context(), engine)
	if err != nil {
		t.Fatalf("look at the engine %s: %v", engine, err)
	}
	return h
}
