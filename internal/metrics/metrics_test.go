package metrics_test

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/metrics"
)

// TestNames: the names are part of the contract.
func TestNames(t *testing.T) {
	t.Parallel()
	m := metrics.New()
	m.Engines(func() []metrics.EngineState {
		return []metrics.EngineState{{Engine: "db", Healthy: true, Active: 7, Overdue: 3, Orphans: 2, Residues: 1}, {Engine: "old"}}
	})
	m.Quarantine(func() bool { return true })
	m.Clock(func() (api.Clock, bool) { return api.Clock{State: "held", SkewSeconds: 60, HeldLeases: 2}, true })
	m.Request("GET", "secrets", 200, time.Millisecond)
	m.Issued("db", "reader")
	m.IssueStep("db", "issue", time.Millisecond)
	m.Revocation("db", "expired", "revoked")
	m.RevocationLag(time.Second)
	m.Store("write", time.Millisecond)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`scaivault_clock_skew_seconds 60`,
		`scaivault_clock_held_leases 2`,
		`scaivault_clock_settled 0`,
		`scaivault_requests_total{method="GET",path_category="secrets",status="200"} 1`,
		`scaivault_request_duration_seconds_count{method="GET",path_category="secrets"} 1`,
		`scaivault_leases_active{engine="db"} 7`,
		`scaivault_leases_overdue{engine="db"} 3`,
		`scaivault_orphans{engine="db"} 2`,
		`scaivault_residues{engine="db"} 1`,
		`scaivault_engine_health{engine="db"} 1`,
		`scaivault_engine_health{engine="old"} 0`,
		`scaivault_leases_generated_total{engine="db",role="reader"} 1`,
		`scaivault_issue_duration_seconds_count{engine="db",step="issue"} 1`,
		`scaivault_revocations_total{engine="db",outcome="revoked",reason="expired"} 1`,
		`scaivault_quarantine 1`,
		`scaivault_revocation_lag_seconds_count 1`,
		`scaivault_db_latency_seconds_count{operation="write"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("%s is not told", want)
		}
	}
}

func TestNilDoesNothing(t *testing.T) {
	t.Parallel()
	var m *metrics.Metrics
	m.Request("GET", "secrets", 200, time.Millisecond)
	m.Issued("db", "reader")
	m.IssueStep("db", "issue", time.Millisecond)
	m.Revocation("db", "expired", "revoked")
	m.RevocationLag(time.Second)
	m.Store("write", time.Millisecond)
}
