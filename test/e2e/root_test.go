package e2e_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The root's password changes, by rotation or by hand, while callers work:
// rotations are not noticed, and a version that does not work is not used.
func TestRootChanges(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	first := credential{username: s.root, password: s.password}

	stop := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for !isClosed(stop) {
				c, err := v.ask(t.Context(), v.admin, "db", "reader", 0)
				if err == nil {
					_, err = v.admin.RevokeLease(t.Context(), c.lease, 0)
				}
				if err != nil {
					t.Errorf("a rotation reached a caller: %v", err)
					return
				}
			}
		})
	}
	for range 2 {
		v.rotateRoot(t, "db")
		time.Sleep(1200 * time.Millisecond) // callers work with the new one
	}
	close(stop)
	callers.Wait()
	if err := s.tryLogin(first); !refusedLogin(err) {
		t.Errorf("the first password still works: %v", err)
	}
	if secret, err := v.admin.SecretMetadata(t.Context(), rootPath("db")); err != nil || secret.Version != 3 {
		t.Errorf("after two rotations the root secret has the version %d: %v", secret.Version, err)
	}

	// A version that the source refuses: the former stays in use, health says so.
	write := func(password string) {
		t.Helper()
		v.remember(password)
		if _, err := v.admin.WriteSecret(t.Context(), rootPath("db"), api.SecretWrite{Data: map[string]json.RawMessage{
			"username": quoted(s.root), "password": quoted(password),
		}}); err != nil {
			t.Fatal(err)
		}
	}
	write("not-the-password-Hx72")
	s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
	eventually(t, 10*time.Second, "health says that the newest version does not work", func() bool {
		h, err := v.admin.EngineHealth(t.Context(), "db")
		return err == nil && h.Status == api.EngineMisconfigured
	})
	s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))

	// An administrator changes it at the source by hand, and then here.
	byHand := "changed-by-hand-Kd93"
	s.server.Exec(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", s.root, byHand))
	s.server.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", s.root)
	_, err := v.ask(t.Context(), v.admin, "db", "reader", 0)
	mustFail(t, "a credential between the two changes", err, client.EngineError, client.EngineUnavailable)
	write(byHand)
	eventually(t, 20*time.Second, "the new version is in use", func() bool {
		_, err := v.ask(t.Context(), v.admin, "db", "reader", 0)
		return err == nil
	})
	if h, err := v.admin.EngineHealth(t.Context(), "db"); err != nil || h.Status != api.EngineHealthy {
		t.Errorf("health after the change: %+v, %v", h, err)
	}
}
