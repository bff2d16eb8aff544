package storetest

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// Whichever filters come together, and so whichever index leads, the answer is what all of them select.
func leaseCombinations(t *testing.T, b *bundle) {
	all := variety()
	b.insert(t, all...)
	slices.SortFunc(all, func(a, b *store.Lease) int { return cmp.Compare(b.ID, a.ID) })
	middle := all[len(all)/2].ID
	for some := range slices.Chunk(combinations(all[len(all)*2/3]), 50) {
		b.read(t, func(r store.Reader) {
			for _, f := range some {
				want := slices.DeleteFunc(slices.Clone(all), func(l *store.Lease) bool { return !selects(f, l) })
				got := value[[]*store.Lease](t)(r.Leases(f, "", 0))
				wantEqual(t, "leases of "+canonical(f), ids(got), ids(want))

				want = slices.DeleteFunc(want, func(l *store.Lease) bool { return l.ID >= middle })
				if len(want) > 0 {
					got = value[[]*store.Lease](t)(r.Leases(f, middle, 3))
					wantEqual(t, "page of "+canonical(f), ids(got), ids(want[:min(3, len(want))]))
				}
			}
		})
	}
}

// variety is a lease of every kind that filters tell apart, in an order of the ids that follows none
// of them.
func variety() (all []*store.Lease) {
	const kinds = 1 << 8
	statuses := []api.LeaseStatus{api.LeaseIssuing, api.LeaseActive, api.LeaseRevoking, api.LeaseRevoked}
	for i := range kinds {
		either := func(bit int, one, other string) string {
			if i&(1<<bit) == 0 {
				return one
			}
			return other
		}
		all = append(all, lease(func(l *store.Lease) {
			l.ID, l.Username = fmt.Sprintf("lease_%03d", i*37%kinds), fmt.Sprintf("v_%03d", i)
			l.Tenant, l.EngineID, l.Role = either(0, tenant, "tnt_2"), either(1, "eng_a", "eng_b"), either(2, "ro", "rw")
			l.Identity, l.TokenID = either(3, "sa:ci", "user:x"), either(4, "", "tok_1")
			l.ExpiresAt, l.IssuedAt = at(time.Duration(i%5-2)*time.Hour), at(time.Duration(i%3-2)*time.Hour)
			switch l.Status = statuses[i>>6]; l.Status {
			case api.LeaseRevoking:
				l.Revocation = &api.Revocation{Reason: api.ReasonRevoked, RequestedAt: at(time.Duration(i%7-3) * time.Hour)}
			case api.LeaseRevoked:
				revoked(noon)(l)
				l.Revocation.Residue = either(5, "", "owns t")
			}
		}))
	}
	return all
}

// combinations are all filters that ask for something of this lease, or for nothing, by each field, and
// by every status; by the tenant and the times together, which no index is for.
func combinations(l *store.Lease) []store.LeaseFilter {
	filters := []store.LeaseFilter{{}}
	also := func(set ...func(f *store.LeaseFilter)) {
		for _, f := range slices.Clone(filters) {
			for _, set := range set {
				with := f
				set(&with)
				filters = append(filters, with)
			}
		}
	}
	also(func(f *store.LeaseFilter) { f.EngineID = l.EngineID })
	also(func(f *store.LeaseFilter) { f.Role = l.Role })
	also(func(f *store.LeaseFilter) { f.Identity = l.Identity })
	also(func(f *store.LeaseFilter) { f.TokenID = "tok_1" })
	also(func(f *store.LeaseFilter) { f.Status = api.LeaseIssuing }, func(f *store.LeaseFilter) { f.Status = api.LeaseActive },
		func(f *store.LeaseFilter) { f.Status = api.LeaseRevoking }, func(f *store.LeaseFilter) { f.Status = api.LeaseRevoked })
	also(func(f *store.LeaseFilter) { f.Username = l.Username })
	also(func(f *store.LeaseFilter) {
		f.Tenant, f.ExpiresBefore, f.ExpiresAfter, f.IssuedBefore = l.Tenant, atp(2*time.Hour), atp(-2*time.Hour), &noon
	})
	also(func(f *store.LeaseFilter) { f.OverdueAt = &noon })
	also(func(f *store.LeaseFilter) { f.Residue = true })
	return filters
}

// selects tells what the fields of a filter say.
func selects(f store.LeaseFilter, l *store.Lease) bool {
	overdue := func(at time.Time) bool {
		asked := l.Revocation != nil && !l.Revocation.RequestedAt.After(at)
		return (l.Status == api.LeaseActive || l.Status == api.LeaseRevoking) && (asked || !l.ExpiresAt.After(at))
	}
	return (f.Tenant == "" || l.Tenant == f.Tenant) &&
		(f.EngineID == "" || l.EngineID == f.EngineID) &&
		(f.Role == "" || l.Role == f.Role) &&
		(f.Identity == "" || l.Identity == f.Identity) &&
		(f.TokenID == "" || l.TokenID == f.TokenID) &&
		(f.Status == "" || l.Status == f.Status) &&
		(f.Username == "" || l.Username == f.Username) &&
		(f.ExpiresBefore == nil || l.ExpiresAt.Before(*f.ExpiresBefore)) &&
		(f.ExpiresAfter == nil || l.ExpiresAt.After(*f.ExpiresAfter)) &&
		(f.IssuedBefore == nil || l.IssuedAt.Before(*f.IssuedBefore)) &&
		(f.OverdueAt == nil || overdue(*f.OverdueAt)) &&
		(!f.Residue || l.Status == api.LeaseRevoked && l.Revocation.Residue != "")
}
