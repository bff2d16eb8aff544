package sqlite

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/store/storetest"
)

// TestListsGrowWithNothing reads the plans of the lists of leases: what chooses few of them leads
// through an index, and only what is overdue is gathered before it is brought into order (law L10).
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
			if strings.HasPrefix(step, "SCAN leases") || strings.Contains(step, "TEMP B-TREE") && f.OverdueAt == nil {
				t.Errorf("list %s: %s", name, step)
			}
			return nil
		})
		if err != nil {
			t.Errorf("list %s: %v", name, err)
		}
	}
}
