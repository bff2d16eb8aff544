package lease_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/store"
)

func TestRevoke(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		pending, err := w.leases.Revoke(context.Background(), app, made.LeaseID, 10*time.Second)
		w.must(err)
		if pending != nil {
			t.Fatalf("pending: %+v", pending)
		}
		w.wantDead(made.LeaseID, api.ReasonRevoked)
		w.wantEntry("dynamic_revoke", true, made.LeaseID, "requested")
		w.wantEntry("dynamic_revoke", true, made.LeaseID, "revoked")
		pending, err = w.leases.Revoke(context.Background(), app, made.LeaseID, time.Second)
		w.must(err)
		if pending != nil {
			t.Fatal("revoking twice is not done twice over")
		}

		_, err = w.leases.Revoke(context.Background(), w.caller("other"), w.issue(app, "one", "app").LeaseID, time.Second)
		w.wantCode(err, fault.AccessDenied)
		_, err = w.leases.Revoke(context.Background(), app, "lease_00000000000000000000000000", time.Second)
		w.wantCode(err, fault.LeaseNotFound)
		last := w.entries()[len(w.entries())-1]
		if last.Action != "dynamic_revoke" || last.Success {
			t.Errorf("asking for a lease that is not there left no entry: %+v", last)
		}
	})
}

// A source that cannot be reached for hours: the answer is 202, and the account dies when it is back.
func TestRevokeRetriesWithoutEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		begun := time.Now()
		pending, err := w.leases.Revoke(context.Background(), app, made.LeaseID, 10*time.Second)
		w.must(err)
		if pending == nil || pending.Status != api.LeaseRevoking || pending.Revocation.LastError == "" || time.Since(begun) != 10*time.Second {
			t.Fatalf("after %s: %+v", time.Since(begun), pending)
		}
		before := w.one.Count("revoke")
		time.Sleep(2 * time.Hour)
		if tries := w.one.Count("revoke") - before; tries < 500 {
			t.Errorf("%d probes in two hours", tries)
		}
		w.wantStatus(made.LeaseID, api.LeaseRevoking)
		w.one.SetFault(nil)
		time.Sleep(6 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonRevoked)
	})
}

// One lease that the source refuses to revoke has a backoff of its own, and delays no other.
func TestRevokeOneRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		bad, good := w.issue(app, "one", "app"), w.issue(app, "one", "app")
		w.one.SetFault(func(c leasetest.Call) leasetest.Fault {
			if c.Name == bad.Data["username"] {
				return leasetest.Fault{Kind: leasetest.Refuse}
			}
			return leasetest.Fault{}
		})
		result, err := w.leases.RevokePrefix(context.Background(), w.caller("admin"), "one", time.Minute)
		w.must(err)
		if result.Matched != 2 || result.Revoked != 1 || result.Pending != 1 || len(result.PendingLeases) != 1 || result.PendingLeases[0] != bad.LeaseID {
			t.Fatalf("%+v", result)
		}
		w.wantDead(good.LeaseID, api.ReasonPrefix)
		before := w.one.Count("revoke")
		time.Sleep(time.Hour)
		if tries := w.one.Count("revoke") - before; tries < 12 || tries > 40 {
			t.Errorf("%d tries in an hour, want one each two to five minutes", tries)
		}
		w.one.SetFault(nil)
		time.Sleep(5 * time.Minute)
		w.wantDead(bad.LeaseID, api.ReasonPrefix)
	})
}

// A revocation that arrives while the source makes the account: whatever the order at the source,
// the credential is withheld and the account dies (law L5).
func TestRevokeWhileIssuing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		issue, revoke leasetest.Fault
		at            time.Duration // when the revocation comes
	}{
		"before the source has it":       {leasetest.Fault{Delay: 3 * time.Second}, leasetest.Fault{}, time.Second},
		"nothing found, answered after":  {leasetest.Fault{Delay: 3 * time.Second}, leasetest.Fault{Answer: 5 * time.Second}, time.Second},
		"made, not answered":             {leasetest.Fault{Answer: 3 * time.Second}, leasetest.Fault{}, time.Second},
		"made, answered while it dies":   {leasetest.Fault{Answer: 3 * time.Second}, leasetest.Fault{Delay: 5 * time.Second}, time.Second},
		"the answer to the issue lost":   {leasetest.Fault{Kind: leasetest.LoseAfter, Delay: 3 * time.Second}, leasetest.Fault{}, time.Second},
		"executed late, before deadline": {leasetest.Fault{Kind: leasetest.Late, Delay: 10 * time.Second}, leasetest.Fault{}, time.Second},
		"executed after the deadline":    {leasetest.Fault{Kind: leasetest.Late, Delay: time.Minute}, leasetest.Fault{}, time.Second},
		"half made":                      {leasetest.Fault{Kind: leasetest.HalfMade, Delay: 3 * time.Second}, leasetest.Fault{}, time.Second},
		"refused":                        {leasetest.Fault{Kind: leasetest.Refuse, Delay: 3 * time.Second}, leasetest.Fault{}, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				issue, revoke := once("issue", tt.issue), once("revoke", tt.revoke)
				w.one.SetFault(func(c leasetest.Call) leasetest.Fault {
					if c.Op == "issue" {
						return issue(c)
					}
					return revoke(c)
				})
				app, admin := w.caller("app"), w.caller("admin")
				var wg sync.WaitGroup
				wg.Go(func() {
					if made, err := w.tryIssue(app, "one", "app"); err == nil {
						t.Errorf("%s was given although it was revoked", made.LeaseID)
					}
				})
				time.Sleep(tt.at)
				result, err := w.leases.RevokePrefix(context.Background(), admin, "one/app", 10*time.Minute)
				w.must(err)
				if result.Matched != 1 || result.Pending != 0 {
					t.Errorf("%+v", result)
				}
				wg.Wait()
				time.Sleep(2 * time.Minute)
				l := w.wantDead(w.only().ID, api.ReasonPrefix)
				time.Sleep(15 * time.Minute)
				w.wantAccounts(0)
				if l = w.row(l.ID); l.DueAt != nil {
					t.Errorf("still due: %+v", l)
				}
			})
		})
	}
}

// A fence that no row of has been marked yet withholds what is confirmed after it.
func TestFenceBeforeItsMarks(t *testing.T) {
	inWorld(t, func(w *world) {
		w.one.SetFault(once("issue", leasetest.Fault{Delay: 3 * time.Second}))
		app := w.caller("app")
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := w.tryIssue(app, "one", "app")
			w.wantCode(err, fault.LeaseRevoked)
		})
		time.Sleep(time.Second)
		fence := &store.Fence{Tenant: tenant, EngineID: w.only().EngineID, Reason: api.ReasonPrefix, By: "user:admin"}
		w.must(w.base.Write(context.Background(), func(tx store.Tx) error { return w.leases.Fence(tx, fence) }))
		wg.Wait()
		synctest.Wait()
		time.Sleep(2 * time.Second)
		w.wantDead(w.only().ID, api.ReasonPrefix)
		if made := w.issue(app, "one", "app"); !w.one.CanLogin(made.Data["username"]) {
			t.Error("what is issued after the fence is not in it")
		}
	})
}

// Leases tied to a token end with it: the fence takes only those, and a crash before its marks
// leaves it to the next process.
func TestTokenFence(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		tied, free := w.issue(app, "one", "tied"), w.issue(app, "one", "app")
		w.must(w.base.Write(context.Background(), func(tx store.Tx) error {
			return w.leases.Fence(tx, &store.Fence{Tenant: tenant, TokenID: app.TokenID, TiedOnly: true, Reason: api.ReasonIdentityRevoked, By: "user:admin"})
		}))
		w.process.die()
		w.restart()
		time.Sleep(time.Second)
		w.wantDead(tied.LeaseID, api.ReasonIdentityRevoked)
		w.wantStatus(free.LeaseID, api.LeaseActive)

		short := w.callerFor("app", 10*time.Minute)
		if made := w.issue(short, "one", "tied"); made.MaxExpiresAt.After(time.Now().Add(10 * time.Minute)) {
			t.Errorf("outlives its token: %s", made.MaxExpiresAt)
		}
	})
}

func TestRevokePrefix(t *testing.T) {
	inWorld(t, func(w *world) {
		app, admin := w.caller("app"), w.caller("admin")
		a, b, c := w.issue(app, "one", "app"), w.issue(app, "one", "fixed"), w.issue(app, "two", "app")
		for prefix, want := range map[string]fault.Code{
			"": fault.InvalidRequest, "*": fault.InvalidRequest, "/": fault.InvalidRequest, "one//": fault.InvalidRequest, "one/app/x": fault.InvalidRequest,
			"one/a*": fault.InvalidRequest, "on": fault.EngineNotFound, "one/no": fault.RoleNotFound,
		} {
			_, err := w.leases.RevokePrefix(context.Background(), admin, prefix, time.Second)
			w.wantCode(err, want)
		}
		_, err := w.leases.RevokePrefix(context.Background(), app, "one", time.Second)
		w.wantCode(err, fault.AccessDenied)
		result, err := w.leases.RevokePrefix(context.Background(), admin, "one/app/", time.Minute)
		w.must(err)
		if result.Matched != 1 || result.Revoked != 1 {
			t.Errorf("%+v", result)
		}
		w.wantDead(a.LeaseID, api.ReasonPrefix)
		w.wantStatus(b.LeaseID, api.LeaseActive)
		w.wantStatus(c.LeaseID, api.LeaseActive)
	})
}

// Who does not manage every engine that the filter matches does nothing at all.
func TestRevokeByFilter(t *testing.T) {
	inWorld(t, func(w *world) {
		app, half := w.caller("app"), w.caller("half")
		a, b := w.issue(app, "one", "app"), w.issue(app, "two", "app")
		other := w.issue(w.caller("other"), "one", "app")
		_, err := w.leases.RevokeBy(context.Background(), half, api.RevokeFilterRequest{IdentityID: "user:app"}, time.Second)
		w.wantCode(err, fault.AccessDenied)
		if named := fault.From(err).Details["engines"].([]string); len(named) != 1 || named[0] != "two" {
			t.Errorf("named: %v", named)
		}
		w.wantStatus(a.LeaseID, api.LeaseActive)
		_, err = w.leases.RevokeBy(context.Background(), half, api.RevokeFilterRequest{}, time.Second)
		w.wantCode(err, fault.InvalidRequest)
		_, err = w.leases.RevokeBy(context.Background(), w.caller("admin"), api.RevokeFilterRequest{IdentityID: "user:app"}, time.Minute)
		w.must(err)
		w.wantDead(a.LeaseID, api.ReasonIdentityRevoked)
		w.wantDead(b.LeaseID, api.ReasonIdentityRevoked)
		w.wantStatus(other.LeaseID, api.LeaseActive)
	})
}

func TestUndelivered(t *testing.T) {
	inWorld(t, func(w *world) {
		made := w.issue(w.caller("app"), "one", "app")
		w.leases.Undelivered(context.Background(), tenant, made.LeaseID)
		time.Sleep(time.Second)
		w.wantDead(made.LeaseID, api.ReasonUndelivered)
		w.wantEntry("dynamic_revoke", true, made.LeaseID, "requested")
	})
}

// What is left elsewhere than in the account, which is gone, is a residue until it is gone, too.
func TestResidueElsewhere(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		name := made.Data["username"]
		w.one.Change(name, func(a *leasetest.Account) { a.Stuck, a.Named = true, true })
		_, err := w.leases.Revoke(context.Background(), app, made.LeaseID, time.Minute)
		w.must(err)
		time.Sleep(3 * time.Hour)
		if l := w.wantStatus(made.LeaseID, api.LeaseRevoked); l.Revocation.Residue == "" || l.DueAt == nil {
			t.Errorf("what is left is forgotten: %+v", l.Revocation)
		}
		w.one.Change(name, func(a *leasetest.Account) { a.Stuck = false })
		time.Sleep(2 * time.Hour)
		if l := w.wantDead(made.LeaseID, api.ReasonRevoked); l.Revocation.Residue != "" || l.DueAt != nil {
			t.Errorf("%+v", l)
		}
	})
}

// A residue of what dies later is told from the beginning, and is listed once it is dead, though the
// account that led to it is gone by then.
func TestResidueOfWhatDiesLater(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.Change(made.Data["username"], func(a *leasetest.Account) { a.Stuck = true })
		w.one.SetLag(10 * time.Minute)
		listed := func() int {
			t.Helper()
			list, _, err := w.leases.List(context.Background(), app, lease.Filter{Residue: true}, "", 10)
			w.must(err)
			h, err := w.sources.Health(context.Background(), w.caller("admin"), "one")
			w.must(err)
			if h.Residues != int64(len(list)) {
				t.Errorf("%d residues in health, %d in the list", h.Residues, len(list))
			}
			return len(list)
		}
		pending, err := w.leases.Revoke(context.Background(), app, made.LeaseID, time.Minute)
		w.must(err)
		if pending == nil || pending.Revocation.EffectiveAt == nil || pending.Revocation.Residue == "" {
			t.Fatalf("%+v", pending)
		}
		if n := listed(); n != 0 {
			t.Errorf("%d residues of the dead are listed, and it lives", n)
		}
		time.Sleep(15 * time.Minute)
		if l := w.wantStatus(made.LeaseID, api.LeaseRevoked); l.Revocation.Residue == "" || l.DueAt == nil {
			t.Errorf("%+v", l.Revocation)
		}
		if n := listed(); n != 1 {
			t.Errorf("%d residues are listed, want 1", n)
		}
	})
}

// What keeps the empty account is named, and the drop is tried on until it works.
func TestResidue(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		name := made.Data["username"]
		w.one.Change(name, func(a *leasetest.Account) { a.Stuck = true })
		pending, err := w.leases.Revoke(context.Background(), app, made.LeaseID, time.Minute)
		w.must(err)
		if l := w.wantStatus(made.LeaseID, api.LeaseRevoked); pending != nil || l.Revocation.Residue == "" || l.DueAt == nil {
			t.Fatalf("%+v", l)
		}
		if w.one.CanLogin(name) {
			t.Error("the residue has power")
		}
		residues := func() int {
			t.Helper()
			list, _, err := w.leases.List(context.Background(), app, lease.Filter{Residue: true}, "", 10)
			w.must(err)
			h, err := w.sources.Health(context.Background(), w.caller("admin"), "one")
			w.must(err)
			if h.Residues != int64(len(list)) {
				t.Errorf("%d residues in health, %d in the list", h.Residues, len(list))
			}
			return len(list)
		}
		w.issue(app, "one", "app")
		if n := residues(); n != 1 {
			t.Errorf("%d residues are listed, want 1", n)
		}
		time.Sleep(3 * time.Hour)
		w.one.Change(name, func(a *leasetest.Account) { a.Stuck = false })
		time.Sleep(2 * time.Hour)
		if n := residues(); n != 0 {
			t.Errorf("%d residues are listed after the drop", n)
		}
		if l := w.wantDead(made.LeaseID, api.ReasonRevoked); l.Revocation.Residue != "" || l.DueAt != nil {
			t.Errorf("%+v", l)
		}
	})
}
