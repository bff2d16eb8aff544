package lease_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

// dieAt kills the process at its nth write of a kind from now on: before it, or just after.
func (w *world) dieAt(kind string, n int64, after bool) {
	var left atomic.Int64
	left.Store(n)
	p := w.process
	hook := func(k string) error {
		if k == kind && left.Add(-1) == 0 {
			p.die()
			return lostStore()
		}
		return nil
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	if after {
		p.store.after = hook
	} else {
		p.store.before = hook
	}
}

// dieIn kills the process while a source does its work.
func (w *world) dieIn(op string, f leasetest.Fault) {
	p, do := w.process, once(op, f)
	w.one.SetFault(func(c leasetest.Call) leasetest.Fault {
		f := do(c)
		if f != (leasetest.Fault{}) {
			p.die()
		}
		return f
	})
}

// The points of the crash matrix of an issuance.
func TestCrashIssuing(t *testing.T) {
	t.Parallel()
	const (
		nothing     = "nothing"
		closed      = "closed"
		unconfirmed = "unconfirmed"
		active      = "active"
	)
	for name, tt := range map[string]struct {
		crash func(w *world)
		want  string
	}{
		"F1 before the intent is durable":          {func(w *world) { w.dieAt("write", 1, false) }, nothing},
		"F2 source not touched":                    {func(w *world) { w.dieAt("write", 1, true) }, closed},
		"F3 sent, not executed":                    {func(w *world) { w.dieIn("issue", leasetest.Fault{Kind: leasetest.LoseBefore}) }, closed},
		"F3 sent, executed before the deadline":    {func(w *world) { w.dieIn("issue", leasetest.Fault{Kind: leasetest.Late, Delay: 5 * time.Second}) }, unconfirmed},
		"F3 sent, executed long after":             {func(w *world) { w.dieIn("issue", leasetest.Fault{Kind: leasetest.Late, Delay: time.Minute}) }, closed},
		"F4 half an account":                       {func(w *world) { w.dieIn("issue", leasetest.Fault{Kind: leasetest.HalfMade}) }, closed},
		"F5 committed, answer lost":                {func(w *world) { w.dieIn("issue", leasetest.Fault{Kind: leasetest.LoseAfter}) }, unconfirmed},
		"F6 made, not confirmed":                   {func(w *world) { w.dieAt("relaxed", 1, false) }, unconfirmed},
		"F7 confirmed":                             {func(w *world) { w.dieAt("relaxed", 1, true) }, active},
		"F8 answer not sent, or F9 sent by halves": {func(*world) {}, active},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				app := w.caller("app")
				tt.crash(w)
				_, err := w.tryIssue(app, "one", "app")
				if (err != nil) != (tt.want != active || name[:2] == "F7") {
					t.Fatalf("issue: %v", err)
				}
				w.die()
				w.restart()
				time.Sleep(20 * time.Second)
				switch tt.want {
				case nothing:
					if n := len(w.rows()); n != 0 {
						t.Errorf("%d leases", n)
					}
				case closed:
					w.wantDead(w.only().ID, api.ReasonIssueFailed)
					w.wantEntry("dynamic_generate", false, w.only().ID, "failed")
				default:
					l := w.wantStatus(w.only().ID, api.LeaseActive)
					if l.Unconfirmed != (tt.want == unconfirmed) {
						t.Errorf("unconfirmed is %t", l.Unconfirmed)
					}
					if !w.one.CanLogin(l.Username) {
						t.Error("the caller may hold it, and it does not work")
					}
					if l.Unconfirmed {
						w.wantEntry("dynamic_generate", true, l.ID, "recovered")
					}
					time.Sleep(time.Until(l.ExpiresAt) + time.Second)
					w.wantDead(l.ID, api.ReasonExpired)
				}
				time.Sleep(15 * time.Minute)
				w.wantAccounts(0)
				for _, l := range w.rows() {
					if l.DueAt != nil {
						t.Errorf("still due: %+v", l)
					}
				}
			})
		})
	}
}

// Whatever point a revocation is cut off at, it ends dead and closed, with at most one extra drop.
func TestCrashRevoking(t *testing.T) {
	t.Parallel()
	for name, crash := range map[string]func(w *world){
		"R1 marked":               func(w *world) { w.dieAt("write", 1, true) },
		"R1 claimed":              func(w *world) { w.dieAt("write", 2, true) },
		"R2 sent, not executed":   func(w *world) { w.dieIn("revoke", leasetest.Fault{Kind: leasetest.LoseBefore}) },
		"R2 sent, executed":       func(w *world) { w.dieIn("revoke", leasetest.Fault{Kind: leasetest.LoseAfter}) },
		"R3 dead, not closed":     func(w *world) { w.dieAt("write", 3, false) },
		"R4 closed, not answered": func(w *world) { w.dieAt("write", 3, true) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				app := w.caller("app")
				made := w.issue(app, "one", "app")
				crash(w)
				_, _ = w.leases.Revoke(context.Background(), app, made.LeaseID, 5*time.Second)
				w.die()
				w.restart()
				time.Sleep(time.Second)
				w.wantDead(made.LeaseID, api.ReasonRevoked)
				w.wantEntry("dynamic_revoke", true, made.LeaseID, "revoked")
				if n := w.one.Count("revoke"); n > 2 {
					t.Errorf("%d drops", n)
				}
			})
		})
	}
}

// Whatever point a renewal is cut off at, the source ends up with the end that the lease has.
func TestCrashRenewing(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		crash func(w *world)
		moved bool
	}{
		"N1 pending":                     {func(w *world) { w.dieAt("write", 1, true) }, false},
		"N2 sent, not executed":          {func(w *world) { w.dieIn("renew", leasetest.Fault{Kind: leasetest.LoseBefore}) }, false},
		"N2 moved at the source":         {func(w *world) { w.dieIn("renew", leasetest.Fault{Kind: leasetest.LoseAfter}) }, false},
		"N3 not written down":            {func(w *world) { w.dieAt("write", 2, false) }, false},
		"N3 written down, not answered":  {func(w *world) { w.dieAt("write", 2, true) }, true},
		"the answer of the source lost":  {func(w *world) { w.one.SetFault(once("renew", leasetest.Fault{Kind: leasetest.LoseAfter})) }, false},
		"the store lost between the two": {func(w *world) { failAt(w, "write", 2) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				app := w.caller("app")
				made := w.issue(app, "one", "app")
				tt.crash(w)
				longer := api.Duration(4 * time.Hour)
				if _, err := w.leases.Renew(context.Background(), app, made.LeaseID, api.RenewRequest{Increment: &longer}); err == nil {
					t.Fatal("renewed")
				}
				w.die()
				w.restart()
				time.Sleep(20 * time.Second)
				l := w.wantStatus(made.LeaseID, api.LeaseActive)
				if l.PendingExpiresAt != nil || l.ExpiresAt.Equal(made.ExpiresAt) == tt.moved {
					t.Errorf("%+v", l)
				}
				if a := w.one.Account(l.Username); !a.Until.Equal(l.ExpiresAt) {
					t.Errorf("the source ends it at %s, the lease at %s", a.Until, l.ExpiresAt)
				}
				time.Sleep(time.Until(l.ExpiresAt) + time.Second)
				w.wantDead(made.LeaseID, api.ReasonExpired)
			})
		})
	}
}

// failAt makes the nth write of a kind fail, once.
func failAt(w *world, kind string, n int64) {
	var left atomic.Int64
	left.Store(n)
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.before = func(k string) error {
		if k == kind && left.Add(-1) == 0 {
			return lostStore()
		}
		return nil
	}
}

// The store is lost when the account is made: what nobody was given is revoked when it is back,
// although the confirmation may have been kept, or a recovery may have found the account meanwhile.
func TestConfirmLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w *world, lost func(kind string) error){
		"not kept": func(w *world, lost func(string) error) { w.store.before = lost },
		"kept":     func(w *world, lost func(string) error) { w.store.after = lost },
		"found meanwhile": func(w *world, lost func(string) error) {
			w.store.before = func(kind string) error {
				err := lost(kind)
				if err != nil {
					time.Sleep(time.Minute)
				}
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				var once sync.Once
				w.store.mu.Lock()
				lose(w, func(kind string) (err error) {
					if kind == "relaxed" {
						once.Do(func() { err = lostStore() })
					}
					return err
				})
				w.store.mu.Unlock()
				if _, err := w.tryIssue(w.caller("app"), "one", "app"); err == nil {
					t.Fatal("given without a record")
				}
				time.Sleep(20 * time.Second)
				w.wantAccounts(0)
				w.wantDead(w.only().ID, api.ReasonIssueFailed)
			})
		})
	}
}

// A start takes up what is due and does not read what is not.
func TestExpiryWhileDown(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made, later := w.issue(app, "one", "short"), w.issue(app, "one", "app")
		w.die()
		time.Sleep(time.Minute)
		w.restart()
		time.Sleep(time.Second)
		w.wantDead(made.LeaseID, api.ReasonExpired)
		w.wantStatus(later.LeaseID, api.LeaseActive)
	})
}
