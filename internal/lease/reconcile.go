package lease

import (
	"cmp"
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
	found, err := m.reconcileNow(ctx, pass, engineName, removal)
	if found != nil { // what was removed before a failure is recorded, too
		pass.Set("orphans", found.Orphans)
		pass.Set("removed", found.Removed)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return &found.ReconcileResult, nil
}

// reconcileNow reconciles for somebody who waits for it.
func (m *Manager) reconcileNow(ctx context.Context, pass *access.Pass, engineName string, removal Removal) (*comparison, error) {
	e, err := m.sources.Engine(m.store.Config(), pass.Caller().Tenant, engineName)
	if err != nil {
		return nil, err
	}
	one, err := lock.Acquire(ctx, m.store, reconcileLock(e), m.claimFor(e.ID))
	if errors.Is(err, lock.ErrHeld) {
		return nil, fault.New(fault.VersionConflict, "engine %s is being reconciled already: try again when that has ended", engineName)
	} else if err != nil {
		return nil, err
	}
	defer m.releaseReconcile(ctx, one, e)
	found, err := m.reconcile(ctx, pass, e, removal)
	if ctx.Err() == nil {
		m.keepReport(one, e, found, err, false)
	}
	return found, err
}

func reconcileLock(e *source.Engine) string { return "reconcile/" + e.ID }

func (m *Manager) releaseReconcile(ctx context.Context, one *lock.Lock, e *source.Engine) {
	if err := one.Release(ctx); err != nil {
		m.log.Warn("the lock of a reconcile could not be released, it runs out", "engine", e.Name, "error", err)
	}
}

// comparison is what a run found at the source.
type comparison struct {
	api.ReconcileResult
	orphans []orphan
	drift   int64 // active leases more than the engine's counter tells
}

// orphan is an account that no lease bears.
type orphan struct {
	engine.Account
	seen time.Time // first
	news bool      // this run is the first to see it
	old  bool      // it may be removed
}

// errNoList is the answer for an engine that has no Lister.
var errNoList = fault.New(fault.InvalidConfig, "an engine of this type cannot list its accounts, so there is nothing to reconcile")

// reconcile is a run; the caller holds the engine's lock. What was found is there, too, when a removal
// failed.
func (m *Manager) reconcile(ctx context.Context, pass *access.Pass, e *source.Engine, removal Removal) (*comparison, error) {
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return nil, source.Fault(e.Name, err)
	}
	defer h.Release()
	if err := e.Reached(h.SourceID()); err != nil {
		return nil, source.Fault(e.Name, err)
	}
	if _, ok := h.Engine.(engine.Lister); !ok {
		return nil, errNoList
	}
	// A lease may be active whose account was made after the list was: such young ones are not missing.
	settled := m.clock.Now().Add(-e.Config.OperationTimeout - grace)
	var accounts []engine.Account
	err = m.sources.Follow(ctx, e, h, func() (err error) {
		accounts, err = h.Engine.(engine.Lister).List(ctx) //nolint:forcetypeassert // all of an engine are of one type
		return err
	})
	if err != nil {
		return nil, source.Fault(e.Name, err)
	}
	found := &comparison{ReconcileResult: api.ReconcileResult{Engine: e.Name, DryRun: removal == RemoveNone, Accounts: len(accounts),
		Orphans: []string{}, Removed: []string{}, Pending: []string{}, Missing: []string{}, Residues: []string{}}}
	if err := m.compare(ctx, e, accounts, settled, found); err != nil {
		return nil, err
	}
	if err := m.remember(ctx, pass, e, found.orphans, removal); err != nil {
		return nil, err
	}
	for _, o := range found.orphans {
		found.Orphans = append(found.Orphans, o.Username)
		switch {
		case !o.old:
			found.Pending = append(found.Pending, o.Username)
		case removal != RemoveNone:
			err := m.sources.Follow(ctx, e, h, func() error {
				_, err := h.Revoke(ctx, o.Recipe)
				return err
			})
			if err != nil {
				return found, source.Fault(e.Name, err)
			}
			m.log.Warn("an account that no lease bears was removed", "engine", e.Name, "username", o.Username)
			m.metrics.Revocation(e.Name, api.ReasonReconciled, "revoked")
			found.Removed = append(found.Removed, o.Username)
		}
	}
	return found, nil
}

// compare looks the accounts up among all leases. It notes which of them no lease bears and which
// active leases have no account, and has accounts whose lease is closed looked at again. The counter
// of active leases is compared on the way, as all of them are read.
func (m *Manager) compare(ctx context.Context, e *source.Engine, accounts []engine.Account, settled time.Time, found *comparison) error {
	names := make([]string, len(accounts))
	for k, a := range accounts {
		names[k] = a.Username
	}
	var borne map[string]*store.Lease
	var missing, residues []string
	var active, counted int64
	err := m.store.Read(ctx, func(r store.Reader) (err error) {
		if borne, err = r.LeasesByUsername(names); err != nil {
			return err
		}
		active, counted = 0, 0
		missing, err = usernames(r, store.LeaseFilter{Tenant: e.Tenant, EngineID: e.ID, Status: api.LeaseActive}, func(l *store.Lease) bool {
			active++
			return borne[l.Username] == nil && l.IssuedAt.Before(settled) && l.ExpiresAt.After(r.Now())
		})
		if err != nil {
			return err
		}
		counts, err := r.LeaseCounts(e.ID)
		if err != nil {
			return err
		}
		for _, c := range counts {
			if c.Status == api.LeaseActive {
				counted += c.N
			}
		}
		residues, err = usernames(r, store.LeaseFilter{Tenant: e.Tenant, EngineID: e.ID, Residue: true}, func(*store.Lease) bool { return true })
		return err
	})
	if err != nil {
		return err
	}
	if found.drift = active - counted; found.drift != 0 {
		m.log.Error("the counter of an engine's active leases is wrong", "engine", e.Name, "active", active, "counted", counted)
	}
	found.Missing = append(found.Missing, missing...)
	found.Residues = append(found.Residues, residues...)
	for _, a := range accounts {
		l := borne[a.Username]
		switch {
		case l == nil:
			found.orphans = append(found.orphans, orphan{Account: a})
		case l.Status == api.LeaseRevoked && l.DueAt == nil:
			if err := m.lookAgain(ctx, l.ID); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(found.orphans, func(a, b orphan) int { return cmp.Compare(a.Username, b.Username) })
	return nil
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

// remember keeps when each orphan of the engine was first seen, and notes it with which may be removed:
// those seen at least orphanAge ago, since a restore where there was one. What is no orphan any more is
// forgotten. What is about to be removed is recorded first (law L7).
func (m *Manager) remember(ctx context.Context, pass *access.Pass, e *source.Engine, orphans []orphan, removal Removal) error {
	key := "orphans/" + e.ID
	return m.store.Write(ctx, func(tx store.Tx) error {
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
		var removing []string
		now := tx.Now()
		q, err := quarantine.Of(m.store.Config())
		if err != nil {
			return err
		}
		may := q.MayRemove(now) || removal == RemoveRestored && (q == nil || !q.Active)
		for k := range orphans {
			o := &orphans[k]
			seen, ok := before[o.Username]
			if o.news = !ok || q.Predates(seen); o.news {
				seen = now
			}
			o.seen, first[o.Username] = seen, seen
			if o.old = may && now.Sub(seen) >= orphanAge; o.old && removal != RemoveNone {
				removing = append(removing, o.Username)
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
