package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
)

// What the source executes late, long after ScaiVault has given the request up,
// leaves no account; neither does what it did in time and could not say.
func TestLateExecution(t *testing.T) {
	t.Parallel()
	faults := []struct {
		name        string
		begin, mend func(t *testing.T, s *source, p *proxy.Proxy)
	}{
		{"frozen and resumed",
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Freeze(t) },
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Thaw(t) }},
		{"held by the network and delivered",
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.Hold() },
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.Pass() }},
		{"answers lost",
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.LoseAnswers() },
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.Pass() }},
	}
	for _, fault := range faults {
		for _, role := range []func(string) client.Document{reader, direct} {
			name := fault.name + ", privileges"
			if role("")["privileges"] == nil {
				name = fault.name + ", statements"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				v, s := newVault(t), newSource(t, pgtest.Start(t, 17), createRole)
				p := proxy.New(t, s.addr)
				s.addr = p.Addr()
				v.engine(t, s, "db", map[string]any{"operation_timeout": "2s", "connect_timeout": "1s"})
				v.role(t, "db", role("reader"))
				before := v.issueMany(t, "db", "reader", time.Hour, 4) // the connections are open

				fault.begin(t, s, p)
				answers := make(chan error, 8)
				asked := time.Now()
				for range cap(answers) {
					go func() {
						_, err := v.ask(t.Context(), v.admin, "db", "reader", time.Hour)
						answers <- err
					}()
				}
				for range cap(answers) {
					mustFail(t, "a credential meanwhile", <-answers, client.EngineUnavailable, client.EngineError)
				}
				if took := time.Since(asked); took > 10*time.Second {
					t.Errorf("with an operation_timeout of 2s the refusals took %s", took)
				}
				fault.mend(t, s, p)

				eventually(t, time.Minute, "every issuance is decided", func() bool {
					return len(v.leases(t, client.LeaseFilter{Status: api.LeaseIssuing})) == 0 && len(v.leases(t, client.LeaseFilter{Status: api.LeaseRevoking})) == 0
				})
				s.mustBeBorne(t, v)
				for _, l := range v.leases(t, client.LeaseFilter{Status: api.LeaseActive}) {
					if !slices.ContainsFunc(before, func(c credential) bool { return c.lease == l.LeaseID }) {
						t.Errorf("%s was refused to its caller and lives: %+v", l.Username, l)
					}
				}
				for _, c := range before {
					s.readItems(t, c)
				}
				after := v.issue(t, v.admin, "db", "reader", 0)
				s.readItems(t, after)
				if result, err := v.admin.RevokePrefix(t.Context(), "db", time.Minute); err != nil || result.Pending != 0 {
					t.Fatalf("revoke all: %+v, %v", result, err)
				}
				if left := s.accounts(t); len(left) != 0 {
					t.Errorf("accounts are left: %v", left)
				}
			})
		}
	}
}

// One backend is paused in the midst of a creation, its deadline checked and
// passed, while the server around it works: ScaiVault gives up, ends what it
// finds, and the backend is resumed.
func TestPausedBackend(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			v, s := newVault(t), newSource(t, pgtest.Start(t, major, wholeQueries()), createRole)
			v.engine(t, s, "db", map[string]any{"operation_timeout": "2s", "connect_timeout": "1s"})
			gate := newGate(t, s)
			v.role(t, "db", gate.role("gated"))
			gate.close(t)
			refusal := background(func() error {
				_, err := v.ask(t.Context(), v.admin, "db", "gated", 0)
				return err
			})
			name, pid := gate.await(t)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			gate.open(t)
			mustFail(t, "the credential", <-refusal, client.EngineUnavailable)
			// As long as the backend may still make the account, its lease leads to it.
			if l := v.leases(t, client.LeaseFilter{Username: name}); len(l) != 1 || l[0].Status != api.LeaseRevoking {
				t.Errorf("with the backend paused the lease says %+v", l)
			}
			time.Sleep(4 * time.Second) // past the deadline, and the grace after it
			if l := v.leases(t, client.LeaseFilter{Username: name}); len(l) != 1 || l[0].Status != api.LeaseRevoking {
				t.Errorf("past the deadline with the backend paused the lease says %+v", l)
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, "the issuance is decided", func() bool {
				return len(v.leases(t, client.LeaseFilter{Status: api.LeaseRevoking})) == 0
			})
			eventually(t, 10*time.Second, "the backend is gone", func() bool {
				return s.count(t, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1::int", pid) == 0
			})
			if left := s.accounts(t); len(left) != 0 {
				t.Errorf("accounts are left: %v", left)
			}
			s.mustBeBorne(t, v)
		})
	}
}

// mustBeBorne wants a living lease for every account, and an account for every
// living lease. The server is the test's own.
func (s *source) mustBeBorne(t *testing.T, v *vault) {
	t.Helper()
	status := map[string]api.LeaseStatus{}
	for _, l := range v.leases(t, client.LeaseFilter{}) {
		status[l.Username] = l.Status
	}
	accounts := s.accounts(t)
	for _, name := range accounts {
		if status[name] != api.LeaseActive {
			t.Errorf("the account %s has no living lease: %q", name, status[name])
		}
	}
	for name, st := range status {
		if st == api.LeaseActive && !slices.Contains(accounts, name) {
			t.Errorf("the living lease of %s has no account", name)
		}
	}
}

// Somebody else's account bears the very name that was drawn: it is left alone,
// whatever happens to the lease.
func TestForeignAccountOfTheDrawnName(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			v, s := newVault(t), newSource(t, pgtest.Start(t, major, wholeQueries()), createRole)
			v.engine(t, s, "db", nil)
			gate := newGate(t, s)
			v.role(t, "db", gate.role("gated"))
			gate.close(t)
			answer := make(chan credential, 1)
			refusal := background(func() error {
				cred, err := v.ask(t.Context(), v.admin, "db", "gated", 0)
				answer <- cred
				return err
			})
			foreign := credential{password: "somebody-elses"}
			foreign.username, _ = gate.await(t)
			s.server.Exec(t, fmt.Sprintf(`CREATE ROLE "%s" LOGIN PASSWORD '%s'`, foreign.username, foreign.password))
			gate.open(t)
			if err := <-refusal; err != nil {
				t.Fatalf("a taken name must lead to another one: %v", err)
			}
			cred := <-answer
			if cred.username == foreign.username {
				t.Fatal("the taken name was given out")
			}
			mustLive := func(when string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := pgx.Connect(ctx, s.server.URL(foreign.username, foreign.password, "postgres"))
				if err != nil {
					t.Fatalf("%s, the foreign account does not log in: %v", when, err)
				}
				_ = conn.Close(ctx)
			}
			mustLive("after the issue")
			v.revoke(t, cred)
			s.mustBeDead(t, cred)
			if _, err := v.admin.RevokePrefix(t.Context(), "db", 0); err != nil {
				t.Fatal(err)
			}
			if _, err := v.admin.Reconcile(t.Context(), "db", true); err != nil {
				t.Fatal(err)
			}
			mustLive("after prefix and reconcile")
		})
	}
}
