package lease_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

func increment(d time.Duration) api.RenewRequest {
	v := api.Duration(d)
	return api.RenewRequest{Increment: &v}
}

func ttl(d time.Duration) api.RenewRequest {
	v := api.Duration(d)
	return api.RenewRequest{TTL: &v}
}

// Each case is a lease of an hour, at most eight, renewed after a while. Ends are told from its issue.
func TestRenew(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		after time.Duration
		req   api.RenewRequest
		end   time.Duration
		code  fault.Code
	}{
		"the role's default":            {30 * time.Minute, api.RenewRequest{}, 90 * time.Minute, ""},
		"an increment":                  {30 * time.Minute, increment(2 * time.Hour), 150 * time.Minute, ""},
		"an increment never shortens":   {10 * time.Minute, increment(time.Minute), time.Hour, ""},
		"an increment is capped":        {30 * time.Minute, increment(24 * time.Hour), 8 * time.Hour, ""},
		"a ttl":                         {30 * time.Minute, ttl(3 * time.Hour), 210 * time.Minute, ""},
		"a ttl shortens":                {30 * time.Minute, ttl(time.Minute), 31 * time.Minute, ""},
		"a ttl is capped":               {30 * time.Minute, ttl(24 * time.Hour), 8 * time.Hour, ""},
		"after its end":                 {61 * time.Minute, increment(time.Hour), time.Hour, fault.LeaseRevoked},
		"both":                          {time.Minute, api.RenewRequest{Increment: increment(time.Hour).Increment, TTL: ttl(time.Hour).TTL}, time.Hour, fault.InvalidRequest},
		"at the very moment of issuing": {0, increment(2 * time.Hour), 2 * time.Hour, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				app := w.caller("app")
				made := w.issue(app, "one", "app")
				time.Sleep(tt.after)
				l, err := w.leases.Renew(context.Background(), app, made.LeaseID, tt.req)
				w.wantCode(err, tt.code)
				row := w.row(made.LeaseID)
				if !row.ExpiresAt.Equal(row.IssuedAt.Add(tt.end)) {
					t.Fatalf("ends after %s, want %s", row.ExpiresAt.Sub(row.IssuedAt), tt.end)
				}
				if err != nil {
					return
				}
				if a := w.one.Account(row.Username); !l.ExpiresAt.Equal(row.ExpiresAt) || !a.Until.Equal(row.ExpiresAt) || row.PendingExpiresAt != nil {
					t.Errorf("answered %s, the source has %s, the lease %+v", l.ExpiresAt, a.Until, row)
				}
				time.Sleep(time.Until(row.ExpiresAt) - time.Second)
				w.wantStatus(made.LeaseID, api.LeaseActive)
				time.Sleep(2 * time.Second)
				w.wantDead(made.LeaseID, api.ReasonExpired)
			})
		})
	}
}

func TestRenewRefusals(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app := context.Background(), w.caller("app")
		made := w.issue(app, "one", "app")
		_, err := w.leases.Renew(ctx, w.caller("other"), made.LeaseID, increment(time.Hour))
		w.wantCode(err, fault.AccessDenied)
		_, err = w.leases.Renew(ctx, app, w.issue(app, "one", "fixed").LeaseID, increment(time.Hour))
		w.wantCode(err, fault.NotRenewable)
		_, err = w.leases.Renew(ctx, app, "lease_00000000000000000000000000", increment(time.Hour))
		w.wantCode(err, fault.LeaseNotFound)

		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}, "revoke"))
		_, err = w.leases.Revoke(ctx, app, made.LeaseID, 0)
		w.must(err)
		_, err = w.leases.Renew(ctx, app, made.LeaseID, increment(time.Hour))
		w.wantCode(err, fault.LeaseRevoked)

		longest := w.issue(app, "two", "app", 8*time.Hour)
		_, err = w.leases.Renew(ctx, app, longest.LeaseID, increment(9*time.Hour))
		w.wantCode(err, fault.MaxTTLReached)

		past := w.issue(app, "two", "app", time.Minute)
		w.two.SetFault(always(leasetest.Fault{Delay: time.Second}, "revoke"))
		time.Sleep(time.Minute)
		_, err = w.leases.Renew(ctx, app, past.LeaseID, increment(time.Hour))
		if code := fault.CodeOf(err); code != fault.LeaseExpired && code != fault.LeaseRevoked {
			t.Errorf("past its end: %v", err)
		}
	})
}

// A source that refuses leaves the former end, at the source too, and the entry says that it failed.
func TestRenewRefusedAtTheSource(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetFault(once("renew", leasetest.Fault{Kind: leasetest.Refuse}))
		_, err := w.leases.Renew(context.Background(), app, made.LeaseID, increment(4*time.Hour))
		w.wantCode(err, fault.EngineError)
		w.wantEntryFailed("dynamic_renew", made.LeaseID)
		time.Sleep(20 * time.Second)
		l := w.wantStatus(made.LeaseID, api.LeaseActive)
		if a := w.one.Account(l.Username); l.PendingExpiresAt != nil || !l.ExpiresAt.Equal(made.ExpiresAt) || !a.Until.Equal(made.ExpiresAt) {
			t.Errorf("%+v, %+v", l, a)
		}
	})
}

// A shorter end holds at once, even where the source does not answer.
func TestShortenWithoutTheSource(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}, "renew"))
		l, err := w.leases.Renew(context.Background(), app, made.LeaseID, ttl(time.Minute))
		w.must(err)
		if !l.ExpiresAt.Equal(l.IssuedAt.Add(time.Minute)) {
			t.Errorf("%+v", l)
		}
		time.Sleep(time.Minute + 6*time.Second)
		w.wantDead(made.LeaseID, api.ReasonExpired)
	})
}

// A revocation during a renewal wins, and so does the lease's end.
func TestRevokeWhileRenewing(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetFault(once("renew", leasetest.Fault{Delay: 5 * time.Second}))
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := w.leases.Renew(context.Background(), app, made.LeaseID, increment(4*time.Hour))
			if err == nil {
				t.Error("a revoked lease was renewed")
			}
		})
		time.Sleep(time.Second)
		_, err := w.leases.Renew(context.Background(), w.caller("admin"), made.LeaseID, increment(time.Hour))
		w.wantCode(err, fault.VersionConflict)
		pending, err := w.leases.Revoke(context.Background(), w.caller("admin"), made.LeaseID, time.Minute)
		w.must(err)
		if pending != nil {
			t.Errorf("%+v", pending)
		}
		wg.Wait()
		w.wantDead(made.LeaseID, api.ReasonRevoked)
	})
}

// Lowering a role's max_ttl binds renewals of living leases and shortens none.
func TestRenewUnderALoweredMaximum(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made := w.issue(app, "one", "app", 4*time.Hour)
		_, err := w.sources.PatchRole(ctx, admin, "one", "app", []byte(`{"max_ttl": "2h"}`))
		w.must(err)
		_, err = w.leases.Renew(ctx, app, made.LeaseID, increment(6*time.Hour))
		w.wantCode(err, fault.MaxTTLReached)
		if l := w.row(made.LeaseID); !l.ExpiresAt.Equal(made.ExpiresAt) {
			t.Errorf("shortened to %s", l.ExpiresAt)
		}
		second := w.issue(app, "one", "app")
		l, err := w.leases.Renew(ctx, app, second.LeaseID, increment(6*time.Hour))
		w.must(err)
		if !l.ExpiresAt.Equal(l.IssuedAt.Add(2 * time.Hour)) {
			t.Errorf("%+v", l)
		}
	})
}
