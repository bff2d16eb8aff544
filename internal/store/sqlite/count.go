package sqlite

import (
	"slices"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// count moves a kept counter. The counters are few and every lease moves the same ones, so what a
// group moves them by is written once, in its transaction and ahead of its commit.
func (t *tx) count(engineID, role string, status api.LeaseStatus, by int64) {
	t.state.counts = append(t.state.counts, store.LeaseCount{EngineID: engineID, Role: role, Status: status, N: by})
}

// writeCounts lets the counters say what they have moved by. It needs no savepoint: it comes after
// the writes that it belongs to.
func (t *tx) writeCounts() error {
	for _, c := range sum(t.state.counts) {
		_, err := t.conn.exec(`INSERT INTO lease_counts (engine_id, role, status, n) VALUES (?, ?, ?, ?)
			ON CONFLICT (engine_id, role, status) DO UPDATE SET n = n + excluded.n`, c.EngineID, c.Role, string(c.Status), c.N)
		if err != nil {
			return err
		}
	}
	t.state.counts = nil
	return nil
}

// LeaseCounts are the kept counters as this transaction leaves them so far.
func (t *tx) LeaseCounts(engineID string) ([]store.LeaseCount, error) {
	counts, err := t.reader.LeaseCounts(engineID)
	if err != nil {
		return nil, err
	}
	for _, c := range t.state.counts {
		if engineID == "" || engineID == c.EngineID {
			counts = append(counts, c)
		}
	}
	return sum(counts), nil
}

// sum adds up what belongs to one counter and leaves out what comes to nothing.
func sum(counts []store.LeaseCount) []store.LeaseCount {
	var sums []store.LeaseCount
	for _, c := range counts {
		k := slices.IndexFunc(sums, func(s store.LeaseCount) bool {
			return s.EngineID == c.EngineID && s.Role == c.Role && s.Status == c.Status
		})
		if k < 0 {
			sums = append(sums, c)
		} else {
			sums[k].N += c.N
		}
	}
	return slices.DeleteFunc(sums, func(s store.LeaseCount) bool { return s.N == 0 })
}
