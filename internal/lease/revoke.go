package lease

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// Revoke kills a credential: dead is nil when it is dead at the source, also for one that was
// before; else the lease as it stands after wait, which is tried until it is dead.
func (m *Manager) Revoke(ctx context.Context, c *access.Caller, id string, wait time.Duration) (pending *api.Lease, err error) {
	l, err := m.visible(ctx, c, "dynamic_revoke", id, access.ScopeDynamicGenerate, access.ScopeDynamicManage)
	if err != nil {
		return nil, err
	}
	path := "dynamic/" + l.Engine + "/" + l.Role
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_revoke", Category: access.CategoryLease, Path: path,
		Any: []access.Right{
			{Scope: access.ScopeDynamicGenerate, Owner: l.Identity},
			{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: path},
		},
		Extra: map[string]any{"engine": l.Engine, "role": l.Role, "lease_id": id, "username": l.Username, "outcome": "requested"}})
	if err != nil {
		return nil, err
	}
	if l.Status == api.LeaseRevoked {
		return nil, pass.Record(ctx, nil)
	}
	done, forget := m.wait(id)
	defer forget()
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		now := tx.Now()
		_, err := tx.UpdateLease(id, func(l *store.Lease) error {
			switch l.Status {
			case api.LeaseIssuing, api.LeaseActive:
				ask(l, api.ReasonRevoked, c.Identity, now)
			case api.LeaseRevoking:
				l.DueAt = &now // whoever asks again wants it tried now
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	m.work(l.EngineID)
	return m.await(ctx, l.Tenant, id, done, wait)
}

// await waits until a lease is revoked, on this node or another, at most wait.
func (m *Manager) await(ctx context.Context, tenant, id string, done <-chan struct{}, wait time.Duration) (*api.Lease, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	poll := time.NewTicker(time.Second) // another node may do it
	defer poll.Stop()
	for last := false; ; {
		select {
		case <-done:
			done = nil
		case <-poll.C:
		case <-timer.C:
			last = true
		case <-ctx.Done():
			last = true
		}
		l, err := m.row(context.WithoutCancel(ctx), tenant, id)
		if err != nil {
			return nil, err
		}
		if l.Status == api.LeaseRevoked {
			return nil, nil
		}
		if last || l.Revocation != nil && l.Revocation.EffectiveAt != nil {
			return view(l, m.clock.Now()), nil
		}
	}
}

// RevokePrefix revokes every lease of "<engine>" or "<engine>/<role>", one that is being issued
// included, and waits until all are dead, at most wait.
func (m *Manager) RevokePrefix(ctx context.Context, c *access.Caller, prefix string, wait time.Duration) (api.RevokeResult, error) {
	engineName, role, err := splitPrefix(prefix)
	if err != nil {
		return api.RevokeResult{}, err
	}
	path := "dynamic/" + engineName
	if role != "" {
		path += "/" + role
	}
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_revoke", Category: access.CategoryLease, Path: path,
		Any:   []access.Right{{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: path}},
		Extra: map[string]any{"engine": engineName, "role": role, "reason": api.ReasonPrefix, "outcome": "requested"}})
	if err != nil {
		return api.RevokeResult{}, err
	}
	fence := &store.Fence{Tenant: c.Tenant, Role: role, Reason: api.ReasonPrefix, By: c.Identity}
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		e, err := m.sources.Engine(cfg, c.Tenant, engineName)
		if err != nil {
			return err
		}
		if role != "" && cfg.ByKey(c.Tenant, store.KindRole, engineName+"/"+role) == nil {
			if n, err := source.Living(tx, e.ID, role); err != nil || n == 0 {
				return cmp.Or[error](err, fault.New(fault.RoleNotFound, "engine %s has no role %q, and no living lease of one", engineName, role))
			}
		}
		fence.EngineID = e.ID
		if err := m.Fence(tx, fence); err != nil {
			return err
		}
		pass.Set("matched", fence.Matched)
		return nil
	})
	if err != nil {
		return api.RevokeResult{}, err
	}
	return m.Await(ctx, fence, wait)
}

// RevokeBy revokes every lease that matches the filter. Without manage on every engine matched
// nothing is done.
func (m *Manager) RevokeBy(ctx context.Context, c *access.Caller, req api.RevokeFilterRequest, wait time.Duration) (api.RevokeResult, error) {
	if req == (api.RevokeFilterRequest{}) {
		return api.RevokeResult{}, fault.New(fault.InvalidRequest, "give at least one of engine, role, identity_id, token_id, issued_before: everything at once is revoked engine by engine")
	}
	if req.Role != "" && req.Engine == "" {
		return api.RevokeResult{}, fault.New(fault.InvalidRequest, "role needs engine beside it")
	}
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_revoke", Category: access.CategoryLease, Path: "dynamic",
		Any: []access.Right{{Scope: access.ScopeDynamicManage}},
		Extra: map[string]any{"engine": req.Engine, "role": req.Role, "filter_identity": req.IdentityID, "filter_token": req.TokenID,
			"reason": api.ReasonRevoked, "outcome": "requested"}})
	if err != nil {
		return api.RevokeResult{}, err
	}
	fence := &store.Fence{Tenant: c.Tenant, Role: req.Role, Identity: req.IdentityID, TokenID: req.TokenID,
		IssuedBefore: req.IssuedBefore, Reason: api.ReasonRevoked, By: c.Identity}
	if req.IdentityID != "" || req.TokenID != "" {
		fence.Reason = api.ReasonIdentityRevoked
	}
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if req.Engine != "" {
			e, err := m.sources.Engine(cfg, c.Tenant, req.Engine)
			if err != nil { // who does not manage it is not told whether there is one
				return cmp.Or[error](pass.Check(access.Right{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: "dynamic/" + req.Engine}), err)
			}
			fence.EngineID = e.ID
		}
		if err := m.Fence(tx, fence); err != nil {
			return err
		}
		if err := m.mayRevoke(tx, cfg, pass, *fence); err != nil {
			return err
		}
		pass.Set("matched", fence.Matched)
		return nil
	})
	if err != nil {
		return api.RevokeResult{}, err
	}
	return m.Await(ctx, fence, wait)
}

// mayRevoke refuses a fence that matches engines which the caller does not manage, naming them.
func (m *Manager) mayRevoke(tx store.Tx, cfg *store.Config, pass *access.Pass, f store.Fence) error {
	var refused []string
	scope := f.EngineID
	for _, o := range cfg.List(f.Tenant, store.KindEngine, "") {
		if scope != "" && scope != o.ID {
			continue
		}
		f.EngineID = o.ID
		n, _, err := tx.FencePending(&f, 0)
		if err != nil {
			return err
		}
		if (n > 0 || scope != "") && pass.Check(access.Right{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: "dynamic/" + o.Key}) != nil {
			refused = append(refused, o.Key)
		}
	}
	if len(refused) > 0 {
		return fault.New(fault.AccessDenied, "the filter matches leases of engines that you do not manage: %s; nothing was revoked", strings.Join(refused, ", ")).
			With("engines", refused)
	}
	return nil
}

// Fence revokes a scope in the caller's transaction: what is in it and what is being issued into
// it (law L5). Await, or the next look of any node, marks the rows.
func (m *Manager) Fence(tx store.Tx, f *store.Fence) error {
	if err := tx.LockTenant(f.Tenant, true); err != nil {
		return err
	}
	f.At = tx.Now()
	if err := tx.AddFence(f); err != nil {
		return err
	}
	var err error
	f.Matched, err = covered(tx, f)
	return err
}

// covered counts the living leases of a new fence's scope. Those of an engine or a role are counted
// already: nobody who issues waits here for a count of many.
func covered(tx store.Tx, f *store.Fence) (n int64, err error) {
	if f.EngineID != "" && f.Identity == "" && f.TokenID == "" && !f.TiedOnly && f.IssuedBefore == nil {
		return source.Living(tx, f.EngineID, f.Role)
	}
	n, _, err = tx.FencePending(f, 0)
	return n, err
}

// Await marks what a committed fence covers and waits until all of it is dead, at most wait.
func (m *Manager) Await(ctx context.Context, f *store.Fence, wait time.Duration) (api.RevokeResult, error) {
	failpoint.Hit(failpoint.Fenced)
	gone := ctx.Done()
	ctx = context.WithoutCancel(ctx)
	if err := m.markFence(ctx, f); err != nil {
		m.Kick() // the scheduler goes on where this stopped
		return api.RevokeResult{}, err
	}
	m.Kick()
	deadline, pause := time.Now().Add(wait), 5*time.Millisecond
	for {
		result := api.RevokeResult{Matched: f.Matched}
		asked := time.Now()
		err := m.store.Read(ctx, func(r store.Reader) (err error) {
			result.Pending, result.PendingLeases, err = r.FencePending(f, 100)
			return err
		})
		if err != nil {
			return result, err
		}
		took := time.Since(asked)
		result.Revoked = result.Matched - result.Pending
		if result.Pending == 0 || !time.Now().Before(deadline) || m.promised(ctx, f.Tenant, result) {
			return result, nil
		}
		select {
		case <-time.After(min(pause, time.Until(deadline))):
		case <-gone:
			deadline = time.Now()
		case <-m.ctx.Done():
			deadline = time.Now()
		}
		// The look costs in proportion to what is left: it takes at most a fifth of the time.
		pause = max(min(2*pause, 250*time.Millisecond), 4*took)
	}
}

// promised tells whether all that is pending dies at a moment that is known: waiting brings it no nearer.
func (m *Manager) promised(ctx context.Context, tenant string, r api.RevokeResult) bool {
	if int64(len(r.PendingLeases)) < r.Pending {
		return false // there are more than are listed
	}
	for _, id := range r.PendingLeases {
		l, err := m.row(ctx, tenant, id)
		if err != nil || l.Revocation == nil || l.Revocation.EffectiveAt == nil {
			return false
		}
	}
	return true
}

// markFences goes on with fences that a crash, or a lost store, left half marked.
func (m *Manager) markFences(ctx context.Context) error {
	var open []*store.Fence
	if err := m.store.Read(ctx, func(r store.Reader) (err error) {
		open, err = r.OpenFences()
		return err
	}); err != nil {
		return err
	}
	for _, f := range open {
		if err := m.markFence(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// markFence sets every live row of the fence to revoking, in chunks. Idempotent.
func (m *Manager) markFence(ctx context.Context, f *store.Fence) error {
	const chunk = 1000
	for after, last := "", ""; ; after = last {
		more := false
		err := m.store.Write(ctx, func(tx store.Tx) error {
			ids, err := tx.FenceTargets(f, after, chunk)
			if err != nil {
				return err
			}
			if err := tx.LockLeases(ids); err != nil {
				return err
			}
			now := tx.Now()
			for _, id := range ids {
				if _, err := tx.UpdateLease(id, func(l *store.Lease) error {
					if f.Matches(l) && (l.Status == api.LeaseIssuing || l.Status == api.LeaseActive) {
						ask(l, f.Reason, f.By, now)
					}
					return nil
				}); err != nil {
					return err
				}
			}
			if more = len(ids) == chunk; more {
				last = ids[len(ids)-1]
				return nil
			}
			return tx.CloseFence(f.Tenant, f.Seq)
		})
		if err != nil {
			return err
		}
		m.Kick()
		if !more {
			return nil
		}
	}
}

// splitPrefix reads "<engine>" or "<engine>/<role>"; whole segments only.
func splitPrefix(prefix string) (engineName, role string, err error) {
	engineName, role, two := strings.Cut(strings.TrimSuffix(prefix, "/"), "/")
	if !source.ValidName(engineName) || two && !source.ValidName(role) {
		return "", "", fault.New(fault.InvalidRequest, `prefix is "<engine>" or "<engine>/<role>", whole names without wildcards`)
	}
	return engineName, role, nil
}
