package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/proxy"
)

// A source goes away while leases end: all of them are seen everywhere, the
// other source's end as punctually as ever, and all are dead soon after the
// return.
func TestSourceAwayWhileLeasesEnd(t *testing.T) {
	t.Parallel()
	outages := []struct {
		name        string
		begin, mend func(t *testing.T, s *source, p *proxy.Proxy)
	}{
		{"stopped",
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Stop(t) },
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Start(t) }},
		{"frozen",
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Freeze(t) },
			func(t *testing.T, s *source, _ *proxy.Proxy) { t.Helper(); s.server.Thaw(t) }},
		{"black hole",
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.BlackHole() },
			func(_ *testing.T, _ *source, p *proxy.Proxy) { p.Pass() }},
	}
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			t.Parallel()
			n := size(60, 500)
			v, s := newVault(t), newSource(t, pgtest.Start(t, 17), functions)
			p := proxy.New(t, s.addr)
			s.addr = p.Addr()
			v.engine(t, s, "away", map[string]any{"operation_timeout": "3s", "connect_timeout": "2s"})
			v.role(t, "away", reader("reader"))
			there := newSource(t, pgtest.Shared(t, 15), createRole)
			v.engine(t, there, "there", nil)
			v.role(t, "there", reader("reader"))

			creds := v.issueMany(t, "away", "reader", time.Duration(size(6, 20))*time.Second, n)
			outage.begin(t, s, p)
			if left := time.Until(creds[0].expires); left < 0 {
				t.Fatalf("the machine is too slow for this test: the first credential ended %s before the outage", -left)
			}
			eventually(t, 30*time.Second, "all have ended", func() bool {
				return len(v.leases(t, client.LeaseFilter{Engine: "away", Status: api.LeaseRevoking})) == n
			})
			v.mustShowOverdue(t, "away", n)
			v.mustBePunctual(t, "there")
			// A revocation asked for meanwhile is taken, and told to be under way.
			if pending, err := v.admin.RevokeLease(t.Context(), creds[0].lease, time.Second); err != nil || pending == nil || pending.Status != api.LeaseRevoking {
				t.Errorf("revoke meanwhile: %+v, %v", pending, err)
			}
			v.mustShowOverdue(t, "away", n)

			outage.mend(t, s, p)
			returned := time.Now()
			eventually(t, 10*time.Second, "all are dead", func() bool {
				return len(v.leases(t, client.LeaseFilter{Engine: "away", Status: api.LeaseRevoking})) == 0
			})
			t.Logf("%d dead %s after the return", n, time.Since(returned).Round(time.Millisecond))
			if left := s.accounts(t); len(left) != 0 {
				t.Errorf("%d accounts are left", len(left))
			}
			if h, err := v.admin.EngineHealth(t.Context(), "away"); err != nil || h.Status != api.EngineHealthy || h.RevocationBacklog != 0 {
				t.Errorf("health after the return: %+v, %v", h, err)
			}
		})
	}
}

// mustShowOverdue wants list, metric and both health pages to count the leases
// that should be dead.
func (v *vault) mustShowOverdue(t *testing.T, engine string, n int) {
	t.Helper()
	if got := len(v.leases(t, client.LeaseFilter{Engine: engine, Status: api.LeaseRevoking})); got != n {
		t.Errorf("the list shows %d revoking, want %d", got, n)
	}
	if line := fmt.Sprintf("scaivault_leases_overdue{engine=%q} %d\n", engine, n); !strings.Contains(v.Metrics(t), line) {
		t.Errorf("the metrics lack %s", line)
	}
	h, err := v.admin.EngineHealth(t.Context(), engine)
	if err != nil || h.Status != api.EngineUnreachable || h.RevocationBacklog != int64(n) || h.Error == nil {
		t.Errorf("health: %+v, %v; want %d overdue, unreachable", h, err, n)
	}
	all, err := v.admin.DetailedHealth(t.Context())
	if err != nil {
		t.Fatalf("detailed health: %v", err)
	}
	for _, e := range all.Engines {
		if e.Engine == engine && (e.RevocationBacklog != int64(n) || e.Status != api.EngineUnreachable) {
			t.Errorf("detailed health: %+v; want %d overdue, unreachable", e, n)
		}
	}
}

// mustBePunctual lets credentials of another engine expire and looks how late
// they died. A waiting attempt at the dead source would cost seconds.
func (v *vault) mustBePunctual(t *testing.T, engine string) {
	t.Helper()
	creds := v.issueMany(t, engine, "reader", time.Second, 10)
	eventually(t, 20*time.Second, "the other engine's are dead", func() bool {
		return len(v.leases(t, client.LeaseFilter{Engine: engine, Status: api.LeaseRevoked})) >= len(creds)
	})
	for _, c := range creds {
		if late := v.lease(t, c.lease).RevokedAt.Sub(c.expires); late > 2*time.Second {
			t.Errorf("a lease of the other engine died %s late", late)
		}
	}
}
