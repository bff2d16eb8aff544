package audit_test

import (
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// BenchmarkAuditEntry is one entry in a transaction that is open already: its
// document, its place in the chain and its row, without the commit that it
// shares with others.
func BenchmarkAuditEntry(b *testing.B) {
	s, err := sqlite.Open(b.Context(), sqlite.Config{Dir: b.TempDir(), Chain: audit.Chain([]byte("test"))})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	b.ReportAllocs()
	err = s.Write(b.Context(), func(tx store.Tx) error {
		for b.Loop() {
			err := tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "dynamic_generate", IdentityType: "service_account", IdentityID: "sa:ci",
				SecretPath: "dynamic/support-db/readonly", SourceIP: "10.1.2.3", UserAgent: "scaivault-go", Success: true, DurationMS: 3,
				RequestID: "req_01jz0000000000000000000000", ExtraData: map[string]any{"engine": "support-db", "role": "readonly",
					"lease_id": "lease_01jz0000000000000000000000", "username": "v_readonly_a1b2c3d4e5f6g7h8", "ttl_seconds": 3600, "outcome": "requested"}})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
