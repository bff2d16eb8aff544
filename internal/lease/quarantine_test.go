package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

func (w *world) putQuarantine(s quarantine.State) {
	w.t.Helper()
	w.must(w.base.Write(context.Background(), func(tx store.Tx) error { return quarantine.Put(tx, &s) }))
}

// A store in quarantine may be the second copy: whatever it did at a source would be done to the
// leases of the first.
func TestQuarantineTouchesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		short, long := w.issue(app, "one", "short"), w.issue(app, "one", "app")
		w.putQuarantine(quarantine.State{Active: true, Reason: quarantine.ReasonRestored, Since: time.Now()})

		refused := func(what string, err error) {
			t.Helper()
			if fault.CodeOf(err) != fault.ServiceUnavailable {
				t.Errorf("%s in quarantine: %v", what, err)
			}
		}
		_, err := w.tryIssue(app, "one", "app")
		refused("issue", err)
		_, err = w.leases.Renew(ctx, app, long.LeaseID, api.RenewRequest{})
		refused("renew", err)
		_, err = w.leases.Revoke(ctx, app, long.LeaseID, 0)
		refused("revoke", err)
		_, err = w.leases.RevokePrefix(ctx, admin, "one", 0)
		refused("revoke by prefix", err)
		_, err = w.leases.RevokeBy(ctx, admin, api.RevokeFilterRequest{Engine: "one"}, 0)
		refused("revoke by filter", err)
		_, err = w.leases.Abandon(ctx, admin, "one", api.AbandonRequest{Confirm: "one", Reason: "gone"})
		refused("abandon", err)
		_, err = w.leases.TestRole(ctx, admin, "one", "app", 0)
		refused("test a role", err)
		_, err = w.leases.Reconcile(ctx, admin, "one", lease.RemoveOld)
		refused("reconcile with removal", err)
		_, err = w.sources.DeleteRole(ctx, admin, "one", "app", true, 0)
		refused("delete a role", err)
		_, err = w.sources.DeleteEngine(ctx, admin, "one", true, 0)
		refused("delete an engine", err)
		_, err = w.sources.PatchRole(ctx, admin, "one", "app", []byte(`{"max_ttl": "2h"}`))
		refused("change a role", err)
		_, err = w.sources.RotateRoot(ctx, admin, "one")
		refused("rotate the root", err)

		_, err = w.leases.Reconcile(ctx, admin, "one", lease.RemoveNone)
		w.must(err)
		_, err = w.leases.Get(ctx, app, long.LeaseID)
		w.must(err)

		w.restart() // the state is the store's, not the process's
		time.Sleep(time.Hour)
		w.wantStatus(short.LeaseID, api.LeaseActive)
		w.wantAccounts(2)

		w.putQuarantine(quarantine.State{Reason: quarantine.ReasonRestored, Since: time.Now()})
		w.leases.Kick()
		time.Sleep(time.Second)
		w.wantDead(short.LeaseID, api.ReasonExpired)
		w.wantDead(long.LeaseID, api.ReasonExpired)
	})
}

// Accounts that a restored store does not know may have been given out since: for a day they are
// listed only.
func TestReconcileAfterRestore(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, admin := context.Background(), w.caller("admin")
		w.one.Put(leasetest.Account{Name: "v_lost_1", Mark: w.base.Installation(), Usable: true})
		restored := time.Now()
		w.putQuarantine(quarantine.State{Restored: &restored})
		reconcile := func() *api.ReconcileResult {
			t.Helper()
			r, err := w.leases.Reconcile(ctx, admin, "one", lease.RemoveOld)
			w.must(err)
			return r
		}
		reconcile()
		time.Sleep(23 * time.Hour)
		if r := reconcile(); len(r.Pending) != 1 || len(r.Removed) != 0 {
			t.Errorf("within a day of the restore: %+v", r)
		}
		time.Sleep(time.Hour)
		if r := reconcile(); len(r.Removed) != 1 {
			t.Errorf("after a day: %+v", r)
		}
	})
}

// Within the day they are removed where somebody says so: what two runs since the restore have seen,
// whatever the copy remembers of runs before, and never in quarantine.
func TestReconcileRestored(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, admin := context.Background(), w.caller("admin")
		w.one.Put(leasetest.Account{Name: "v_lost_1", Mark: w.base.Installation(), Usable: true})
		reconcile := func(removal lease.Removal) *api.ReconcileResult {
			t.Helper()
			r, err := w.leases.Reconcile(ctx, admin, "one", removal)
			w.must(err)
			return r
		}
		reconcile(lease.RemoveNone) // before the restore
		time.Sleep(time.Hour)
		restored := time.Now()
		w.putQuarantine(quarantine.State{Active: true, Restored: &restored})
		if _, err := w.leases.Reconcile(ctx, admin, "one", lease.RemoveRestored); fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("removal in quarantine: %v", err)
		}
		if r := reconcile(lease.RemoveNone); len(r.Orphans) != 1 {
			t.Errorf("listed in quarantine: %+v", r)
		}
		w.putQuarantine(quarantine.State{Restored: &restored})
		if r := reconcile(lease.RemoveRestored); len(r.Pending) != 1 || len(r.Removed) != 0 {
			t.Errorf("at the first run since the restore: %+v", r)
		}
		time.Sleep(10 * time.Minute)
		if r := reconcile(lease.RemoveOld); len(r.Removed) != 0 {
			t.Errorf("removed without having been told: %+v", r)
		}
		if r := reconcile(lease.RemoveRestored); len(r.Removed) != 1 {
			t.Errorf("ten minutes after it was seen: %+v", r)
		}
	})
}
