package lease

import (
	"context"
	"errors"
	"math/rand/v2"
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

const (
	// reconcileLook bounds how long an engine that was made or changed waits to be planned.
	reconcileLook = time.Minute
	// reconcileRetry is when an engine is looked at again whose turn did not pass: another node was at
	// it and may have died, or the store was away.
	reconcileRetry = 10 * time.Second
	// reconcilesAtOnce bounds the runs of a node. It is large, since a source that hangs keeps its
	// place for the whole of its time-outs: it must not keep others from theirs.
	reconcilesAtOnce = 64
	// reported bounds each list of a report.
	reported = 1000
)

// reconciler runs the scheduled reconciles, on every node of a store. When an engine's next one is
// stands in the store and moves on with the report of the run, under the engine's lock: so one node
// does it, and one that a crash cut off is done again. It belongs to one goroutine.
type reconciler struct {
	*Manager
	looks map[string]time.Time // by engine id: when to read its turn next, in agreed time
	busy  map[string]bool      // engines at work on this node
	done  chan string
}

func (m *Manager) reconciles() {
	r := &reconciler{Manager: m, looks: map[string]time.Time{}, busy: map[string]bool{}, done: make(chan string, reconcilesAtOnce)}
	for {
		timer := time.NewTimer(r.lookRound())
		select {
		case <-timer.C:
		case id := <-r.done:
			delete(r.busy, id)
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// lookRound begins what is due and tells how long there is nothing to do.
func (r *reconciler) lookRound() time.Duration {
	cfg := r.store.Config()
	if quarantine.Active(cfg) {
		return reconcileLook
	}
	now, wait := r.clock.Now(), reconcileLook
	looks := make(map[string]time.Time, len(r.looks))
	for _, o := range cfg.List(store.DefaultTenant, store.KindEngine, "") {
		e, err := r.sources.EngineByID(cfg, o.Tenant, o.ID)
		if err != nil || e.ReconcileEvery() <= 0 {
			continue
		}
		look := r.looks[e.ID]
		if !look.After(now) || look.After(now.Add(e.ReconcileEvery())) {
			look = r.lookAtTurn(e, now)
		}
		looks[e.ID] = look
		wait = min(wait, max(look.Sub(now), 0))
	}
	r.looks = looks
	return wait
}

// lookAtTurn begins the engine's reconcile if its turn has come, and tells when to look again.
func (r *reconciler) lookAtTurn(e *source.Engine, now time.Time) time.Time {
	turn, err := r.turn(r.ctx, e, now)
	switch {
	case err != nil:
		if r.ctx.Err() == nil {
			r.log.Error("an engine's next reconcile could not be read, trying again", "engine", e.Name, "error", err)
		}
	case turn.After(now):
		return turn
	case r.busy[e.ID], len(r.busy) >= reconcilesAtOnce:
	case r.sources.Away(e) && now.Sub(turn) < e.ReconcileEvery():
		// It is left alone until it has answered somebody, but not for ever: there may be nobody else
		// who asks.
	default:
		r.busy[e.ID] = true
		r.wg.Go(func() {
			r.reconcileTurn(e)
			r.done <- e.ID
		})
	}
	return now.Add(reconcileRetry)
}

// turn is when the engine's next scheduled reconcile is. The first is at any moment within the
// interval, so that engines made together do not run together; the same is drawn anew where the one
// planned lies further away than that, by an interval that was longer or a clock that was wrong.
func (m *Manager) turn(ctx context.Context, e *source.Engine, now time.Time) (time.Time, error) {
	planned := func(r store.Reader) (*source.ReconcileState, bool, error) {
		s, err := source.Reconciled(r, e)
		return s, err == nil && !s.Next.IsZero() && !s.Next.After(now.Add(e.ReconcileEvery())), err
	}
	var s *source.ReconcileState
	var ok bool
	err := m.store.Read(ctx, func(r store.Reader) (err error) {
		s, ok, err = planned(r)
		return err
	})
	if err == nil && !ok {
		err = m.store.Write(ctx, func(tx store.Tx) (err error) {
			if s, ok, err = planned(tx); err != nil || ok {
				return err
			}
			s.Next = now.Add(rand.N(e.ReconcileEvery()).Truncate(time.Microsecond)) //nolint:gosec // to get out of step, no secret
			return s.Put(tx, e)
		})
	}
	if err != nil {
		return time.Time{}, err
	}
	return s.Next, nil
}

// reconcileTurn is one scheduled run, unless another node is at it or has done it.
func (m *Manager) reconcileTurn(e *source.Engine) {
	hold := m.claimFor(e.ID)
	ctx, cancel := context.WithTimeout(m.ctx, hold-5*time.Second) // what is left is for the report
	defer cancel()
	one, err := lock.Acquire(ctx, m.store, reconcileLock(e), hold)
	if errors.Is(err, lock.ErrHeld) {
		return
	}
	if err != nil {
		if m.ctx.Err() == nil {
			m.log.Error("the lock of a scheduled reconcile could not be had, trying again", "engine", e.Name, "error", err)
		}
		return
	}
	defer m.releaseReconcile(m.writing(), one, e)
	now := m.clock.Now()
	if turn, err := m.turn(ctx, e, now); err != nil || turn.After(now) {
		return
	}
	removal := RemoveNone
	if e.Config.Reconcile == engine.ReconcileRemove {
		removal = RemoveOld
	}
	pass, err := m.door.Admit(ctx, access.System(e.Tenant, Identity), access.Ask{Action: "dynamic_engine_update", Path: "dynamic/" + e.Name,
		Extra: map[string]any{"engine": e.Name, "reconcile": true, "scheduled": true, "dry_run": removal == RemoveNone}})
	if err != nil {
		return // a quarantine has begun; the turn stays
	}
	found, err := m.reconcile(ctx, pass, e, removal)
	if m.ctx.Err() != nil {
		return // it is done again
	}
	if !errors.Is(err, errNoList) {
		m.sources.Observe(e, fault.CodeOf(err) != fault.EngineUnavailable)
	}
	if m.keepReport(one, e, found, err, true) {
		m.recordTurn(pass, e, found, err)
	}
}

// recordTurn writes the entry of a scheduled run that has something to tell: a chain that grows each
// hour for every engine, by runs that found what the one before had found, hides what matters.
func (m *Manager) recordTurn(pass *access.Pass, e *source.Engine, found *comparison, failed error) {
	if found != nil {
		pass.Set("orphans", found.Orphans)
		pass.Set("removed", found.Removed)
	}
	if failed != nil {
		m.log.Warn("a scheduled reconcile failed", "engine", e.Name, "reason", fault.From(failed).Message)
	} else if len(found.Orphans) > len(found.Removed) {
		m.log.Warn("there are accounts that no lease bears", "engine", e.Name, "count", len(found.Orphans)-len(found.Removed))
	}
	if err := pass.Record(m.writing(), failed); err != nil && failed == nil {
		m.log.Error("a scheduled reconcile could not be recorded", "engine", e.Name, "error", err)
	}
}

// keepReport writes down what a run came to, if the lock is still held, and moves the turn on where it
// was a scheduled one. news tells that it found an orphan for the first time, removed one, or failed
// where the one before had not.
func (m *Manager) keepReport(one *lock.Lock, e *source.Engine, found *comparison, failed error, scheduled bool) (news bool) {
	err := m.store.Write(m.writing(), func(tx store.Tx) error {
		if err := one.Guard(tx); err != nil {
			return err
		}
		s, err := source.Reconciled(tx, e)
		if err != nil {
			return err
		}
		now := tx.Now()
		if every := e.ReconcileEvery(); scheduled && every > 0 {
			s.Next = now.Add((every - rand.N(every/10+1)).Truncate(time.Microsecond)) //nolint:gosec // to get out of step, no secret
		}
		if errors.Is(failed, errNoList) {
			news = false
			return s.Put(tx, e)
		}
		news = failed != nil && s.Last.Error == nil || found != nil && found.news()
		report(&s.Last, found, failed, now)
		return s.Put(tx, e)
	})
	if err != nil {
		m.log.Error("the report of a reconcile could not be kept", "engine", e.Name, "error", err)
	}
	return news && err == nil
}

func (c *comparison) news() bool {
	return len(c.Removed) > 0 || slices.ContainsFunc(c.orphans, func(o orphan) bool { return o.news })
}

// report brings the last report up to date. A run that could not list the accounts leaves what the one
// before had found: a source that is away has not lost its orphans.
func report(last *api.ReconcileReport, found *comparison, failed error, now time.Time) {
	last.At, last.Error, last.Removed = &now, nil, []string{}
	if failed != nil {
		reason := fault.From(failed).Message
		last.Error = &reason
	}
	if last.Orphans == nil {
		last.Orphans, last.Missing = []api.Orphan{}, []string{}
	}
	if found == nil {
		return
	}
	last.ListedAt, last.Accounts, last.CounterDrift = &now, found.Accounts-len(found.Removed), found.drift
	last.Removed = found.Removed[:min(len(found.Removed), reported)]
	last.MissingCount, last.Missing = len(found.Missing), found.Missing[:min(len(found.Missing), reported)]
	last.OrphanCount, last.Orphans = len(found.orphans)-len(found.Removed), []api.Orphan{}
	removed := make(map[string]bool, len(found.Removed))
	for _, name := range found.Removed {
		removed[name] = true
	}
	for _, o := range found.orphans {
		if !removed[o.Username] && len(last.Orphans) < reported {
			last.Orphans = append(last.Orphans, api.Orphan{Username: o.Username, FirstSeen: o.seen})
		}
	}
}
