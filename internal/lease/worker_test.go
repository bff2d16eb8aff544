package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

// Expiry comes at its moment, not at the scheduler's next look.
func TestExpiryIsPunctual(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		for _, life := range []time.Duration{time.Second, 7 * time.Second, 59 * time.Second, 61 * time.Second, 10 * time.Minute} {
			made := w.issue(app, "one", "app", life)
			time.Sleep(life - 10*time.Millisecond)
			w.wantStatus(made.LeaseID, api.LeaseActive)
			time.Sleep(20 * time.Millisecond)
			w.wantDead(made.LeaseID, api.ReasonExpired)
		}
	})
}

// What a worker puts off comes at its moment, too, though the scheduler went to sleep before.
func TestRetryIsPunctual(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		made := w.issue(app, "one", "app")
		w.one.SetFault(once("revoke", leasetest.Fault{Kind: leasetest.Busy}))
		pending, err := w.leases.Revoke(context.Background(), app, made.LeaseID, 0)
		w.must(err)
		if pending == nil {
			t.Fatal("not refused")
		}
		time.Sleep(2 * time.Second)
		w.wantDead(made.LeaseID, api.ReasonRevoked)
	})
}

// A dead source costs one probe, and delays nobody else's leases; when it is back, all of it is done.
func TestDeadSourceDelaysNobodyElse(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		var dead, living []*api.Credential
		for range 50 {
			dead = append(dead, w.issue(app, "one", "app", time.Minute))
		}
		time.Sleep(time.Second) // the dead source's are due first
		for range 50 {
			living = append(living, w.issue(app, "two", "app", time.Minute))
		}
		w.one.SetFault(always(leasetest.Fault{Delay: time.Hour})) // answers nothing at all
		time.Sleep(time.Minute + 100*time.Millisecond)
		for _, c := range living {
			w.wantDead(c.LeaseID, api.ReasonExpired)
		}
		before := w.one.Count("revoke")
		time.Sleep(30 * time.Minute)
		if n := w.one.Count("revoke") - before; n > 200 {
			t.Errorf("%d attempts at a dead source in half an hour", n)
		}
		w.one.SetFault(nil)
		time.Sleep(30 * time.Second)
		for _, c := range dead {
			w.wantDead(c.LeaseID, api.ReasonExpired)
		}
	})
}

// A write of the store that fails, or is done and not answered, delays a death by seconds and not until
// the claim runs out: what the worker claimed and could not write down it claims again.
func TestLostWriteDelaysNoDeath(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"works", "is busy once", "is lost once"} {
		for _, write := range []string{"not done", "not answered"} {
			t.Run(source+"/"+write, func(t *testing.T) {
				inWorld(t, func(w *world) {
					app := w.caller("app")
					for lost := 1; ; lost++ {
						made := w.issue(app, "one", "app", time.Minute)
						time.Sleep(time.Minute - 100*time.Millisecond)
						switch source {
						case "is busy once":
							w.one.SetFault(once("revoke", leasetest.Fault{Kind: leasetest.Busy}))
						case "is lost once":
							w.one.SetFault(once("revoke", leasetest.Fault{Kind: leasetest.LoseBefore}))
						}
						var writes atomic.Int64
						fail := func(string) error {
							if writes.Add(1) == int64(lost) {
								return lostStore()
							}
							return nil
						}
						w.store.mu.Lock()
						if write == "not done" {
							w.store.before = fail
						} else {
							w.store.after = fail
						}
						w.store.mu.Unlock()
						time.Sleep(6 * time.Second)
						w.wantDead(made.LeaseID, api.ReasonExpired)
						w.store.mu.Lock()
						w.store.before, w.store.after = nil, nil
						w.store.mu.Unlock()
						if int(writes.Load()) < lost {
							if lost < 3 {
								t.Errorf("a death took %d writes", writes.Load())
							}
							return
						}
						time.Sleep(time.Hour)
					}
				})
			})
		}
	}
}

// An engine without any optional interface keeps the same laws.
func TestBareEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.kind.Bare = true
		app := w.caller("app")
		a, b := w.issue(app, "one", "app"), w.issue(app, "one", "app")
		longer := api.Duration(2 * time.Hour)
		l, err := w.leases.Renew(context.Background(), app, a.LeaseID, api.RenewRequest{Increment: &longer})
		w.must(err)
		if !l.ExpiresAt.Equal(l.IssuedAt.Add(2 * time.Hour)) {
			t.Errorf("%+v", l)
		}
		if _, err := w.leases.RevokePrefix(context.Background(), w.caller("admin"), "one", time.Minute); err != nil {
			t.Fatal(err)
		}
		w.wantDead(a.LeaseID, api.ReasonPrefix)
		w.wantDead(b.LeaseID, api.ReasonPrefix)
		_, err = w.leases.Reconcile(context.Background(), w.caller("admin"), "one", lease.RemoveNone)
		w.wantCode(err, fault.InvalidConfig)
	})
}

// Many at once go in batches, more than one claim holds.
func TestManyAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		for range 450 {
			w.issue(app, "one", "app")
		}
		result, err := w.leases.RevokePrefix(context.Background(), w.caller("admin"), "one", time.Minute)
		w.must(err)
		if result.Matched != 450 || result.Revoked != 450 {
			t.Errorf("%+v", result)
		}
		w.wantAccounts(0)
	})
}

// Failures of an issuance that leave nothing close the lease at once; the code tells who is to blame.
func TestIssueFails(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		f    leasetest.Fault
		want fault.Code
	}{
		"refused":      {leasetest.Fault{Kind: leasetest.Refuse}, fault.EngineError},
		"unreachable":  {leasetest.Fault{Kind: leasetest.Unreachable}, fault.EngineUnavailable},
		"busy":         {leasetest.Fault{Kind: leasetest.Busy}, fault.EngineUnavailable},
		"lost before":  {leasetest.Fault{Kind: leasetest.LoseBefore}, fault.EngineUnavailable},
		"lost after":   {leasetest.Fault{Kind: leasetest.LoseAfter}, fault.EngineUnavailable},
		"late":         {leasetest.Fault{Kind: leasetest.Late, Delay: 2 * time.Minute}, fault.EngineUnavailable},
		"half made":    {leasetest.Fault{Kind: leasetest.HalfMade}, fault.EngineUnavailable},
		"never answer": {leasetest.Fault{Delay: time.Hour}, fault.EngineUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.one.SetFault(once("issue", tt.f))
				app := w.caller("app")
				_, err := w.tryIssue(app, "one", "app")
				w.wantCode(err, tt.want)
				w.wantEntry("dynamic_generate", false, w.only().ID, "failed")
				time.Sleep(3 * time.Minute)
				w.wantDead(w.only().ID, api.ReasonIssueFailed)
				time.Sleep(15 * time.Minute)
				if l := w.only(); l.DueAt != nil {
					t.Errorf("%+v", l)
				}
				w.wantAccounts(0)
			})
		})
	}
}

// A name that the source knows is left alone, and another one is drawn.
func TestNameTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		w.one.SetFault(once("issue", leasetest.Fault{Kind: leasetest.Taken}))
		made := w.issue(app, "one", "app")
		if taken := w.one.Taken(); len(taken) != 1 || !w.one.CanLogin(taken[0]) || taken[0] == made.Data["username"] {
			t.Errorf("taken: %v", taken)
		}
		if l := w.row(made.LeaseID); l.Username != made.Data["username"] || !w.one.CanLogin(l.Username) {
			t.Errorf("%+v", l)
		}
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Taken}, "issue"))
		_, err := w.tryIssue(app, "one", "app")
		w.wantCode(err, fault.EngineError)
		time.Sleep(time.Hour + time.Second)
		w.wantAccounts(4) // somebody else's
	})
}

func TestIssueRefusals(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		for _, tt := range []struct {
			engine, role string
			ttl          time.Duration
			want         fault.Code
		}{
			{"no", "app", 0, fault.EngineNotFound},
			{"one", "no", 0, fault.RoleNotFound},
			{"one", "app", 9 * time.Hour, fault.InvalidDuration},
			{"one", "short", time.Minute, fault.InvalidDuration},
		} {
			var ttl []time.Duration
			if tt.ttl > 0 {
				ttl = append(ttl, tt.ttl)
			}
			_, err := w.tryIssue(app, tt.engine, tt.role, ttl...)
			w.wantCode(err, tt.want)
		}
		_, err := w.tryIssue(w.caller("read"), "one", "app")
		w.wantCode(err, fault.AccessDenied)
		_, err = w.tryIssue(w.caller("app", "dynamic:read"), "one", "app")
		w.wantCode(err, fault.InsufficientScope)

		_, err = w.leases.Issue(context.Background(), app, "one", "app", api.CredsRequest{Metadata: map[string]string{"": "x"}}, nil)
		w.wantCode(err, fault.InvalidRequest)

		w.issue(app, "one", "few")
		second := w.issue(app, "one", "few")
		_, err = w.tryIssue(app, "one", "few")
		w.wantCode(err, fault.LeaseQuotaExceeded)
		_, err = w.leases.Revoke(context.Background(), app, second.LeaseID, time.Minute)
		w.must(err)
		w.issue(app, "one", "few")
		if n := len(w.one.Accounts()); n != 2 {
			t.Errorf("%d accounts: %s", n, fmt.Sprint(w.one.Accounts()))
		}
	})
}
