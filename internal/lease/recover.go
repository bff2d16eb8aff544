package lease

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// settle decides issuances that nobody confirmed, after their deadline: late execution is excluded
// first, only then is the name looked up. What can be used stays to its normal end, since the
// caller may hold it; what cannot, or is not there, is closed.
func (m *Manager) settle(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease) error {
	rows, err := m.excludeLate(ctx, h, e, rows)
	if err != nil {
		return err
	}
	for k, l := range rows {
		bounded, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
		found, err := h.Lookup(bounded, l.Recipe)
		if err == nil && found.State == engine.Unusable {
			_, err = h.Revoke(bounded, l.Recipe)
		}
		cancel()
		if sourceWide(err) {
			m.postpone(rows[k:], err, true)
			return err
		}
		if err != nil {
			m.postpone(rows[k:k+1], err, false)
			continue
		}
		failpoint.Hit(failpoint.Found)
		m.decide(l, found)
	}
	return nil
}

// decide writes down what a look at an unconfirmed issuance has found.
func (m *Manager) decide(row *store.Lease, found engine.Presence) {
	err := m.store.Write(m.writing(), func(tx store.Tx) error {
		now := tx.Now()
		fences, err := tx.FencesSince(row.Tenant, row.FenceSeq)
		if err != nil {
			return err
		}
		l, err := m.updateClaimed(tx, row, func(l *store.Lease) {
			if l.Status == api.LeaseRevoking { // revoked meanwhile: the worker takes it up as such
				if found.State == engine.Usable {
					l.Recipe = found.Recipe
				}
				l.DueAt = &now
				return
			}
			l.Deadline = time.Time{}
			switch {
			case found.State == engine.Usable:
				l.Status, l.Unconfirmed, l.Recipe = api.LeaseActive, true, found.Recipe
				due := l.ExpiresAt
				l.DueAt = &due
				applyFences(l, fences, now)
			default:
				end(l, now, api.ReasonIssueFailed)
				l.LateLooks = 2
				due := now.Add(firstLateLook)
				l.DueAt = &due
			}
		})
		if err != nil || l == nil {
			return err
		}
		extra := outcome(l, "recovered")
		switch l.Status {
		case api.LeaseRevoked:
			extra["outcome"] = "failed"
		case api.LeaseRevoking:
			extra["outcome"] = "withheld"
		}
		return tx.Audit(l.Tenant, entry(l, "dynamic_generate", l.Status == api.LeaseActive, extra))
	})
	if err != nil {
		m.unwritten(row.EngineID, "a recovered issuance", err)
		return
	}
	m.ended(row.ID)
	m.Kick()
}

// excludeLate ends at the source what the issuing nodes may still have under way for rows whose
// outcome is not known, so that "not there" is final. Rows that need no such thing pass.
func (m *Manager) excludeLate(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease) ([]*store.Lease, error) {
	settler, ok := h.Engine.(engine.Settler)
	if !ok {
		return rows, nil
	}
	now := m.clock.Now()
	byNode := map[string][]engine.Recipe{}
	for _, l := range rows {
		if !l.Deadline.IsZero() && now.After(l.Deadline) {
			byNode[l.Node] = append(byNode[l.Node], l.Recipe)
		}
	}
	for node, recipes := range byNode {
		bounded, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
		err := settler.Settle(bounded, node, recipes)
		cancel()
		if err != nil {
			m.postpone(rows, err, sourceWide(err))
			if sourceWide(err) {
				return nil, err
			}
			return nil, nil
		}
	}
	return rows, nil
}

// resetEnds sets the end at the source again from the end that holds, where a renewal was not
// finished: nobody knows which of the two the source has.
func (m *Manager) resetEnds(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease) error {
	renewer, ok := h.Engine.(engine.Renewer)
	for k, l := range rows {
		if l.PendingExpiresAt != nil && ok {
			bounded, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
			err := renewer.Renew(bounded, l.Recipe, m.clock.Local(l.ExpiresAt))
			cancel()
			if sourceWide(err) {
				m.postpone(rows[k:], err, true)
				return err
			}
			if err != nil {
				m.postpone(rows[k:k+1], err, false)
				continue
			}
		}
		err := m.store.Write(m.writing(), func(tx store.Tx) error {
			_, err := m.updateClaimed(tx, l, func(l *store.Lease) {
				if l.Status == api.LeaseActive {
					due := l.ExpiresAt
					l.PendingExpiresAt, l.PendingDeadline, l.DueAt = nil, nil, &due
				}
			})
			return err
		})
		if err != nil {
			m.unwritten(l.EngineID, "a renewal's end", err)
		}
	}
	return nil
}

// lookLate looks once more at closed leases: for an account that came to be after all, and for a
// residue that may have gone.
func (m *Manager) lookLate(ctx context.Context, h *source.Handle, e *source.Engine, rows []*store.Lease) error {
	for k, l := range rows {
		bounded, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
		found, err := h.Lookup(bounded, l.Recipe)
		var left engine.Outcome
		alive := err == nil && (found.State == engine.Usable || found.State == engine.Unusable)
		elsewhere := err == nil && found.State == engine.Absent && l.Revocation.Residue != "" // such as in a policy
		if alive || elsewhere {
			recipe := l.Recipe
			if found.Recipe != nil {
				recipe = found.Recipe
			}
			left, err = h.Revoke(bounded, recipe)
		}
		cancel()
		if sourceWide(err) {
			m.postpone(rows[k:], err, true)
			return err
		}
		if err != nil {
			m.postpone(rows[k:k+1], err, false)
			continue
		}
		if alive && found.State == engine.Usable {
			m.log.Error("an account came to be after its issuance was given up; it is dead now", "engine", l.Engine, "lease_id", l.ID, "username", l.Username)
			m.metrics.Revocation(l.Engine, api.ReasonIssueFailed, "late")
		}
		m.lookedLate(l, left, alive)
	}
	return nil
}

func (m *Manager) lookedLate(row *store.Lease, left engine.Outcome, was bool) {
	err := m.store.Write(m.writing(), func(tx store.Tx) error {
		now := tx.Now()
		l, err := m.updateClaimed(tx, row, func(l *store.Lease) {
			l.DueAt = nil
			l.Revocation.Residue = left.Residue
			if l.LateLooks > 0 {
				l.LateLooks--
			}
			switch {
			case left.Residue != "":
				due := now.Add(residueRetry)
				l.DueAt = &due
			case l.LateLooks > 0:
				due := now.Add(secondLateLook - firstLateLook)
				l.DueAt = &due
			}
		})
		if err != nil || l == nil || !was {
			return err
		}
		return tx.Audit(l.Tenant, entry(l, "dynamic_revoke", true, map[string]any{"reason": l.Revocation.Reason, "outcome": "looked_again", "residue": left.Residue != ""}))
	})
	if err != nil {
		m.unwritten(row.EngineID, "a late look", err)
	}
}
