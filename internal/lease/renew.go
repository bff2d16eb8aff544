package lease

import (
	"cmp"
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// Renew moves a lease's end, never past its maximum, at the source too. An increment is the life
// wanted from now on and never shortens; a ttl is exactly that much from now, also less.
//
// A longer end is pending until the source has it, a shorter one holds at once; a pending end that
// nobody finished is set again from the end that holds.
func (m *Manager) Renew(ctx context.Context, c *access.Caller, id string, req api.RenewRequest) (*api.Lease, error) {
	if req.Increment != nil && req.TTL != nil {
		return nil, fault.New(fault.InvalidRequest, "increment and ttl were both given: give one of them")
	}
	l, err := m.visible(ctx, c, "dynamic_renew", id, access.ScopeDynamicGenerate, access.ScopeDynamicManage)
	if err != nil {
		return nil, err
	}
	path := "dynamic/" + l.Engine + "/" + l.Role
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_renew", Category: access.CategoryLease, Path: path,
		Any: []access.Right{
			{Scope: access.ScopeDynamicGenerate, Permission: "dynamic:generate", Path: path, Owner: l.Identity},
			{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: path},
		},
		Extra: map[string]any{"engine": l.Engine, "role": l.Role, "lease_id": id, "username": l.Username}})
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(living(l, m.clock.Now()), m.clock.Settled()); err != nil {
		return nil, pass.Record(ctx, err)
	}
	if !m.beginRenewal(id) {
		return nil, pass.Record(ctx, busyRenewing())
	}
	defer m.endRenewal(id)

	e, err := m.sources.EngineByID(m.store.Config(), l.Tenant, l.EngineID)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return nil, pass.Record(ctx, source.Fault(e.Name, err))
	}
	defer h.Release()
	if !e.Accepts(l.SourceID, h.SourceID()) {
		return nil, pass.Record(ctx, source.Fault(e.Name, otherServer()))
	}
	if l, err = m.pend(ctx, pass, e, id, req); err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.N1)
	shown, err := m.moveEnd(context.WithoutCancel(ctx), h, e, l)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	return shown, nil
}

// pend writes down the end that is about to be set at the source.
func (m *Manager) pend(ctx context.Context, pass *access.Pass, e *source.Engine, id string, req api.RenewRequest) (l *store.Lease, err error) {
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		now := tx.Now()
		e, err := m.sources.EngineByID(cfg, e.Tenant, e.ID)
		if err != nil {
			return err
		}
		def, longest := m.lives(cfg, e, pass.Caller().Tenant, id, tx)
		l, err = tx.UpdateLease(id, func(l *store.Lease) error {
			until, err := newEnd(l, req, now, def, longest)
			if err != nil {
				return err
			}
			deadline := now.Add(e.Config.OperationTimeout)
			due := deadline.Add(grace)
			if until.Before(l.ExpiresAt) {
				l.ExpiresAt, due = until, earlier(due, until)
			} else {
				due = earlier(due, l.ExpiresAt)
			}
			l.PendingExpiresAt, l.PendingDeadline, l.DueAt = &until, &deadline, &due
			return nil
		})
		if err == nil {
			pass.Set("ttl_seconds", int64(l.PendingExpiresAt.Sub(now)/time.Second))
		}
		return err
	})
	if err == nil {
		m.due(*l.DueAt)
	}
	return l, err
}

// moveEnd sets the pending end at the source and then lets it hold.
func (m *Manager) moveEnd(ctx context.Context, h *source.Handle, e *source.Engine, l *store.Lease) (*api.Lease, error) {
	until := *l.PendingExpiresAt
	if _, ok := h.Engine.(engine.Renewer); ok {
		bounded, cancel := context.WithDeadline(ctx, m.clock.Local(*l.PendingDeadline))
		err := m.sources.Follow(bounded, e, h, func() error {
			return h.Engine.(engine.Renewer).Renew(bounded, l.Recipe, m.clock.Local(until)) //nolint:forcetypeassert // all of an engine are of one type
		})
		cancel()
		if err != nil && until.After(l.ExpiresAt) {
			return nil, source.Fault(e.Name, err)
		} else if err != nil {
			return view(l, m.clock.Now()), nil //nolint:nilerr // a shorter end holds all the same: the pending one leads to another try at the source
		}
	}
	failpoint.Hit(failpoint.N2)
	var now time.Time
	l, err := m.update(ctx, l.ID, func(tx store.Tx, l *store.Lease) error {
		now = tx.Now()
		if l.Status != api.LeaseActive {
			return fault.New(fault.LeaseRevoked, "lease %s was revoked while it was being renewed", l.ID)
		}
		// A claim on a live row is somebody's who sets its former end at the source again.
		if l.Claim != nil || l.PendingExpiresAt == nil || !l.PendingExpiresAt.Equal(until) {
			return fault.New(fault.VersionConflict, "lease %s was renewed by somebody else meanwhile", l.ID)
		}
		l.ExpiresAt, l.RenewedAt = until, &now
		l.PendingExpiresAt, l.PendingDeadline = nil, nil
		l.DueAt = &until
		return nil
	})
	if err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.N3)
	m.due(until)
	return view(l, now), nil
}

// lives are the role's default and the longest life of the lease under the present configuration,
// which may be less than what the lease was issued with; a deleted role leaves the engine's.
func (m *Manager) lives(cfg *store.Config, e *source.Engine, tenant, id string, tx store.Reader) (def, longest time.Duration) {
	def, longest = time.Duration(source.DefaultTTL), e.MaxTTL()
	if l, err := tx.Lease(tenant, id); err == nil {
		if role, err := m.sources.Role(cfg, e, l.Role); err == nil {
			def, longest = role.DefaultTTL, role.MaxTTL
		}
	}
	return min(def, longest), longest
}

// living refuses to renew a lease that is not there to be renewed, whatever its source says.
func living(l *store.Lease, now time.Time) error {
	switch {
	case l.Status == api.LeaseRevoking || l.Status == api.LeaseRevoked:
		return fault.New(fault.LeaseRevoked, "lease %s is revoked: ask for a new credential", l.ID)
	case l.Status == api.LeaseIssuing:
		return fault.New(fault.VersionConflict, "lease %s is still being issued: try again", l.ID)
	case !l.ExpiresAt.After(now):
		return fault.New(fault.LeaseExpired, "lease %s ended at %s: ask for a new credential", l.ID, l.ExpiresAt.Format(time.RFC3339))
	case !l.Renewable:
		return fault.New(fault.NotRenewable, "lease %s is not renewable: ask for a new credential before it ends", l.ID)
	}
	return nil
}

// newEnd is the end that a renewal asks for, or why there is none.
func newEnd(l *store.Lease, req api.RenewRequest, now time.Time, def, longest time.Duration) (time.Time, error) {
	if err := living(l, now); err != nil {
		return time.Time{}, err
	}
	if l.PendingDeadline != nil && l.PendingDeadline.Add(grace).After(now) || l.Claim != nil && l.Claim.Until.After(now) {
		return time.Time{}, busyRenewing()
	}
	latest := earlier(l.MaxExpiresAt, l.IssuedAt.Add(longest))
	if req.TTL != nil {
		until := now.Add(time.Duration(*req.TTL))
		if until.After(latest) && !latest.After(l.ExpiresAt) && until.After(l.ExpiresAt) {
			return time.Time{}, maxReached(l, latest)
		}
		return earlier(until, later(latest, l.ExpiresAt)), nil
	}
	if req.Increment != nil {
		def = time.Duration(*req.Increment)
	}
	until := earlier(now.Add(def), latest)
	if until.After(l.ExpiresAt) {
		return until, nil
	}
	if now.Add(def).After(l.ExpiresAt) {
		return time.Time{}, maxReached(l, latest)
	}
	return l.ExpiresAt, nil // already longer than what was wished
}

func maxReached(l *store.Lease, latest time.Time) error {
	return fault.New(fault.MaxTTLReached, "lease %s has reached its longest life: ask for a new credential before %s", l.ID, l.ExpiresAt.Format(time.RFC3339)).
		With("max_expires_at", latest.Format(time.RFC3339))
}

func busyRenewing() error {
	return fault.New(fault.VersionConflict, "the lease is being renewed by another request: read it again")
}

func (m *Manager) beginRenewal(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.renews[id] {
		return false
	}
	m.renews[id] = true
	return true
}

func (m *Manager) endRenewal(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.renews, id)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
