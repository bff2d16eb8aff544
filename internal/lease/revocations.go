package lease

import (
	"context"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// RevocationList is an engine's list of what is revoked. Nothing keeps it but the leases: it holds those
// that are being revoked or are revoked, one whose issuance failed among them, each until its end. So
// every node answers the same, and no list is ever without what was asked for before. The leases are those
// of all engines, of former ones as well: the key that signed outlives its engine, and another one of the
// same name, or beside it, may have it. What is in a list too many revokes nothing, as serials are random.
type RevocationList struct {
	Body []byte
	Tag  string // its entity tag
}

// revocations is the list that the node answers for up to [engine.ListAge], however often it is asked.
type revocations struct {
	mu   sync.Mutex // held while it is made: who asks meanwhile gets what comes of it
	made time.Time
	list RevocationList
	err  error
}

// RevocationList answers an engine's list to anybody: engine_not_found where it has none. What cannot be
// read whole is an error, never a shorter list; so is any list of a store in quarantine, which may not
// know the last revocations.
func (m *Manager) RevocationList(ctx context.Context, tenant, engineName string) (RevocationList, error) {
	cfg := m.store.Config()
	e, err := m.sources.Engine(cfg, tenant, engineName)
	if err != nil {
		return RevocationList{}, err
	}
	lister := e.Lister()
	if lister == nil {
		return RevocationList{}, source.NotPublished(engineName)
	}
	if err := quarantine.Check(cfg); err != nil {
		return RevocationList{}, err
	}
	kept := m.listOf(e.ID)
	kept.mu.Lock()
	defer kept.mu.Unlock()
	if time.Since(kept.made) >= engine.ListAge {
		begun := time.Now() // what is asked to be revoked from now on may not be in it
		kept.list, kept.err = m.listRevoked(context.WithoutCancel(ctx), e, lister)
		kept.made = begun
	}
	return kept.list, kept.err
}

func (m *Manager) listOf(engineID string) *revocations {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.lists[engineID]
	if kept == nil {
		for id := range m.lists { // engines that are no more
			if m.store.Config().Object(store.DefaultTenant, store.KindEngine, id) == nil {
				delete(m.lists, id)
			}
		}
		kept = &revocations{}
		m.lists[engineID] = kept
	}
	return kept
}

// listRevoked makes the list.
func (m *Manager) listRevoked(ctx context.Context, e *source.Engine, lister engine.RevocationLister) (RevocationList, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
	defer cancel()
	now := m.clock.Now()
	var rows []*store.Lease
	err := m.store.Read(ctx, func(r store.Reader) (err error) {
		rows, err = r.Leases(store.LeaseFilter{Tenant: e.Tenant, ListedAt: &now}, "", 0)
		return err
	})
	if err != nil {
		return RevocationList{}, err
	}
	var last time.Time
	recipes := make([]engine.Recipe, len(rows))
	for k, l := range rows {
		recipes[k] = l.Recipe
		if l.Revocation != nil {
			last = later(last, l.Revocation.RequestedAt)
		}
	}
	body, err := lister.RevocationList(last, recipes)
	if err != nil {
		return RevocationList{}, fault.New(fault.InternalError, "make the list of what is revoked: internal error").Because(err)
	}
	return RevocationList{Body: body, Tag: api.EntityTag(body)}, nil
}
