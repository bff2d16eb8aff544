package lock_test

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/lock"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/postgres"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// onBoth runs a test with two handles of one store: of one node, and of two.
func onBoth(t *testing.T, run func(t *testing.T, a, b store.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Chain: storetest.Chain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		run(t, s, s)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := pgtest.Shared(t, 15)
		url := server.SuperURL(server.CreateDB(t))
		run(t, node(t, url, t.TempDir()), node(t, url, t.TempDir()))
	})
}

func node(t *testing.T, url, dir string) store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url, Dir: dir, Chain: storetest.Chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func acquire(t *testing.T, s store.Store, hold time.Duration) *lock.Lock {
	t.Helper()
	l, err := lock.Acquire(t.Context(), s, "x", hold)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func wantHeld(t *testing.T, s store.Store) {
	t.Helper()
	if _, err := lock.Acquire(t.Context(), s, "x", time.Hour); !errors.Is(err, lock.ErrHeld) {
		t.Fatalf("error = %v, want held", err)
	}
}

func guard(s store.Store, l *lock.Lock) error {
	return s.Write(context.Background(), func(tx store.Tx) error { return l.Guard(tx) })
}

// One has it at a time; numbers grow with every holder.
func TestOneHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a, b store.Store) {
		first := acquire(t, a, time.Hour)
		wantHeld(t, a)
		wantHeld(t, b)
		if err := guard(a, first); err != nil {
			t.Error(err)
		}
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := guard(a, first); !errors.Is(err, lock.ErrLost) {
			t.Errorf("a released lock guards: %v", err)
		}
		second := acquire(t, b, time.Hour)
		if second.Number() <= first.Number() {
			t.Errorf("number %d follows %d", second.Number(), first.Number())
		}
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantHeld(t, a) // a former holder releases nothing
	})
}

// One that ran out is another's, and its holder finds that out before it writes.
func TestRunsOut(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a, b store.Store) {
		first := acquire(t, a, time.Microsecond)
		second := acquire(t, b, time.Hour)
		if err := guard(a, first); !errors.Is(err, lock.ErrLost) {
			t.Errorf("guard = %v, want lost", err)
		}
		if err := first.Extend(t.Context(), time.Hour); !errors.Is(err, lock.ErrLost) {
			t.Errorf("extend = %v, want lost", err)
		}
		if err := guard(b, second); err != nil {
			t.Error(err)
		}
	})
}

func TestExtend(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a, b store.Store) {
		l := acquire(t, a, time.Hour)
		if err := l.Extend(t.Context(), time.Microsecond); err != nil {
			t.Fatal(err)
		}
		acquire(t, b, time.Hour)
	})
}

// A new epoch of the node voids what the former process held; the end of a node does, too.
func TestHolderDied(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for range 2 {
			s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Chain: storetest.Chain})
			if err != nil {
				t.Fatal(err)
			}
			acquire(t, s, time.Hour)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		server := pgtest.Shared(t, 15)
		url, dir := server.SuperURL(server.CreateDB(t)), t.TempDir()
		other := node(t, url, t.TempDir())
		s := node(t, url, dir)
		acquire(t, s, time.Hour)
		wantHeld(t, other)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		l := acquire(t, other, time.Hour)
		if err := l.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		acquire(t, node(t, url, dir), time.Hour)
		wantHeld(t, other)
	})
}

// Of many who want it at once one gets it, and of two that both believe to hold it one writes.
func TestMany(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, a, b store.Store) {
		const tries = 16
		var got atomic.Int32
		done := make(chan error, tries)
		for k := range tries {
			s := []store.Store{a, b}[k%2]
			go func() {
				_, err := lock.Acquire(context.Background(), s, "x", time.Hour)
				if err == nil {
					got.Add(1)
				}
				done <- err
			}()
		}
		for range tries {
			if err := <-done; err != nil && !errors.Is(err, lock.ErrHeld) {
				t.Error(err)
			}
		}
		if got.Load() != 1 {
			t.Errorf("%d hold the lock", got.Load())
		}
	})
}
