package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
)

func open(t testing.TB, dir string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Chain: storetest.Chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T, dir string) store.Store { return open(t, dir) })
}

func TestSecondProcessIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	if _, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
}

// The folder may be named anything, and nobody else can read what is in it.
func TestFileModes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data 100%?#x")
	s := open(t, dir)
	if err := s.Write(t.Context(), insertWithAudit); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "scaivault.db": 0o600, "scaivault.db-wal": 0o600,
		"scaivault.db-shm": 0o600, "scaivault.lock": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		} else if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %q = %o, want %o", name, got, want)
		}
	}
}

// The chain's key lies in the store itself, so it comes after Open, and before the first entry.
func TestChainComesLater(t *testing.T) {
	t.Parallel()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Write(t.Context(), func(tx store.Tx) error { return tx.PutMeta("key", []byte("sealed")) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), insertWithAudit); fault.CodeOf(err) != fault.InternalError {
		t.Errorf("entry without a chain: %v", err)
	}
	s.SetChain(storetest.Chain)
	if err := s.Write(t.Context(), insertWithAudit); err != nil {
		t.Error(err)
	}
}

// A store opened inside a bubble lives by the bubble's clock and leaves nothing running.
func TestFakeTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: storetest.Chain})
		if err != nil {
			t.Fatal(err)
		}
		l := benchLease()
		for range 3 {
			time.Sleep(5 * time.Hour)
			synctest.Wait()
			if err := s.Write(t.Context(), func(tx store.Tx) error {
				return tx.Audit(store.DefaultTenant, benchEntry())
			}); err != nil {
				t.Fatal(err)
			}
		}
		err = s.Write(t.Context(), func(tx store.Tx) error { return tx.InsertLease(l) })
		if err != nil {
			t.Fatal(err)
		}
		err = s.Read(t.Context(), func(r store.Reader) error {
			if !r.Now().Equal(time.Now()) {
				t.Errorf("the store's clock says %v, the bubble's %v", r.Now(), time.Now())
			}
			rows, err := r.AuditEntries(store.AuditFilter{}, 0, 0)
			if err != nil {
				return err
			}
			if d := rows[0].Entry.Timestamp.Sub(rows[2].Entry.Timestamp); d != 10*time.Hour {
				t.Errorf("entries are %v apart", d)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A function that fails after it wrote makes its group run again; each is answered for itself.
func TestSpoiledGroupRunsAgain(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	runs := 0
	boom := errors.New("boom")
	err := s.Write(t.Context(), func(tx store.Tx) error {
		runs++
		if err := insertWithAudit(tx); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) || runs != 2 {
		t.Errorf("error %v after %d runs", err, runs)
	}
	runs = 0
	err = s.Write(t.Context(), func(tx store.Tx) error {
		runs++
		_, err := tx.UpdateLease("lease_none", func(*store.Lease) error { return nil })
		return err
	})
	if fault.CodeOf(err) != fault.LeaseNotFound || runs != 1 {
		t.Errorf("error %v after %d runs", err, runs)
	}
}
