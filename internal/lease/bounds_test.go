package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

// Life times that the source cannot give are refused when the role is made, and when a credential is
// asked for.
func TestBounds(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, admin, app := context.Background(), w.caller("admin"), w.caller("app")
		for doc, want := range map[string]fault.Code{
			`{"name": "x", "longest": 3600, "max_ttl": "2h"}`:                       fault.InvalidDuration,
			`{"name": "x", "shortest": 900, "default_ttl": "5m"}`:                   fault.InvalidDuration,
			`{"name": "x", "shortest": 900, "default_ttl": "5m", "max_ttl": "10m"}`: fault.InvalidDuration,
			`{"name": "x", "longest": 3600, "default_ttl": "2h"}`:                   fault.InvalidDuration,
			`{"name": "x", "fixed": true, "renewable": true}`:                       fault.InvalidRole,
		} {
			_, err := w.sources.CreateRole(ctx, admin, "one", []byte(doc))
			if fault.CodeOf(err) != want {
				t.Errorf("%s: %v", doc, err)
			}
		}
		_, err := w.sources.CreateRole(ctx, admin, "one", []byte(`{"name": "long", "shortest": 10800}`))
		w.must(err)
		if made := w.issue(app, "one", "long"); made.TTL != 10800 { // the engine's default is shorter
			t.Errorf("%+v", made)
		}
		_, err = w.tryIssue(app, "one", "bounded", 10*time.Minute)
		w.wantCode(err, fault.InvalidDuration)
		_, err = w.tryIssue(app, "one", "bounded", 2*time.Hour)
		w.wantCode(err, fault.InvalidDuration)
		made := w.issue(app, "one", "bounded")
		if made.TTL != 1200 || made.Renewable || made.MaxExpiresAt.Sub(made.IssuedAt) != time.Hour {
			t.Errorf("%+v", made)
		}
		_, err = w.leases.Renew(ctx, app, made.LeaseID, api.RenewRequest{})
		w.wantCode(err, fault.NotRenewable)
		shown, err := w.sources.PatchRole(ctx, admin, "one", "bounded", []byte(`{"default_ttl": "30m"}`))
		w.must(err)
		if shown.Renewable || shown.MaxTTL != api.Duration(time.Hour) {
			t.Errorf("%+v", shown)
		}
	})
}

// Where the source cannot kill at once, the first moment that it names counts: nobody waits for it,
// and asking again does not move it.
func TestDeadLater(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app := context.Background(), w.caller("app")
		one, two := w.issue(app, "one", "app"), w.issue(app, "one", "app")
		w.one.SetLag(5 * time.Minute)
		begun := time.Now()
		pending, err := w.leases.Revoke(ctx, app, one.LeaseID, 10*time.Second)
		w.must(err)
		if pending == nil || pending.Revocation.EffectiveAt == nil || time.Since(begun) > 2*time.Second {
			t.Fatalf("after %s: %+v", time.Since(begun), pending)
		}
		result, err := w.leases.RevokePrefix(ctx, w.caller("admin"), "one", 30*time.Second)
		w.must(err)
		if result.Matched != 2 || result.Pending != 2 || time.Since(begun) > 4*time.Second {
			t.Fatalf("after %s: %+v", time.Since(begun), result)
		}
		time.Sleep(time.Until(*pending.Revocation.EffectiveAt) - time.Second)
		w.wantStatus(one.LeaseID, api.LeaseRevoking)
		time.Sleep(10 * time.Second)
		w.wantDead(one.LeaseID, api.ReasonRevoked)
		w.wantDead(two.LeaseID, api.ReasonPrefix)
	})
}

// An account that is gone when it is looked at again is dead, whatever was promised.
func TestDeadSoonerThanPromised(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetLag(time.Hour)
		_, err := w.leases.Revoke(context.Background(), app, made.LeaseID, time.Second)
		w.must(err)
		w.one.SetLag(0)
		w.one.SetFault(once("revoke", leasetest.Fault{Kind: leasetest.Unreachable}))
		time.Sleep(time.Hour + time.Minute)
		w.wantDead(made.LeaseID, api.ReasonRevoked)
	})
}
