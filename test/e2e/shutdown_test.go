package e2e_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// A server that is told to stop finishes what it has begun, refuses the rest,
// and goes on where it was when it is started again.
func TestGracefulShutdown(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17, wholeQueries()), createRole)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	gate := newGate(t, s)
	v.role(t, "db", gate.role("gated"))
	app := v.account(t, "app", "dynamic/db/*")
	if _, err := app.WhoAmI(t.Context()); err != nil { // it has its token
		t.Fatal(err)
	}
	short := v.issue(t, app, "db", "reader", 3*time.Second)
	early := v.issue(t, app, "db", "reader", time.Hour)

	gate.close(t)
	var inFlight credential
	answered := background(func() (err error) {
		inFlight, err = v.ask(t.Context(), app, "db", "gated", time.Hour)
		return err
	})
	gate.await(t)
	v.Signal(t, syscall.SIGTERM)
	eventually(t, 10*time.Second, "new work is refused", func() bool {
		_, err := app.GenerateCredential(t.Context(), "db", "reader", api.CredsRequest{})
		return err != nil
	})
	gate.open(t)
	if err := <-answered; err != nil {
		t.Errorf("the issuance in flight was not finished: %v", err)
	}
	v.Wait(t)
	if left := time.Until(short.expires); left > 0 {
		time.Sleep(left) // it ends while the server is away
	}

	v.again(t)
	eventually(t, 20*time.Second, "what ended meanwhile is dead", func() bool { return v.lease(t, short.lease).Status == api.LeaseRevoked })
	s.mustBeDead(t, short)
	s.readItems(t, early)
	if err := s.tryLogin(inFlight); err != nil {
		t.Errorf("what was answered at the end does not log in: %v", err)
	}
	for _, c := range []credential{early, inFlight} {
		if l := v.lease(t, c.lease); l.Status != api.LeaseActive || l.Unconfirmed {
			t.Errorf("the lease %s is %s after the restart, unconfirmed %v", c.lease, l.Status, l.Unconfirmed)
		}
		if _, err := app.RenewLease(t.Context(), c.lease, api.RenewRequest{}); err != nil {
			t.Errorf("renew after the restart: %v", err)
		}
		v.revoke(t, c)
		s.mustBeDead(t, c)
	}
}

// Told to stop under load, again and again: everything that was answered works,
// and nothing that was not is left half-made.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 15), createRole)
	v.engine(t, s, "db", map[string]any{"operation_timeout": "5s", "max_open_connections": 8})
	v.role(t, "db", reader("reader"))
	app := v.account(t, "app", "dynamic/db/reader")

	var all sync.Map
	for round := range size(3, 20) {
		var issuers sync.WaitGroup
		var given atomic.Int64
		stop := make(chan struct{})
		for range 16 {
			issuers.Go(func() {
				for !isClosed(stop) {
					c, err := v.ask(t.Context(), app, "db", "reader", time.Hour)
					var refused *client.Error
					switch {
					case err == nil:
						all.Store(c.lease, c)
						given.Add(1)
					case errors.As(err, &refused) && refused.Status != 503:
						t.Errorf("round %d: %v", round, err)
						return
					}
				}
			})
		}
		eventually(t, time.Minute, "some are given", func() bool { return given.Load() > 50 })
		v.Stop(t)
		close(stop)
		issuers.Wait()
		v.again(t)
		if open := v.leases(t, client.LeaseFilter{Status: api.LeaseIssuing}); len(open) != 0 {
			t.Errorf("round %d: %d issuances were cut off by an orderly stop", round, len(open))
		}
	}
	all.Range(func(_, value any) bool {
		c, _ := value.(credential)
		if err := s.tryLogin(c); err != nil {
			t.Errorf("%s was given and does not log in: %v", c.username, err)
		}
		return true
	})
	eventually(t, time.Minute, "what nobody was given is dead", func() bool {
		return len(v.leases(t, client.LeaseFilter{Status: api.LeaseRevoking})) == 0
	})
	s.mustBeBorne(t, v)
	if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
		t.Errorf("the audit chain does not verify: %+v, %v", report, err)
	}
}
