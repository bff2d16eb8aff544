package fill_test

import (
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/load/fill"
)

// TestFill: the leases are counted, due when they were to be, and every one has its entries.
func TestFill(t *testing.T) {
	t.Parallel()
	st, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Chain: storetest.Chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	const n = 1200 // more than one transaction
	due := time.Now().Add(time.Hour).UTC()
	if err := fill.Fill(t.Context(), st, fill.Plan{Leases: n, Revoked: 0.5, Due: due}); err != nil {
		t.Fatal(err)
	}
	err = st.Read(t.Context(), func(r store.Reader) error {
		counts, err := r.LeaseCounts("")
		if err != nil {
			return err
		}
		byStatus := map[api.LeaseStatus]int64{}
		for _, c := range counts {
			byStatus[c.Status] += c.N
		}
		living, dead := byStatus[api.LeaseActive], byStatus[api.LeaseRevoked]
		if living+dead != n || living == 0 || dead == 0 || len(counts) != 24 {
			t.Errorf("%d living and %d dead in %d counters", living, dead, len(counts))
		}
		heads, err := r.AuditHeads()
		if err != nil {
			return err
		}
		if last := heads[0].LastSeq; last < 2*n+dead || last > 2*n+2*dead {
			t.Errorf("%d entries of %d leases", last, n)
		}
		next, err := r.NextDue(r.Now())
		if err != nil {
			return err
		}
		for engine, at := range next {
			if at.Before(due) || !at.Before(due.Add(time.Second)) {
				t.Errorf("engine %s is due at %s, want within a second of %s", engine, at, due)
			}
		}
		if len(next) != 3 {
			t.Errorf("%d engines are due, want 3", len(next))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
