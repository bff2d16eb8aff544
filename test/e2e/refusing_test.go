package e2e_test

import (
	"errors"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
)

// A source that cannot be reached, or that refuses, is told to the caller in
// time; no lease of it stays active and nothing stays at the source.
func TestSourceThatDoesNotServe(t *testing.T) {
	t.Parallel()
	faults := []struct {
		name        string
		begin, mend func(t *testing.T, s *source, p *proxy.Proxy)
		code        client.Code
	}{
		{"refuses connections", func(_ *testing.T, _ *source, p *proxy.Proxy) { p.Refuse(); p.CutAll() }, mendProxy, client.EngineUnavailable},
		{"black hole", func(_ *testing.T, _ *source, p *proxy.Proxy) { p.BlackHole() }, mendProxy, client.EngineUnavailable},
		{"breaks off in the request", func(_ *testing.T, _ *source, p *proxy.Proxy) { p.CutAfterRequest(40) }, mendProxy, client.EngineUnavailable},
		{"breaks off in the answer", func(_ *testing.T, _ *source, p *proxy.Proxy) { p.CutAfterAnswer(10) }, mendProxy, client.EngineUnavailable},
		{"root may make no roles any more",
			func(t *testing.T, s *source, _ *proxy.Proxy) {
				t.Helper()
				s.server.Exec(t, "ALTER ROLE "+s.root+" NOCREATEROLE")
			},
			func(t *testing.T, s *source, _ *proxy.Proxy) {
				t.Helper()
				s.server.Exec(t, "ALTER ROLE "+s.root+" CREATEROLE")
			}, client.EngineError},
		{"only reads",
			func(t *testing.T, s *source, p *proxy.Proxy) {
				t.Helper()
				s.server.Exec(t, "ALTER ROLE "+s.root+" SET default_transaction_read_only = on")
				p.CutAll()
			},
			func(t *testing.T, s *source, p *proxy.Proxy) {
				t.Helper()
				s.server.Exec(t, "ALTER ROLE "+s.root+" RESET default_transaction_read_only")
				p.CutAll()
			}, ""},
	}
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			v, s := newVault(t), newSource(t, pgtest.Start(t, 17), createRole)
			p := proxy.New(t, s.addr)
			s.addr = p.Addr()
			v.engine(t, s, "db", map[string]any{"operation_timeout": "2s", "connect_timeout": "1s"})
			v.role(t, "db", reader("reader"))
			living := v.issue(t, v.admin, "db", "reader", 0)

			fault.begin(t, s, p)
			for range 3 {
				asked := time.Now()
				_, err := v.ask(t.Context(), v.admin, "db", "reader", 0)
				var refused *client.Error
				if !errors.As(err, &refused) || fault.code != "" && refused.Code != fault.code || refused.Status != 503 && refused.Status != 502 {
					t.Errorf("want %s, got %v", fault.code, err)
				} else if refused.Status == 503 && refused.RetryAfter == 0 {
					t.Errorf("503 without Retry-After: %v", err)
				}
				if took := time.Since(asked); took > 7*time.Second { // operation_timeout and 5 s
					t.Errorf("it took %s to say so", took)
				}
			}
			if fault.code == client.EngineUnavailable {
				_, err := v.admin.CreateRole(t.Context(), "db", reader("more"))
				mustFail(t, "a role meanwhile", err, client.EngineUnavailable)
				_, err = v.admin.CreateEngine(t.Context(), s.document("db2", map[string]any{"root_credentials_path": rootPath("db"), "operation_timeout": "2s", "connect_timeout": "1s"}))
				mustFail(t, "an engine meanwhile", err, client.EngineUnavailable)
			}
			if active := v.leases(t, client.LeaseFilter{Status: api.LeaseActive}); len(active) != 1 {
				t.Errorf("%d leases are active, want the one from before", len(active))
			}

			fault.mend(t, s, p)
			eventually(t, time.Minute, "every issuance is decided", func() bool {
				return len(v.leases(t, client.LeaseFilter{Status: api.LeaseIssuing})) == 0 && len(v.leases(t, client.LeaseFilter{Status: api.LeaseRevoking})) == 0
			})
			for _, name := range s.accounts(t) {
				if name != living.username {
					for _, l := range v.leases(t, client.LeaseFilter{Username: name}) {
						t.Errorf("at the source is %s, whose lease is %s: %+v", name, l.Status, l.Revocation)
					}
				}
			}
			s.readItems(t, living)
			var fresh credential
			eventually(t, 30*time.Second, "it serves again", func() (ok bool) {
				var err error
				fresh, err = v.ask(t.Context(), v.admin, "db", "reader", 0)
				return err == nil
			})
			s.readItems(t, fresh)
			if names, err := client.Collect(v.admin.Engines(t.Context())); err != nil || len(names) != 1 {
				t.Errorf("the engine that could not be made was stored: %v, %v", names, err)
			}
		})
	}
}

func mendProxy(_ *testing.T, _ *source, p *proxy.Proxy) { p.Pass() }
