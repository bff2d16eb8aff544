package lease_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/store"
)

// Reconcile looks each name up among all leases of the store, and removes what two runs ten minutes
// apart have seen and no lease bears.
func TestReconcile(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		raw, _ := json.Marshal(map[string]any{"host": "one", "root_credentials_path": rootPath})
		_, err := w.sources.CreateEngine(ctx, admin, &api.EngineRequest{Name: "same", Type: "fake", Config: raw})
		w.must(err)
		_, err = w.sources.CreateRole(ctx, admin, "same", []byte(`{"name": "app"}`))
		w.must(err)
		ours, beside := w.issue(app, "one", "app", 8*time.Hour), w.issue(app, "same", "app", 8*time.Hour)
		gone := w.issue(app, "one", "app", 8*time.Hour)
		mark := w.base.Installation()
		w.one.Put(leasetest.Account{Name: "v_lost_1", Mark: mark, Usable: true})
		w.one.Put(leasetest.Account{Name: "theirs", Usable: true})
		w.one.Change(gone.Data["username"], func(a *leasetest.Account) { a.Mark = "" })

		run := func(removal lease.Removal) *api.ReconcileResult {
			t.Helper()
			result, err := w.leases.Reconcile(ctx, admin, "one", removal)
			w.must(err)
			return result
		}
		want := func(what string, got []string, names ...string) {
			t.Helper()
			if !slices.Equal(got, names) {
				t.Errorf("%s: %v, want %v", what, got, names)
			}
		}
		r := run(lease.RemoveOld)
		want("orphans", r.Orphans, "v_lost_1")
		want("pending", r.Pending, "v_lost_1")
		want("removed", r.Removed)
		want("missing so soon", r.Missing)
		time.Sleep(9 * time.Minute)
		r = run(lease.RemoveOld)
		want("removed after nine minutes", r.Removed)
		want("missing", r.Missing, gone.Data["username"])
		time.Sleep(time.Minute)
		w.one.Put(leasetest.Account{Name: "v_lost_2", Mark: mark, Usable: true})
		r = run(lease.RemoveNone)
		want("removed by a dry run", r.Removed)
		r = run(lease.RemoveOld)
		want("removed", r.Removed, "v_lost_1")
		want("pending", r.Pending, "v_lost_2")
		for _, name := range []string{ours.Data["username"], beside.Data["username"], "theirs", "v_lost_2"} {
			if !w.one.CanLogin(name) {
				t.Errorf("%s was touched", name)
			}
		}
		if w.one.Account("v_lost_1") != nil {
			t.Error("the orphan lives")
		}
		_, err = w.leases.Reconcile(ctx, app, "one", lease.RemoveNone)
		w.wantCode(err, fault.AccessDenied)
	})
}

// A closed lease's account that turns up again is killed again.
func TestReconcileClosedLease(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made := w.issue(app, "one", "app")
		oid := w.one.Account(made.Data["username"]).OID
		_, err := w.leases.Revoke(ctx, app, made.LeaseID, time.Minute)
		w.must(err)
		w.one.Put(leasetest.Account{Name: made.Data["username"], OID: oid, Mark: w.base.Installation(), Usable: true})
		_, err = w.leases.Reconcile(ctx, admin, "one", lease.RemoveOld)
		w.must(err)
		time.Sleep(time.Second)
		w.wantAccounts(0)
	})
}

func TestAbandon(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		a, b, other := w.issue(app, "one", "app"), w.issue(app, "one", "app"), w.issue(app, "two", "app")
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		yes := api.AbandonRequest{Reason: "the machine burnt", Confirm: "one"}
		_, err := w.leases.Abandon(ctx, w.caller("admin", "dynamic:manage"), "one", yes)
		w.wantCode(err, fault.InsufficientScope)
		_, err = w.leases.Abandon(ctx, admin, "one", api.AbandonRequest{Reason: "x", Confirm: "two"})
		w.wantCode(err, fault.InvalidRequest)
		result, err := w.leases.Abandon(ctx, admin, "one", yes)
		w.must(err)
		if result.Abandoned != 2 || len(result.Accounts) != 2 {
			t.Errorf("%+v", result)
		}
		for _, c := range []*api.Credential{a, b} {
			if l := w.wantStatus(c.LeaseID, api.LeaseRevoked); l.Revocation.Reason != api.ReasonSourceAbandoned || l.DueAt != nil {
				t.Errorf("%+v", l)
			}
		}
		w.wantStatus(other.LeaseID, api.LeaseActive)
		named := 0
		for _, e := range w.entries() {
			if list, ok := e.ExtraData["accounts"].([]any); ok && e.Success {
				named = len(list)
			}
		}
		if named != 2 {
			t.Errorf("the entry names %d accounts", named)
		}
	})
}

// What the source confirms after a person said that it is gone is not forgotten.
func TestAbandonWhileIssuing(t *testing.T) {
	inWorld(t, func(w *world) {
		app, admin := w.caller("app"), w.caller("admin")
		w.one.SetFault(once("issue", leasetest.Fault{Delay: 5 * time.Second}))
		done := make(chan error, 1)
		go func() {
			_, err := w.tryIssue(app, "one", "app")
			done <- err
		}()
		time.Sleep(time.Second)
		_, err := w.leases.Abandon(context.Background(), admin, "one", api.AbandonRequest{Reason: "gone", Confirm: "one"})
		w.must(err)
		w.wantCode(<-done, fault.LeaseRevoked)
		time.Sleep(2 * time.Second)
		w.wantAccounts(0)
	})
}

// Another server behind the engine: nothing is settled or issued on it until somebody accepts it.
func TestAnotherServer(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made, kept := w.issue(app, "one", "app"), w.issue(app, "one", "app", 8*time.Hour)
		id, accounts := w.one.Replace("rebuilt", nil)
		pending, err := w.leases.Revoke(ctx, app, made.LeaseID, 10*time.Second)
		w.must(err)
		if pending == nil {
			t.Fatal("not found on another server counted as dead")
		}
		_, err = w.tryIssue(app, "one", "app")
		w.wantCode(err, fault.EngineError)
		health, err := w.sources.Health(ctx, admin, "one")
		w.must(err)
		if health.Status != api.EngineMisconfigured && health.Status != api.EngineUnreachable {
			t.Errorf("%+v", health)
		}
		w.restart()
		_, err = w.tryIssue(app, "one", "app")
		w.wantCode(err, fault.EngineError)

		w.one.Replace(id, accounts) // the right one is back
		time.Sleep(6 * time.Minute)
		w.wantDead(made.LeaseID, api.ReasonRevoked)
		w.issue(app, "one", "app")

		w.one.Replace("rebuilt", nil)
		_, err = w.leases.Revoke(ctx, app, kept.LeaseID, 0)
		w.must(err)
		_, err = w.sources.AcceptSource(ctx, admin, "one")
		w.must(err)
		time.Sleep(6 * time.Minute)
		w.wantDead(kept.LeaseID, api.ReasonRevoked)
		w.issue(app, "one", "app")

		w.one.Replace("third", nil)
		for _, l := range w.rows() {
			if l.Status == api.LeaseActive {
				_, err = w.leases.Revoke(ctx, app, l.ID, 10*time.Second)
				w.must(err)
				w.wantStatus(l.ID, api.LeaseRevoking) // accepted was the second, not the third
			}
		}
	})
}

func TestDeleteEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made := w.issue(app, "one", "app")
		_, err := w.sources.DeleteEngine(ctx, admin, "one", false, time.Second)
		w.wantCode(err, fault.EngineInUse)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		still, err := w.sources.DeleteEngine(ctx, admin, "one", true, 5*time.Second)
		w.must(err)
		if still == nil || still.Status != api.EngineDeleting {
			t.Fatalf("%+v", still)
		}
		_, err = w.tryIssue(app, "one", "app")
		w.wantCode(err, fault.EngineInUse)
		w.one.SetFault(nil)
		time.Sleep(10 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonEngineDeleted)
		_, err = w.sources.GetEngine(ctx, admin, "one")
		w.wantCode(err, fault.EngineNotFound)
		if n := w.one.Open(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		_, err = w.leases.Renew(ctx, app, made.LeaseID, increment(time.Hour))
		w.wantCode(err, fault.LeaseRevoked)
	})
}

// The last lease is dead and closed when the process dies: the engine goes all the same.
func TestDeleteEngineCutOff(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, admin := context.Background(), w.caller("admin")
		w.issue(w.caller("app"), "one", "app")
		w.dieAt("write", 4, true) // fence, marks, claim, close
		_, _ = w.sources.DeleteEngine(ctx, admin, "one", true, 5*time.Second)
		w.die()
		w.restart()
		time.Sleep(time.Second)
		w.wantDead(w.only().ID, api.ReasonEngineDeleted)
		_, err := w.sources.GetEngine(ctx, w.caller("admin"), "one")
		w.wantCode(err, fault.EngineNotFound)
	})
}

func TestDeleteRole(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made, other := w.issue(app, "one", "app"), w.issue(app, "one", "fixed")
		_, err := w.sources.DeleteRole(ctx, admin, "one", "app", false, time.Second)
		w.wantCode(err, fault.RoleInUse)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}, "revoke"))
		still, err := w.sources.DeleteRole(ctx, admin, "one", "app", true, time.Second)
		w.must(err)
		if still == nil {
			t.Fatal("gone before its lease is dead")
		}
		_, err = w.sources.PatchRole(ctx, admin, "one", "app", []byte(`{"max_leases": 5}`))
		w.wantCode(err, fault.RoleInUse)
		w.one.SetFault(nil)
		time.Sleep(10 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonRoleDeleted)
		_, err = w.sources.GetRole(ctx, admin, "one", "app")
		w.wantCode(err, fault.RoleNotFound)
		w.wantStatus(other.LeaseID, api.LeaseActive)
	})
}

// A configuration that reaches another server waits until the leases on the old one are dead.
func TestMoveEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		made := w.issue(app, "one", "app")
		patch := &api.EnginePatch{Config: map[string]json.RawMessage{"host": json.RawMessage(`"two"`)}}
		_, _, err := w.sources.PatchEngine(ctx, admin, "one", patch, false, time.Second)
		w.wantCode(err, fault.EngineInUse)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}, "revoke"))
		_, moving, err := w.sources.PatchEngine(ctx, admin, "one", patch, true, time.Second)
		w.must(err)
		if !moving {
			t.Fatal("moved before its leases were dead")
		}
		w.one.SetFault(nil)
		time.Sleep(10 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonRevoked)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Refuse}))
		second := w.issue(app, "one", "app")
		if !w.two.CanLogin(second.Data["username"]) {
			t.Error("not on the new server")
		}
	})
}

// A root secret whose new version does not work leaves the former in use, and is tried again.
func TestRootSecretChanged(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app := context.Background(), w.caller("app")
		w.issue(app, "one", "app")
		w.one.AcceptRoot(rootPassword(1))
		w.must(w.base.Write(ctx, func(tx store.Tx) error {
			return tx.PutSecret(&store.Secret{Tenant: tenant, Path: rootPath, Type: "json", Version: 2, Versions: 2, Doc: []byte("{}")})
		}))
		w.sources.SecretChanged()
		w.issue(app, "one", "app")
		health, err := w.sources.Health(ctx, w.caller("admin"), "one")
		w.must(err)
		if health.Status != api.EngineMisconfigured {
			t.Errorf("%+v", health)
		}
		w.one.AcceptRoot(rootPassword(2))
		time.Sleep(20 * time.Second)
		w.issue(app, "one", "app")
		if health, err = w.sources.Health(ctx, w.caller("admin"), "one"); err != nil || health.Status != api.EngineHealthy {
			t.Errorf("%+v, %v", health, err)
		}
		if n := w.one.Open(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
	})
}

func TestRoleTest(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, admin := context.Background(), w.caller("admin")
		for _, role := range []string{"app", "short"} {
			report, err := w.leases.TestRole(ctx, admin, "one", role, 10*time.Second)
			w.must(err)
			if !report.OK || len(report.Steps) != 3 || report.Username == "" {
				t.Errorf("%s: %+v", role, report)
			}
		}
		w.wantAccounts(0)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Refuse}, "issue"))
		report, err := w.leases.TestRole(ctx, admin, "one", "app", 10*time.Second)
		w.must(err)
		if report.OK || len(report.Steps) != 1 || report.Steps[0].Error == "" {
			t.Errorf("%+v", report)
		}
		_, err = w.leases.TestRole(ctx, admin, "no", "app", time.Second)
		w.wantCode(err, fault.EngineNotFound)
		_, err = w.leases.TestRole(ctx, admin, "one", "no", time.Second)
		w.wantCode(err, fault.RoleNotFound)
		_, err = w.leases.TestRole(ctx, w.caller("app"), "one", "app", time.Second)
		w.wantCode(err, fault.AccessDenied)
	})
}
