package sqlite

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	driver "modernc.org/sqlite"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/storetest"
)

// TestListsGrowWithNothing reads the plans of the lists of leases: what chooses few of them leads
// through an index, and only what is overdue, left a residue or is listed as revoked is gathered before
// it is brought into order (law L10).
func TestListsGrowWithNothing(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	c := s.committer.conn // idle, and nobody else writes
	for name, f := range storetest.Lists() {
		where, args := leasesWhere(f, "lease_1", 1)
		err := c.eachOnce("EXPLAIN QUERY PLAN SELECT * FROM leases "+where, args, func(scan scanFunc) error {
			var id, parent, unused int
			var step string
			if err := scan(&id, &parent, &unused, &step); err != nil {
				return err
			}
			if strings.HasPrefix(step, "SCAN leases") || strings.Contains(step, "TEMP B-TREE") && f.OverdueAt == nil && f.ListedAt == nil && !f.Residue {
				t.Errorf("list %s: %s", name, step)
			}
			return nil
		})
		if err != nil {
			t.Errorf("list %s: %v", name, err)
		}
	}
}

// TestNothingGrowsWithTheLeases counts the pages that SQLite looks at for each step, up to four for a
// row: they are bounded however many leases there are (law L10).
func TestNothingGrowsWithTheLeases(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	for _, fill := range []func(store.Tx) error{storetest.Crowd, storetest.Later} {
		if err := s.Write(t.Context(), fill); err != nil {
			t.Fatal(err)
		}
	}
	undo := errors.New("undo")
	for _, step := range storetest.Steps() {
		err := s.Write(t.Context(), func(st store.Tx) error {
			before, err := pages(st.(*tx).conn)
			if err != nil {
				return err
			}
			if err := step.Do(st); err != nil {
				return fmt.Errorf("%s: %w", step.Name, err)
			}
			after, err := pages(st.(*tx).conn)
			if n := after - before; err == nil && n > 4*storetest.StepRows {
				t.Errorf("%s: %d pages were looked at", step.Name, n)
			}
			return errors.Join(err, undo)
		})
		if !errors.Is(err, undo) {
			t.Fatal(err)
		}
	}
}

// pages is how many pages the connection has looked at so far, in memory or not.
func pages(c *conn) (n int, err error) {
	err = c.c.Raw(func(dc any) error {
		for _, op := range []driver.DBStatusOp{driver.DBStatusCacheHit, driver.DBStatusCacheMiss} {
			looked, _, err := dc.(driver.DBStatus).Status(op, false)
			if err != nil {
				return err
			}
			n += looked
		}
		return nil
	})
	return n, err
}
