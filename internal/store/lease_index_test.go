package store_test

import (
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// TestIndexOfAStatus: where nothing else leads, the leases of any status are found by it, and not among
// those of the others: neither the living among the dead nor the dead among the living.
func TestIndexOfAStatus(t *testing.T) {
	t.Parallel()
	for _, status := range []api.LeaseStatus{api.LeaseIssuing, api.LeaseActive, api.LeaseRevoking, api.LeaseRevoked} {
		index := (&store.LeaseFilter{Tenant: "t", Status: status}).Index()
		if index.Name != "leases_status" || len(index.Columns) != 1 || index.Columns[0].Value != string(status) || index.Only != "" {
			t.Errorf("%s: %+v", status, index)
		}
	}
}
