package lease

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lock"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// orphanAge is how long an account must have been seen without a lease before it is removed: two
// runs at least this far apart.
const orphanAge = 10 * time.Minute

// Removal says which of the accounts that no lease bears a reconcile removes.
type Removal int

const (
	// RemoveNone only reports.
	RemoveNone Removal = iota
	// RemoveOld removes those that two runs orphanAge apart have seen, but none in the first day
	// after a restore: the store may have forgotten what somebody holds.
	RemoveOld
	// RemoveRestored is RemoveOld on that day, too: somebody knows that nobody needs them.
	RemoveRestored
)

// Reconcile compares the accounts of ours at the source with the leases of the whole store, every
// engine and every tenant. It reports; only as removal says, and only what two runs orphanAge apart
// have seen, is removed, and never a name that any lease bears (law L11).
func (m *Manager) Reconcile(ctx context.Context, c *access.Caller, engineName string, removal Removal) (*api.ReconcileResult, error) {
	dryRun := removal == RemoveNone
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_engine_update", Category: access.CategoryDynamicAdmin, Path: "dynamic/" + engineName,
		Any:   []access.Right{{Scope: access.ScopeDynamicManage, Permission: "dynamic:manage", Path: "dynamic/" + engineName}},
		Extra: map[string]any{"engine": engineName, "reconcile": true, "dry_run": dryRun, "restored": removal == RemoveRestored}, Looks: dryRun})
	if err != nil {
		return nil, err
	}
	result, err := m.reconcile(ctx, pass, engineName, removal)
	if result != nil { // what was removed before a failure is recorded, too
		pass.Set("orphans", result.Orphans)
		pass.Set("removed", result.Removed)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return result, nil
}

func (m *Manager) reconcile(ctx context.Context, pass *access.Pass, engineName string, removal Removal) (*api.ReconcileResult, error) {
	e, err := m.sources.Engine(m.store.Config(), pass.Caller().Tenant, engineName)
	if err != nil {
		return nil, err
	}
	one, err := lock.Acquire(ctx, m.store, "reconcile/"+e.ID, m.claimFor(e.ID))
	if errors.Is(err, lock.ErrHeld) {
		return nil, fault.New(fault.VersionConflict, "engine %s is being reconciled already: try again when that has ended", engineName)
	} else if err != nil {
		return nil, err
	}
	defer func() {
		if err := one.Release(ctx); err != nil {
			m.log.Warn("the lock of a reconcile could not be released, it runs out", "engine", engineName, "error", err)
		}
	}()
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return nil, source.Fault(engineName, err)
	}
	defer h.Release()
	lister, ok := h.Engine.(engine.Lister)
	if !ok {
		return nil, fault.New(fault.InvalidConfig, "an engine of this type cannot list its accounts, so there is nothing to reconcile")
	}
	// A lease may be active whose account was made after the list was: such young ones are not missing.
	settled := m.clock.Now().Add(-e.Config.OperationTimeout - grace)
	accounts, err := lister.List(ctx)
	if err != nil {
		return nil, source.Fault(engineName, err)
	}
	result := &api.ReconcileResult{Engine: engineName, DryRun: removal == RemoveNone, Accounts: len(accounts),
		Orphans: []string{}, Removed: []string{}, Pending: []string{}, Missing: []string{}, Residues: []string{}}
	orphans, err := m.orphans(ctx, e, accounts, settled, result)
	if err != nil {
		return nil, err
	}
	old, err := m.remember(ctx, pass, e, orphans, removal)
	if err != nil {
		return nil, err
	}
	for _, a := range orphans {
		result.Orphans = append(result.Orphans, a.Username)
		switch {
		case !old[a.Username]:
			result.Pending = append(result.Pending, a.Username)
		case removal != RemoveNone:
			if _, err := h.Revoke(ctx, a.Recipe); err != nil {
				return result, source.Fault(engineName, err)
			}
			m.log.Warn("an account that no lease bears was removed", "engine", engineName, "username", a.Username)
			m.metrics.Revocation(engineName, api.ReasonReconciled, "revoked")
			result.Removed = append(result.Removed, a.Username)
		}
	}
	return result, nil
}

// orphans are the accounts that no lease bears. It notes in the result which active leases have no
// account, and has accounts whose lease is closed looked at again.
func (m *Manager) orphans(ctx context.Context, e *source.Engine, accounts []engine.Account, settled time.Time, result *api.ReconcileResult) ([]engine.Account, error) {
	names := make([]string, len(accounts))
	for k, a := range accounts {
		names[k] = a.Username
	}
	var borne map[string]*store.Lease
	var missing, residues []string
	err := m.store.Read(ctx, func(r store.Reader) (err error) {
		if borne, err = r.LeasesByUsername(names); err != nil {
			return err
		}
		missing, err = usernames(r, store.LeaseFilter{Tenant: e.Tenant, EngineID: e.ID, Status: api.LeaseActive}, func(l *store.Lease) bool {
			return borne[l.Username] == nil && l.IssuedAt.Before(settled) && l.ExpiresAt.After(r.Now())
		})
		if err != nil {
			return err
		}
		residues, err = usernames(r, store.LeaseFilter{Tenant: e.Tenant, EngineID: e.ID, Residue: true}, func(*store.Lease) bool { return true })
		return err
	})
	if err != nil {
		return nil, err
	}
	result.Missing = append(result.Missing, missing...)
	result.Residues = append(result.Residues, residues...)
	var orphans []engine.Account
	for _, a := range accounts {
		l := borne[a.Username]
		switch {
		case l == nil:
			orphans = append(orphans, a)
		case l.Status == api.LeaseRevoked && l.DueAt == nil:
			if err := m.lookAgain(ctx, l.ID); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(orphans, func(a, b engine.Account) int {
		if a.Username < b.Username {
			return -1
		}
		return 1
	})
	return orphans, nil
}

// lookAgain has a closed lease's account looked at now: it exists, so it is killed again.
func (m *Manager) lookAgain(ctx context.Context, id string) error {
	_, err := m.update(ctx, id, func(tx store.Tx, l *store.Lease) error {
		if l.Status == api.LeaseRevoked && l.DueAt == nil {
			now := tx.Now()
			l.DueAt, l.LateLooks = &now, max(l.LateLooks, 1)
		}
		return nil
	})
	m.Kick()
	return err
}

// remember keeps when each orphan of the engine was first seen, and tells which may be removed: those
// seen at least orphanAge ago, since a restore where there was one. What is no orphan any more is
// forgotten. What is about to be removed is recorded first (law L7).
func (m *Manager) remember(ctx context.Context, pass *access.Pass, e *source.Engine, orphans []engine.Account, removal Removal) (old map[string]bool, err error) {
	key := "orphans/" + e.ID
	err = m.store.Write(ctx, func(tx store.Tx) error {
		raw, err := tx.Meta(key)
		if err != nil {
			return err
		}
		before, first := map[string]time.Time{}, map[string]time.Time{}
		if len(raw) > 0 {
			if err := json.Unmarshal(raw, &before); err != nil {
				return err
			}
		}
		old = map[string]bool{}
		var removing []string
		now := tx.Now()
		q, err := quarantine.Of(m.store.Config())
		if err != nil {
			return err
		}
		may := q.MayRemove(now) || removal == RemoveRestored && (q == nil || !q.Active)
		for _, a := range orphans {
			seen, ok := before[a.Username]
			if !ok || q.Predates(seen) {
				seen = now
			}
			first[a.Username] = seen
			if old[a.Username] = may && now.Sub(seen) >= orphanAge; old[a.Username] && removal != RemoveNone {
				removing = append(removing, a.Username)
			}
		}
		if len(removing) > 0 {
			if err := tx.Audit(e.Tenant, pass.Entry(true, map[string]any{"outcome": "requested", "removing": removing})); err != nil {
				return err
			}
		}
		if raw, err = json.Marshal(first); err != nil {
			return err
		}
		return tx.PutMeta(key, raw)
	})
	return old, err
}

// usernames collects from all leases of a filter.
func usernames(r store.Reader, f store.LeaseFilter, want func(*store.Lease) bool) ([]string, error) {
	const chunk = 1000
	var names []string
	for before := ""; ; {
		rows, err := r.Leases(f, before, chunk)
		if err != nil {
			return nil, err
		}
		for _, l := range rows {
			if want(l) {
				names = append(names, l.Username)
			}
			before = l.ID
		}
		if len(rows) < chunk {
			return names, nil
		}
	}
}
