package lease

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// worker does the due work of one engine, and lives as long as there is some. Work is apart per
// engine, so that a source which is slow or dead delays only its own leases.
type worker struct {
	engineID string
	again    bool // asked for while it worked; under Manager.mu
	undone   bool // an outcome could not be written down; under Manager.mu

	failures int // of the source, in a row; then one lease is tried per probe
	probeAt  time.Time
}

// work sees to it that the engine's due rows are taken up.
func (m *Manager) work(engineID string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	w := m.workers[engineID]
	if w == nil {
		w = &worker{engineID: engineID}
		m.workers[engineID] = w
		m.wg.Go(func() { m.run(w) })
	}
	w.again = true
}

func (m *Manager) run(w *worker) {
	for m.rest(w) {
		limit := claimRows
		if w.failures > 0 {
			limit = 1
		}
		m.mu.Lock()
		w.again, w.undone = false, false
		m.mu.Unlock()
		rows, err := m.claim(w.engineID, limit)
		if err != nil {
			if m.ctx.Err() == nil {
				m.log.Error("due leases could not be claimed, trying again", "error", err)
			}
			w.probeAt = time.Now().Add(storeRetry)
			continue
		}
		if len(rows) == 0 && m.idle(w) {
			return
		}
		if len(rows) > 0 {
			m.do(w, rows)
		}
		m.mu.Lock()
		if again := time.Now().Add(storeRetry); w.undone && w.probeAt.Before(again) {
			w.probeAt = again
		}
		m.mu.Unlock()
	}
	m.mu.Lock()
	delete(m.workers, w.engineID)
	m.mu.Unlock()
}

// unwritten notes that what came of claimed rows of the engine could not be written down. The worker
// claims them again: its own former claim does not hold it up.
func (m *Manager) unwritten(engineID, what string, err error) {
	m.log.Error("an outcome could not be written down, it is done again", "outcome", what, "engine_id", engineID, "error", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.workers[engineID]; w != nil {
		w.undone = true
	}
}

// idle ends the worker unless it was asked for meanwhile. The scheduler looks again: what the worker
// wrote down may be due before the moment that it sleeps until.
func (m *Manager) idle(w *worker) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.again {
		return false
	}
	delete(m.workers, w.engineID)
	m.Kick()
	return true
}

// rest waits for the next probe of a source that is down; it is false when the manager stops.
func (m *Manager) rest(w *worker) bool {
	for {
		pause := time.Until(w.probeAt)
		if pause <= 0 || m.ctx.Err() != nil {
			return m.ctx.Err() == nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-m.ctx.Done():
		}
		timer.Stop()
	}
}

// claim takes the engine's due rows; one past its end is revoking from then on.
func (m *Manager) claim(engineID string, limit int) (rows []*store.Lease, err error) {
	no := m.claimNo.Add(1)
	err = m.store.Write(m.ctx, func(tx store.Tx) error {
		rows = nil
		if quarantine.Active(m.store.Config()) {
			return nil // all of it stays due
		}
		now := tx.Now()
		rows, err = tx.ClaimDue(engineID, now, limit, store.Claim{Node: m.store.Node(), Epoch: m.store.Epoch(), No: no,
			Until: now.Add(m.claimFor(engineID))})
		for k, l := range rows {
			if err == nil && l.Status == api.LeaseActive && !l.ExpiresAt.After(now) {
				rows[k], err = tx.UpdateLease(l.ID, func(l *store.Lease) error {
					ask(l, api.ReasonExpired, Identity, l.ExpiresAt)
					return nil
				})
			}
		}
		return err
	})
	return rows, err
}

// claimFor is how long a claim holds: a batch may take the operation's time-out twice, once to be
// settled and once to be revoked, one after the other for the batches of a claim.
func (m *Manager) claimFor(engineID string) time.Duration {
	timeout := 15 * time.Second
	if o := m.store.Config().Object(store.DefaultTenant, store.KindEngine, engineID); o != nil {
		if e, err := m.sources.EngineByID(m.store.Config(), o.Tenant, engineID); err == nil {
			timeout = e.Config.OperationTimeout
		}
	}
	return 2*timeout*(claimRows/batchRows/batchesAtOnce) + 10*time.Second
}

// do works off claimed rows and learns from the result whether the source is there.
func (m *Manager) do(w *worker, rows []*store.Lease) {
	e, err := m.sources.EngineByID(m.store.Config(), rows[0].Tenant, w.engineID)
	if fault.CodeOf(err) == fault.EngineNotFound {
		m.outlived(rows)
		return
	}
	down := err
	if err == nil {
		down = m.atEngine(e, rows)
	}
	if e != nil {
		m.sources.Observe(e, down == nil)
	}
	if down == nil {
		w.failures, w.probeAt = 0, time.Time{}
		if err := m.sources.Drained(m.ctx, rows[0].Tenant, w.engineID); err != nil && m.ctx.Err() == nil {
			m.log.Error("an engine that waits for its last lease could not be looked at", "error", err)
		}
		return
	}
	if kind(down) == engine.WrongServer {
		m.sources.Reopen(w.engineID) // the right one may be there at the next probe
	}
	w.failures++
	w.probeAt = time.Now().Add(jitter(backoff(w.failures, maxProbe)))
	m.log.Warn("the source cannot be used, its leases wait", "engine", rows[0].Engine, "reason", source.Reason(down), "failures", w.failures)
}

// atEngine does what each row needs. The error is why the source as a whole cannot be used.
func (m *Manager) atEngine(e *source.Engine, rows []*store.Lease) error {
	ctx, cancel := context.WithTimeout(m.ctx, m.claimFor(e.ID)-5*time.Second)
	defer cancel()
	h, err := m.sources.Acquire(ctx, e)
	if err != nil {
		m.postpone(rows, err, true)
		return err
	}
	defer h.Release()

	var elsewhere, uncertain, ends, dying, late []*store.Lease
	for _, l := range rows {
		switch {
		case !e.Accepts(l.SourceID, h.SourceID()):
			elsewhere = append(elsewhere, l)
		case l.Status == api.LeaseIssuing:
			uncertain = append(uncertain, l)
		case l.Status == api.LeaseActive:
			ends = append(ends, l)
		case l.Status == api.LeaseRevoking:
			dying = append(dying, l)
		default:
			late = append(late, l)
		}
	}
	if len(elsewhere) > 0 {
		m.postpone(elsewhere, otherServer(), false)
		m.sources.Reopen(e.ID) // the right server may be back at the next try
	}
	err = errors.Join(
		m.kill(ctx, h, e, dying),
		m.settle(ctx, h, e, uncertain),
		m.resetEnds(ctx, h, e, ends),
		m.lookLate(ctx, h, e, late))
	next, unusable := m.sources.Fresh(ctx, e, h, err)
	if next != nil {
		next.Release() // the next probe finds it
		return err
	}
	return unusable
}

// kill revokes rows at the source, in batches, and closes each as soon as it is dead.
func (m *Manager) kill(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease) error {
	begun := m.clock.Now()
	rows, err := m.excludeLate(ctx, h, e, rows)
	if err != nil {
		return err
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		down error
		room = make(chan struct{}, batchesAtOnce)
	)
	for len(rows) > 0 {
		batch := rows[:min(batchRows, len(rows))]
		rows = rows[len(batch):]
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := m.killBatch(ctx, h, e, batch, begun); err != nil {
				mu.Lock()
				down = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return down
}

func (m *Manager) killBatch(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease, begun time.Time) error {
	failpoint.Hit(failpoint.R1)
	results := revokeAll(ctx, h.Engine, rows, e.Config.OperationTimeout)
	var dead, failed []*store.Lease
	var outcomes []engine.Outcome
	var down error
	for k, r := range results {
		if r.Err == nil {
			dead = append(dead, rows[k])
			outcomes = append(outcomes, r.Outcome)
			continue
		}
		if sourceWide(r.Err) {
			down = r.Err
			failed = append(failed, rows[k])
			continue
		}
		m.postpone(rows[k:k+1], r.Err, false)
	}
	if len(dead) > 0 {
		m.close(dead, outcomes, begun)
		if down != nil && len(failed) < len(rows)/2 {
			m.postpone(failed, down, false)
			return nil
		}
	}
	if len(failed) > 0 {
		m.postpone(failed, down, true)
	}
	return down
}

// revokeAll revokes rows with the means the engine has.
func revokeAll(ctx context.Context, e engine.Engine, rows []*store.Lease, timeout time.Duration) []engine.Result {
	recipes := make([]engine.Recipe, len(rows))
	for k, l := range rows {
		recipes[k] = l.Recipe
	}
	if b, ok := e.(engine.BatchRevoker); ok && len(rows) > 1 {
		return b.RevokeBatch(ctx, recipes)
	}
	results := make([]engine.Result, len(rows))
	for k := range rows {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		results[k].Outcome, results[k].Err = e.Revoke(bounded, recipes[k])
		cancel()
		if sourceWide(results[k].Err) {
			for rest := k + 1; rest < len(rows); rest++ {
				results[rest].Err = results[k].Err
			}
			break
		}
	}
	return results
}

// close writes down what a revocation came to, with one entry per lease.
func (m *Manager) close(rows []*store.Lease, outcomes []engine.Outcome, begun time.Time) {
	var ended, promised []*store.Lease
	err := m.store.Write(m.writing(), func(tx store.Tx) error {
		ended, promised = ended[:0], promised[:0]
		now := tx.Now()
		if err := tx.LockLeases(idsOf(rows)); err != nil {
			return err
		}
		for k, row := range rows {
			l, err := m.updateClaimed(tx, row, func(l *store.Lease) {
				killed(l, outcomes[k], begun, now)
			})
			if err != nil {
				return err
			}
			if l != nil && l.Status == api.LeaseRevoking && l.Revocation.EffectiveAt != nil {
				promised = append(promised, l)
			}
			if l == nil || l.Status != api.LeaseRevoked {
				continue
			}
			ended = append(ended, l)
			failpoint.Hit(failpoint.R4)
			extra := map[string]any{"reason": l.Revocation.Reason, "outcome": "revoked", "requested_by": l.Revocation.RequestedBy}
			if l.Revocation.Residue != "" {
				extra["residue"] = true
			}
			if err := tx.Audit(l.Tenant, entry(l, "dynamic_revoke", true, extra)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		m.unwritten(rows[0].EngineID, "a batch of revocations", err)
		return
	}
	failpoint.Hit(failpoint.R5)
	for _, l := range promised { // who waits is answered when it will be dead
		m.ended(l.ID)
	}
	for _, l := range ended {
		what := "revoked"
		if l.Revocation.Residue != "" {
			what = "residue"
		}
		m.metrics.Revocation(l.Engine, l.Revocation.Reason, what)
		m.metrics.RevocationLag(l.RevokedAt.Sub(l.Revocation.RequestedAt))
		m.ended(l.ID)
	}
}

// killed is the row after its account died, or is going to. begun is when the work began: an account
// that was found absent before the issuance's deadline may have come to be meanwhile.
func killed(l *store.Lease, o engine.Outcome, begun, now time.Time) {
	if l.Status != api.LeaseRevoking {
		return
	}
	l.Revocation.Attempts++
	l.Revocation.LastError = ""
	if o.Residue != "" { // kept from the attempt that saw it: a later one may find nothing any more that leads there
		l.Revocation.Residue = o.Residue
	}
	effective := o.EffectiveAt
	if effective != nil && l.Revocation.EffectiveAt != nil {
		effective = l.Revocation.EffectiveAt // what was promised first
	}
	switch {
	case effective != nil && effective.After(now):
		l.Revocation.EffectiveAt, l.Revocation.NextAttemptAt = effective, effective
		l.DueAt = effective
		return
	case !l.Deadline.IsZero() && begun.Before(l.Deadline.Add(grace)):
		// The source may still make it: looked at again after the deadline. Begun and now are told by
		// two clocks, which agree soon, not at once: never is that look due already.
		due := later(now.Add(time.Second), l.Deadline.Add(grace))
		l.DueAt, l.Revocation.NextAttemptAt = &due, &due
		return
	}
	uncertain := !l.Deadline.IsZero()
	l.Deadline = time.Time{}
	end(l, now, l.Revocation.Reason)
	switch {
	case l.Revocation.Residue != "":
		due := now.Add(residueRetry)
		l.DueAt = &due
	case uncertain:
		l.LateLooks = 2
		due := now.Add(firstLateLook)
		l.DueAt = &due
	}
}

// postpone puts failed rows back: when the source is down they stay due and the engine's probe
// decides, else each has its own backoff. Without limit (law L3).
func (m *Manager) postpone(rows []*store.Lease, cause error, down bool) {
	reason := source.Reason(cause)
	err := m.store.WriteRelaxed(m.writing(), func(tx store.Tx) error {
		now := tx.Now()
		for _, row := range rows {
			if _, err := m.updateClaimed(tx, row, func(l *store.Lease) {
				due := now
				if r := l.Revocation; r != nil && l.Status == api.LeaseRevoking {
					r.Attempts++
					r.LastError = reason
					if !down {
						due = now.Add(jitter(backoff(r.Attempts, maxBackoff)))
					}
					r.NextAttemptAt = &due
				} else if !down && l.Status == api.LeaseRevoked {
					due = now.Add(jitter(maxBackoff)) // it is closed: only looked at once more
				} else if !down {
					due = now.Add(jitter(maxProbe))
				}
				if l.Status == api.LeaseActive {
					due = earlier(due, l.ExpiresAt)
				}
				l.DueAt = &due
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && m.ctx.Err() == nil {
		m.unwritten(rows[0].EngineID, "what failed at the source", err)
	}
	for _, l := range rows {
		if l.Status == api.LeaseRevoking {
			m.metrics.Revocation(l.Engine, l.Revocation.Reason, "failed")
		}
	}
}

// outlived lets go of rows whose engine is gone. Only closed leases outlive their engine, and
// nothing is left to look at; a row that lives keeps its due moment whatever has happened.
func (m *Manager) outlived(rows []*store.Lease) {
	err := m.store.WriteRelaxed(m.writing(), func(tx store.Tx) error {
		due := tx.Now().Add(maxBackoff)
		for _, row := range rows {
			if _, err := m.updateClaimed(tx, row, func(l *store.Lease) {
				if l.DueAt = nil; l.Status != api.LeaseRevoked {
					l.DueAt = &due
					m.log.Error("a living lease has no engine", "lease_id", l.ID, "username", l.Username)
				}
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && m.ctx.Err() == nil {
		m.unwritten(rows[0].EngineID, "the release of claimed leases", err)
	}
}

func idsOf(rows []*store.Lease) []string {
	ids := make([]string, len(rows))
	for k, l := range rows {
		ids[k] = l.ID
	}
	return ids
}

// updateClaimed changes a row if it is still claimed by us, and ends the claim; nil if it is not:
// somebody else has taken it over and will do it again.
func (m *Manager) updateClaimed(tx store.Tx, row *store.Lease, fn func(l *store.Lease)) (*store.Lease, error) {
	mine := false
	l, err := tx.UpdateLease(row.ID, func(l *store.Lease) error {
		if mine = l.Claim != nil && *l.Claim == *row.Claim; mine {
			l.Claim = nil
			fn(l)
		}
		return nil
	})
	if err != nil || !mine {
		return nil, err
	}
	return l, nil
}

// writing is the context of what must be written down although the manager stops.
func (m *Manager) writing() context.Context { return context.WithoutCancel(m.ctx) }

// sourceWide tells whether an error says that the source as a whole cannot be used now.
func sourceWide(err error) bool {
	switch kind(err) {
	case engine.Unreachable, engine.Uncertain, engine.Misconfigured, engine.WrongServer:
		return true
	}
	return false
}

func otherServer() error {
	return &engine.Error{Kind: engine.WrongServer, Reason: "the engine now reaches another server than the lease was made on: restore the former one, or state with accept-source that this is right"}
}

// backoff doubles from one second up to most.
func backoff(attempts int, most time.Duration) time.Duration {
	if attempts > 12 {
		return most
	}
	return min(time.Second<<max(attempts-1, 0), most)
}

// jitter spreads retries over half of the time.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d/2+1) //nolint:gosec // nothing secret depends on it
}
