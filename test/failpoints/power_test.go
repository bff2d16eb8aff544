package failpoints_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestPowerLoss takes the shared store away by kill -9 right behind
// confirmations, which are committed there and not flushed: its log is written
// so late that they are lost. Every credential that was answered has its lease
// and the entry of its request all the same, and is usable (F7).
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	rounds := 1
	if full() {
		rounds = 10
	}
	store := pgtest.Start(t, 17, pgtest.WithFsync(), pgtest.WithSetting("wal_writer_delay", "10s"))
	w := newWorld(t, place{store: store, source: pgtest.Shared(t, 17)}, members())
	admin := w.first().Admin(t)
	all, lost := map[string]api.Credential{}, 0
	for range rounds {
		answered := w.askUntilLost(t, admin, store)
		store.Start(t)
		for _, l := range w.unconfirmedNow(t, w.other()) {
			if _, given := answered[l]; given {
				lost++
			}
		}
		maps.Copy(all, answered)
		w.awaitWithdrawn(t, w.other(), all)
		w.settle(t, w.other())
		leases := map[string]api.Lease{}
		for _, l := range w.leases(t, w.other()) {
			leases[l.LeaseID] = l
		}
		for id, c := range answered {
			if l := leases[id]; l.Status != api.LeaseActive {
				t.Errorf("a credential was answered, and its lease is %q: %+v", l.Status, l.Revocation)
			}
			if err := w.login(t, c.Data["username"], c.Data["password"]); err != nil {
				t.Errorf("a credential was answered, and does not log in: %v", err)
			}
		}
		w.compare(t, w.other(), w.leases(t, w.other()))
	}
	t.Logf("power cuts %d, credentials answered %d, of these the confirmation was lost: %d", rounds, len(all), lost)
	w.revokeAll(t, w.first())
}

// askUntilLost lets callers work until the store is killed behind some answers,
// and gives what they were answered, by lease.
func (w *world) askUntilLost(t *testing.T, c *client.Client, store *pgtest.Server) map[string]api.Credential {
	t.Helper()
	const callers, enough = 4, 10
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	var mu sync.Mutex
	var working sync.WaitGroup
	answered := map[string]api.Credential{}
	for range callers {
		working.Go(func() {
			for {
				made, err := w.issue(ctx, c)
				if err != nil {
					return // the store is gone
				}
				mu.Lock()
				answered[made.LeaseID] = made
				mu.Unlock()
			}
		})
	}
	eventually(t, func() string { return "callers are answered" }, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(answered) >= enough
	})
	store.Kill(t)
	working.Wait()
	return answered
}

// awaitWithdrawn waits until what nobody was answered is revoked: no process
// died that could do so.
func (w *world) awaitWithdrawn(t *testing.T, node *vaulttest.Server, answered map[string]api.Credential) {
	t.Helper()
	var living api.Lease
	eventually(t, func() string { return fmt.Sprintf("nobody was answered %+v, and it is revoked", living) }, func() bool {
		for _, l := range w.leases(t, node) {
			if _, given := answered[l.LeaseID]; !given && l.Status != api.LeaseRevoked {
				living = l
				return false
			}
		}
		return true
	})
}

// unconfirmedNow are the leases that the store still takes for being issued,
// once the node reaches it again.
func (w *world) unconfirmedNow(t *testing.T, node *vaulttest.Server) (ids []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	eventually(t, func() string { return "the node reaches its store again" }, func() bool {
		leases, err := client.Collect(node.Admin(t).Leases(ctx, client.LeaseFilter{Status: api.LeaseIssuing}))
		ids = ids[:0]
		for _, l := range leases {
			ids = append(ids, l.LeaseID)
		}
		return err == nil
	})
	return ids
}
