package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

// BenchmarkIssuance is what a credential costs the store: the intent, durable, and the
// confirmation, relaxed; by callers spread over the nodes of one database.
func BenchmarkIssuance(b *testing.B) {
	server := pgtest.Start(b, 15, pgtest.WithFsync())
	for _, n := range []struct{ nodes, callers int }{{1, 1}, {1, 8}, {1, 32}, {1, 128}, {3, 96}} {
		b.Run(fmt.Sprintf("nodes=%d/callers=%d", n.nodes, n.callers), func(b *testing.B) {
			url := server.SuperURL(server.CreateDB(b))
			var nodes []*Store
			for range n.nodes {
				s, err := Open(b.Context(), Config{URL: url, Dir: b.TempDir(), Chain: storetest.Chain})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				nodes = append(nodes, s)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i := range n.callers {
				s := nodes[i%len(nodes)]
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := issue(s); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "credentials/s")
		})
	}
}

func issue(s *Store) error {
	l := newLease(s)
	entry := func(tx store.Tx) error {
		return tx.Audit(tenant, &api.AuditEntry{Action: "dynamic_generate", IdentityID: "sa:ci", SecretPath: "dynamic/a/ro", Success: true})
	}
	err := s.Write(context.Background(), func(tx store.Tx) (err error) {
		if err := tx.LockTenant(tenant, false); err != nil {
			return err
		}
		if l.FenceSeq, err = tx.FenceSeq(tenant); err != nil {
			return err
		}
		return errors.Join(tx.InsertLease(l), entry(tx))
	})
	if err != nil {
		return err
	}
	return s.WriteRelaxed(context.Background(), func(tx store.Tx) error {
		if _, err := tx.FencesSince(tenant, l.FenceSeq); err != nil {
			return err
		}
		_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseActive; return nil })
		return errors.Join(err, entry(tx))
	})
}
