package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/store"
)

// aheadTx and aheadReader have a clock of their own, as the database of a shared store has.
type (
	aheadTx struct {
		store.Tx
		by time.Duration
	}
	aheadReader struct {
		store.Reader
		by time.Duration
	}
)

func (t aheadTx) Now() time.Time     { return t.Tx.Now().Add(t.by) }
func (r aheadReader) Now() time.Time { return r.Reader.Now().Add(r.by) }

// The store's clock decides about a life; the source is told, and waited for, in this node's time.
func TestClockOfTheStore(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.ahead = by
				w.restart()
				app := w.caller("app")
				made := w.issue(app, "one", "app", 10*time.Minute)
				if off := made.IssuedAt.Sub(time.Now().Add(by)).Abs(); off > time.Second {
					t.Errorf("issued %s from the store's clock", off)
				}
				wantUntil := func(life time.Duration) {
					t.Helper()
					if off := time.Until(w.one.Account(w.row(made.LeaseID).Username).Until) - life; off.Abs() > time.Second {
						t.Errorf("the source ends it %s off", off)
					}
				}
				wantUntil(10 * time.Minute)
				_, err := w.leases.Renew(context.Background(), app, made.LeaseID, increment(20*time.Minute))
				w.must(err)
				wantUntil(20 * time.Minute)

				time.Sleep(20*time.Minute - 2*time.Second)
				w.wantStatus(made.LeaseID, api.LeaseActive)
				time.Sleep(4 * time.Second)
				w.wantDead(made.LeaseID, api.ReasonExpired)
			})
		})
	}
}

const years = 10 * 365 * 24 * time.Hour

// jump sets the store's clock while the process runs, and for its next starts.
func (w *world) jump(to time.Duration) {
	w.ahead = to
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.ahead = to
}

func (w *world) wantClock(state string) {
	w.t.Helper()
	shown, err := w.clock.State(context.Background())
	w.must(err)
	if shown.State != state {
		w.t.Fatalf("the clock is %+v, want %s", shown, state)
	}
}

// The store's clock jumps by years, while the process runs or between two runs: a lease ends when
// its time has passed, neither sooner nor later, and what is issued meanwhile lives as long as it may.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"forward": years, "back": -years} {
		for _, restart := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " between two runs"}[restart], func(t *testing.T) {
				inWorld(t, func(w *world) {
					app := w.caller("app")
					made := w.issue(app, "one", "app", time.Hour)
					dead := w.issue(app, "one", "app", time.Minute)
					time.Sleep(10 * time.Minute)
					w.wantDead(dead.LeaseID, api.ReasonExpired)
					w.jump(by)
					if restart {
						w.restart()
					}
					time.Sleep(65 * time.Second) // the clock is looked at each minute, if nobody asks what time it is
					w.wantStatus(made.LeaseID, api.LeaseActive)
					w.wantStatus(dead.LeaseID, api.LeaseRevoked)
					w.wantClock("shifted")
					next := w.issue(app, "one", "app", 2*time.Hour)
					_, err := w.leases.Renew(context.Background(), app, next.LeaseID, increment(100*time.Hour))
					w.must(err)
					if until := time.Until(w.one.Account(next.Data["username"]).Until); until > 8*time.Hour || until < 7*time.Hour {
						t.Errorf("the source ends it in %s, want 8 h", until)
					}
					time.Sleep(49*time.Minute - 15*time.Second)
					w.wantStatus(made.LeaseID, api.LeaseActive)
					time.Sleep(15 * time.Second)
					w.wantDead(made.LeaseID, api.ReasonExpired)
					w.wantStatus(next.LeaseID, api.LeaseActive)

					w.jump(0)
					time.Sleep(2 * time.Minute)
					w.wantClock("ok")
					w.wantStatus(next.LeaseID, api.LeaseActive)
					time.Sleep(8 * time.Hour)
					w.wantDead(next.LeaseID, api.ReasonExpired)
				})
			})
		}
	}
}

// Time that passed for the store and for a source has passed: the machine slept, or was off.
func TestClockConfirmedBySource(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{true: "off", false: "slept"}[restart], func(t *testing.T) {
			inWorld(t, func(w *world) {
				app := w.caller("app")
				w.one.SetClock(-3 * time.Hour) // it is wrong, and always was
				made, other := w.issue(app, "one", "app", time.Hour), w.issue(app, "two", "app", time.Hour)
				time.Sleep(time.Minute)
				w.jump(5 * time.Hour)
				w.one.SetClock(2 * time.Hour)
				w.two.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
				if restart {
					w.restart()
				}
				time.Sleep(65 * time.Second)
				w.wantDead(made.LeaseID, api.ReasonExpired)
				w.wantClock("ok")
				w.two.SetFault(nil)
				time.Sleep(10 * time.Second)
				w.wantDead(other.LeaseID, api.ReasonExpired)
			})
		})
	}
}

// Without a source that answers a clock that went forward is held, until an administrator confirms it.
func TestClockConfirmedByAdministrator(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app := context.Background(), w.caller("app")
		made := w.issue(app, "one", "app", time.Hour)
		time.Sleep(time.Minute)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		w.jump(years)
		time.Sleep(65 * time.Second) // as above
		w.wantClock("held")
		w.wantStatus(made.LeaseID, api.LeaseActive)
		if shown, err := w.clock.State(ctx); err != nil || shown.HeldLeases != 1 {
			t.Errorf("%+v, %v: want one lease held", shown, err)
		}
		_, err := w.tryIssue(app, "two", "app")
		w.wantCode(err, fault.ServiceUnavailable)
		_, err = w.leases.Renew(ctx, app, made.LeaseID, increment(time.Hour))
		w.wantCode(err, fault.ServiceUnavailable)
		_, err = w.clock.Confirm(ctx, app)
		w.wantCode(err, fault.AccessDenied)
		_, err = w.clock.Confirm(ctx, w.caller("admin"))
		w.must(err)
		w.wantClock("ok")
		w.one.SetFault(nil)
		time.Sleep(10 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonExpired)
		later := w.issue(app, "one", "app", time.Hour)

		w.jump(0) // what was confirmed was wrong: it cannot be taken back while something lives by it
		time.Sleep(2 * time.Minute)
		w.wantClock("shifted")
		_, err = w.clock.Confirm(ctx, w.caller("admin"))
		w.wantCode(err, fault.EngineInUse)
		_, err = w.leases.Revoke(ctx, app, later.LeaseID, time.Minute)
		w.must(err)
		_, err = w.clock.Confirm(ctx, w.caller("admin"))
		w.must(err)
		w.wantClock("ok")
		w.wantStatus(w.issue(app, "one", "app").LeaseID, api.LeaseActive)
	})
}

// wantEnd wants the lease to live until this long from now, and no longer.
func (w *world) wantEnd(id string, in time.Duration) {
	w.t.Helper()
	time.Sleep(in - 2*time.Second)
	w.wantStatus(id, api.LeaseActive)
	time.Sleep(5 * time.Second)
	w.wantDead(id, api.ReasonExpired)
}

// The process is killed 40 s after the time was recorded, and the clock is years back when it starts
// again: nothing is issued until a source tells how much time passed, however often it starts. An answer that
// took long tells nothing.
func TestClockLagsAfterKill(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app", time.Hour)
		time.Sleep(10*time.Minute + 40*time.Second)
		w.die()
		w.jump(-years)
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		w.restart()
		time.Sleep(5 * time.Second)
		w.wantClock("held")
		w.die()
		w.restart()
		time.Sleep(5 * time.Second)
		w.wantClock("held")
		_, err := w.tryIssue(app, "two", "app")
		w.wantCode(err, fault.ServiceUnavailable)
		w.one.SetFault(once("now", leasetest.Fault{Answer: 10 * time.Second}))
		time.Sleep(20 * time.Second)
		w.wantClock("shifted")
		w.issue(app, "two", "app")
		w.wantEnd(made.LeaseID, 49*time.Minute-10*time.Second)
	})
}

// As above, with sources that do not tell the time: the agreed time lags, and what was issued by it
// keeps its life when the clock comes right.
func TestClockLagsWithoutWitness(t *testing.T) {
	inWorld(t, func(w *world) {
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.LoseBefore}, "now"))
		app := w.caller("app")
		w.issue(app, "one", "app", 3*time.Hour)
		time.Sleep(10*time.Minute + 40*time.Second)
		w.die()
		w.jump(-years)
		w.restart()
		w.wantClock("shifted")
		made := w.issue(app, "one", "app", time.Hour)
		time.Sleep(time.Minute)
		w.jump(0)
		w.wantEnd(made.LeaseID, 59*time.Minute)
	})
}

// Where nothing waits, the clock is taken as it is. What was known of a source's clock says nothing then.
func TestClockJumpsIdle(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		gone := w.issue(app, "one", "app", time.Hour)
		_, err := w.leases.Revoke(context.Background(), app, gone.LeaseID, time.Minute)
		w.must(err)
		w.jump(-years)
		time.Sleep(65 * time.Second)
		w.wantClock("ok")
		made := w.issue(app, "two", "app", time.Hour)
		time.Sleep(10 * time.Second) // in which the source's clock is recorded
		w.jump(-2 * years)
		w.two.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}))
		w.restart()
		time.Sleep(10 * time.Second)
		w.wantStatus(made.LeaseID, api.LeaseActive)
		w.wantClock("held")
		w.two.SetFault(nil)
		w.wantEnd(made.LeaseID, time.Hour-20*time.Second)
	})
}
