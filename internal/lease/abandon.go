package lease

import (
	"context"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Abandon states, on a person's word alone, that an engine's source no longer exists: every lease
// of it ends as source_abandoned, and one entry names each account that was given up (law L3).
func (m *Manager) Abandon(ctx context.Context, c *access.Caller, engineName string, req api.AbandonRequest) (*api.AbandonResult, error) {
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_revoke", Category: access.CategoryDynamicAdmin, Path: "dynamic/" + engineName,
		Any:   []access.Right{{Scope: access.ScopeAdmin, Permission: "admin", Path: "dynamic/" + engineName}},
		Extra: map[string]any{"engine": engineName, "reason": api.ReasonSourceAbandoned}})
	if err != nil {
		return nil, err
	}
	if req.Confirm != engineName || strings.TrimSpace(req.Reason) == "" || len(req.Reason) > 1024 {
		return nil, pass.Record(ctx, fault.New(fault.InvalidRequest, "accounts that are abandoned may live on at the source: give a reason, and the engine's name as confirm"))
	}
	pass.Set("statement", req.Reason)
	var gone []*store.Lease
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		gone = nil
		e, err := m.sources.Engine(cfg, c.Tenant, engineName)
		if err != nil {
			return err
		}
		// The fence withholds what is being issued at this moment.
		fence := &store.Fence{Tenant: c.Tenant, EngineID: e.ID, Reason: api.ReasonSourceAbandoned, By: c.Identity}
		if err := m.Fence(tx, fence); err != nil {
			return err
		}
		n, ids, err := tx.FencePending(fence, int(fence.Matched))
		if err != nil {
			return err
		}
		now := tx.Now()
		accounts := make([]string, 0, n)
		for _, id := range ids {
			l, err := tx.UpdateLease(id, func(l *store.Lease) error {
				ask(l, api.ReasonSourceAbandoned, c.Identity, now)
				l.Deadline = now
				end(l, now, api.ReasonSourceAbandoned)
				return nil
			})
			if err != nil {
				return err
			}
			gone, accounts = append(gone, l), append(accounts, l.Username)
		}
		pass.Set("accounts", accounts)
		return tx.CloseFence(c.Tenant, fence.Seq)
	})
	if err != nil {
		return nil, err
	}
	result := &api.AbandonResult{Engine: engineName, Abandoned: len(gone), Accounts: []string{}}
	for _, l := range gone {
		result.Accounts = append(result.Accounts, l.Username)
		m.metrics.Revocation(l.Engine, api.ReasonSourceAbandoned, "abandoned")
		m.ended(l.ID)
	}
	slices.Sort(result.Accounts)
	if len(gone) > 0 {
		m.log.Warn("a source was abandoned", "engine", engineName, "accounts", len(gone), "by", c.Identity)
		if err := m.sources.Drained(ctx, c.Tenant, gone[0].EngineID); err != nil {
			return nil, err
		}
	}
	return result, nil
}
