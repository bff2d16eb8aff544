package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// together runs functions so that a store which groups writes has the chance to: they all wait
// while the first one is at work.
func (b *bundle) together(t *testing.T, fns ...func(tx store.Tx) error) []error {
	t.Helper()
	busy, going := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		once := sync.OnceFunc(func() { close(busy); <-going })
		if err := b.Write(context.Background(), func(store.Tx) error { once(); return nil }); err != nil {
			t.Error(err)
		}
	})
	<-busy
	errs := make([]error, len(fns))
	var queued sync.WaitGroup
	for i, fn := range fns {
		queued.Add(1)
		wg.Go(func() {
			queued.Done()
			errs[i] = b.Write(context.Background(), fn)
		})
	}
	queued.Wait()
	close(going)
	wg.Wait()
	return errs
}

// An error undoes what its function did, and nothing of the others; it is returned as it is.
func writeUndo(t *testing.T, b *bundle) {
	boom := errors.New("boom")
	var leases []*store.Lease
	var fns []func(tx store.Tx) error
	for i := range 40 {
		l := lease()
		leases = append(leases, l)
		fns = append(fns, func(tx store.Tx) error {
			if err := tx.InsertLease(l); err != nil {
				return err
			}
			if _, err := tx.Lease(tenant, l.ID); err != nil {
				return fmt.Errorf("own write: %w", err)
			}
			if err := tx.PutObject(object(store.KindRole, l.ID, l.ID, `{}`), 0); err != nil {
				return err
			}
			if err := tx.Audit(tenant, entry(l.ID)); err != nil {
				return err
			}
			if i%2 == 1 {
				return boom
			}
			return nil
		})
	}
	for i, err := range b.together(t, fns...) {
		if i%2 == 0 && err != nil || i%2 == 1 && !errors.Is(err, boom) {
			t.Errorf("write %d: %v", i, err)
		}
	}
	rows, _ := b.verify(t)
	if len(rows) != 20 || len(b.Config().List(tenant, store.KindRole, "")) != 20 {
		t.Errorf("%d entries and %d objects, want 20", len(rows), len(b.Config().List(tenant, store.KindRole, "")))
	}
	b.read(t, func(r store.Reader) {
		for i, l := range leases {
			if _, err := r.Lease(tenant, l.ID); (err == nil) != (i%2 == 0) {
				t.Errorf("lease %d: %v", i, err)
			}
		}
		if c := value[[]store.LeaseCount](t)(r.LeaseCounts("eng_a")); len(c) != 1 || c[0].N != 20 {
			t.Errorf("counts: %v", c)
		}
	})
}

// A panic is an error of its own caller, undone like one; its value is shown to nobody.
func writePanic(t *testing.T, b *bundle) {
	bad, good := lease(), lease()
	errs := b.together(t,
		func(tx store.Tx) error {
			if err := tx.InsertLease(bad); err != nil {
				return err
			}
			panic("hunter2")
		},
		func(tx store.Tx) error { return tx.InsertLease(good) })
	wantCode(t, errs[0], fault.InternalError)
	for err := errs[0]; err != nil; err = errors.Unwrap(err) {
		if text := err.Error(); strings.Contains(text, "hunter2") {
			t.Errorf("the panic's value is in the error: %s", text)
		}
	}
	must(t, errs[1])
	b.read(t, func(r store.Reader) {
		_, err := r.Lease(tenant, bad.ID)
		wantCode(t, err, fault.LeaseNotFound)
		_, err = r.Lease(tenant, good.ID)
		must(t, err)
	})
}

// A context that ends before the function runs leaves nothing behind.
func writeCancelled(t *testing.T, b *bundle) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, write := range map[string]func(context.Context, func(store.Tx) error) error{
		"Write": b.Write, "WriteRelaxed": b.WriteRelaxed,
	} {
		err := write(ended, func(store.Tx) error { t.Errorf("%s: the function ran", name); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.Read(ended, func(store.Reader) error { t.Error("the reader ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}

	// One that ends while the function waits behind another.
	waiting, cancel := context.WithCancel(t.Context())
	ran := false
	busy, going, gone := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		once := sync.OnceFunc(func() { close(busy); <-going })
		if err := b.Write(context.Background(), func(store.Tx) error { once(); return nil }); err != nil {
			t.Error(err)
		}
	})
	<-busy
	wg.Go(func() { gone <- b.Write(waiting, func(store.Tx) error { ran = true; return nil }) })
	cancel()
	err := <-gone
	close(going)
	wg.Wait()
	b.insert(t, lease()) // whatever was queued has been run by now
	if !errors.Is(err, context.Canceled) || ran {
		t.Errorf("write that gave up: %v, ran: %v", err, ran)
	}

	// Once it runs, the outcome is waited for.
	during, cancel := context.WithCancel(t.Context())
	l := lease()
	must(t, b.Write(during, func(tx store.Tx) error { cancel(); return tx.InsertLease(l) }))
}

// A relaxed write is seen by every reader when it returns, and is part of the same order.
func writeRelaxed(t *testing.T, b *bundle) {
	l := lease()
	must(t, b.WriteRelaxed(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.InsertLease(l), tx.Audit(tenant, entry("x")))
	}))
	b.read(t, func(r store.Reader) { value[*store.Lease](t)(r.Lease(tenant, l.ID)) })
	b.update(t, l.ID, func(l *store.Lease) { l.Status = api.LeaseActive })
	must(t, b.WriteRelaxed(t.Context(), func(tx store.Tx) error {
		_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error {
			if l.Status != api.LeaseActive {
				t.Errorf("status = %s", l.Status)
			}
			l.Status = api.LeaseRevoking
			return nil
		})
		return err
	}))
	must(t, b.Ping(t.Context()))
	b.reopen(t)
	b.read(t, func(r store.Reader) {
		if got := value[*store.Lease](t)(r.Lease(tenant, l.ID)); got.Status != api.LeaseRevoking {
			t.Errorf("status after a restart = %s", got.Status)
		}
	})
	b.verify(t)
}

// 32 writers at once: nothing lost, nothing doubled, no update lost, the chain whole.
func writeConcurrent(t *testing.T, b *bundle) {
	const writers, each = 32, 20
	shared := object(store.KindPolicy, "shared", "shared", `0`)
	b.write(t, put(shared, 0))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l := lease()
				write := b.Write
				if i%3 == 0 {
					write = b.WriteRelaxed
				}
				err := write(context.Background(), func(tx store.Tx) error {
					if err := tx.InsertLease(l); err != nil {
						return err
					}
					if err := tx.Audit(tenant, entry("x")); err != nil {
						return err
					}
					return tx.UpdateObject(tenant, store.KindPolicy, "shared", func(o *store.Object) error {
						var n int
						if _, err := fmt.Sscan(string(o.Doc), &n); err != nil {
							return err
						}
						o.Doc = fmt.Append(nil, n+1)
						return nil
					})
				})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				err = b.Read(context.Background(), func(r store.Reader) error {
					_, err := r.Lease(tenant, l.ID)
					return err
				})
				if err != nil {
					t.Errorf("writer %d reads its own lease: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	if got := string(b.Config().ByKey(tenant, store.KindPolicy, "shared").Doc); got != fmt.Sprint(writers*each) {
		t.Errorf("counter = %s, want %d", got, writers*each)
	}
	if rows, _ := b.verify(t); len(rows) != writers*each {
		t.Errorf("%d entries", len(rows))
	}
	b.read(t, func(r store.Reader) {
		if c := value[[]store.LeaseCount](t)(r.LeaseCounts("")); len(c) != 1 || c[0].N != writers*each {
			t.Errorf("counts: %v", c)
		}
	})
}

// A reader sees one state throughout, whatever is committed meanwhile.
func writeSnapshot(t *testing.T, b *bundle) {
	first, second := lease(), lease()
	b.insert(t, first)
	b.read(t, func(r store.Reader) {
		if n := len(value[[]*store.Lease](t)(r.Leases(store.LeaseFilter{}, "", 0))); n != 1 {
			t.Fatalf("%d leases", n)
		}
		b.insert(t, second)
		if n := len(value[[]*store.Lease](t)(r.Leases(store.LeaseFilter{}, "", 0))); n != 1 {
			t.Errorf("%d leases in the snapshot after a commit", n)
		}
		if d := time.Since(r.Now()).Abs(); d > time.Hour || r.Now().Location() != time.UTC || r.Now().Nanosecond()%1000 != 0 {
			t.Errorf("now = %v", r.Now())
		}
	})
	b.write(t, func(tx store.Tx) error {
		wantEqual(t, "leases in a transaction", len(value[[]*store.Lease](t)(tx.Leases(store.LeaseFilter{}, "", 0))), 2)
		return nil
	})
}

func writeMeta(t *testing.T, b *bundle) {
	b.read(t, func(r store.Reader) {
		if v := value[[]byte](t)(r.Meta("keyring")); v != nil {
			t.Errorf("absent value = %v", v)
		}
	})
	b.write(t, func(tx store.Tx) error { return tx.PutMeta("keyring", []byte{1}) })
	b.write(t, func(tx store.Tx) error {
		if v := value[[]byte](t)(tx.Meta("keyring")); len(v) != 1 {
			t.Errorf("value = %v", v)
		}
		return tx.PutMeta("keyring", []byte{0, 255})
	})
	b.reopen(t)
	b.read(t, func(r store.Reader) {
		wantEqual(t, "value", value[[]byte](t)(r.Meta("keyring")), []byte{0, 255})
	})
}

// What was written is there after a restart, under the same ids and a newer epoch.
func lifeReopen(t *testing.T, b *bundle) {
	node, installation, epoch := b.Node(), b.Installation(), b.Epoch()
	if node == "" || installation == "" || node == installation || epoch < 1 {
		t.Errorf("node %q, installation %q, epoch %d", node, installation, epoch)
	}
	l := lease()
	b.insert(t, l)
	b.reopen(t)
	if b.Installation() != installation || b.Epoch() <= epoch {
		t.Errorf("installation %q after %q, epoch %d after %d", b.Installation(), installation, b.Epoch(), epoch)
	}
	b.read(t, func(r store.Reader) {
		wantEqual(t, "lease", value[*store.Lease](t)(r.Lease(tenant, l.ID)), l)
	})
	other := b.opener(t, t.TempDir())
	if other.Installation() == installation {
		t.Error("another store has the same installation id")
	}
}

// A closed store refuses everything, and closing it again is nothing.
func lifeClosed(t *testing.T, b *bundle) {
	must(t, b.Close())
	must(t, b.Close())
	wantCode(t, b.Write(t.Context(), func(store.Tx) error { return nil }), fault.ServiceUnavailable)
	wantCode(t, b.WriteRelaxed(t.Context(), func(store.Tx) error { return nil }), fault.ServiceUnavailable)
	wantCode(t, b.Read(t.Context(), func(store.Reader) error { return nil }), fault.ServiceUnavailable)
	wantCode(t, b.Ping(t.Context()), fault.ServiceUnavailable)
}
