package sqlite_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// benchLease is a lease of about the size of a real one.
func benchLease() *store.Lease {
	id := ident.New(ident.Lease)
	now := time.Now()
	due := now.Add(time.Hour)
	return &store.Lease{ID: id, Tenant: store.DefaultTenant, EngineID: "eng_01jz0000000000000000000000",
		Engine: "support-db", Role: "readonly", Identity: "sa:ci", TokenID: "tok_01jz0000000000000000000000",
		Status: api.LeaseIssuing, Renewable: true, Username: "v_readonly_" + id[len(id)-16:],
		Recipe:   engine.Recipe(`{"username":"v_readonly_` + id[len(id)-16:] + `","group":"sv_01jz000000_readonly_1a2b3c4d","oid":123456,"database":"support"}`),
		IssuedAt: now, ExpiresAt: due, MaxExpiresAt: now.Add(24 * time.Hour), DueAt: &due,
		Deadline: now.Add(15 * time.Second), Node: "n_1", Epoch: 1}
}

func benchEntry() *api.AuditEntry {
	return &api.AuditEntry{Action: "dynamic.lease.issue", IdentityType: "service_account", IdentityID: "sa:ci",
		SecretPath: "dynamic/support-db/readonly", SourceIP: "10.1.2.3", UserAgent: "scaivault-cli/1.0",
		Success: true, DurationMS: 3, RequestID: "req_01jz0000000000000000000000",
		ExtraData: map[string]any{"lease_id": "lease_01jz0000000000000000000000"}}
}

func insertWithAudit(tx store.Tx) error {
	if err := tx.InsertLease(benchLease()); err != nil {
		return err
	}
	return tx.Audit(store.DefaultTenant, benchEntry())
}

// writers runs b.N calls of fn from n goroutines.
func writers(b *testing.B, n int, fn func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range n {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

// BenchmarkIntent is a lease and its audit entry, durable: the first half of an issuance.
func BenchmarkIntent(b *testing.B) {
	for _, n := range []int{1, 8, 32, 128} {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			s := open(b, b.TempDir())
			writers(b, n, func() error { return s.Write(context.Background(), insertWithAudit) })
		})
	}
}

// BenchmarkIssuance is both halves: the intent, durable, and the confirmation, relaxed.
func BenchmarkIssuance(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprintf("writers=%d", n), func(b *testing.B) {
			s := open(b, b.TempDir())
			writers(b, n, func() error {
				l := benchLease()
				err := s.Write(context.Background(), func(tx store.Tx) error {
					if err := tx.InsertLease(l); err != nil {
						return err
					}
					return tx.Audit(store.DefaultTenant, benchEntry())
				})
				if err != nil {
					return err
				}
				return s.WriteRelaxed(context.Background(), func(tx store.Tx) error {
					_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseActive; return nil })
					if err != nil {
						return err
					}
					return tx.Audit(store.DefaultTenant, benchEntry())
				})
			})
		})
	}
}

func BenchmarkReadLease(b *testing.B) {
	s := open(b, b.TempDir())
	l := benchLease()
	if err := s.Write(b.Context(), func(tx store.Tx) error { return tx.InsertLease(l) }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Read(b.Context(), func(r store.Reader) error {
			_, err := r.Lease(store.DefaultTenant, l.ID)
			return err
		}); err != nil {
			b.Fatal(err)
		}
	}
}
