package postgres

import (
	"sync"

	"github.com/scaivault/scaivault/internal/store"
)

// recentLeases bounds how many leases are remembered.
const recentLeases = 4096

// recent are the leases that this node made and nobody here has seen changed, so that their
// confirmation, which comes next, need not read them: it compares the version when it writes.
// What this node has read is never contradicted by what it remembers.
type recent struct {
	mu     sync.Mutex
	leases map[string]*store.Lease
}

// put remembers leases. It comes before their commit, since from then on they may be changed and
// seen; one that is not committed after all is found out like one that was changed.
func (r *recent) put(made []*store.Lease) {
	if len(made) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.leases == nil || len(r.leases)+len(made) > recentLeases {
		r.leases = map[string]*store.Lease{}
	}
	for _, l := range made {
		r.leases[l.ID] = l
	}
}

// take is a remembered lease, for once; nil when there is none.
func (r *recent) take(id string) *store.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.leases[id]
	delete(r.leases, id)
	return l
}

// seen forgets a lease whose row is newer.
func (r *recent) seen(l *store.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.leases[l.ID]; known != nil && known.Version < l.Version {
		delete(r.leases, l.ID)
	}
}
