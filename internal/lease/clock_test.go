package lease_test

import (
	"context"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
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
