package source

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/store"
)

// ReconcileState is what is kept of an engine's reconciles.
type ReconcileState struct {
	Next time.Time           `json:"next,omitzero"` // when the next scheduled one is; zero before that is decided
	Last api.ReconcileReport `json:"last"`
}

func reconcileKey(e *Engine) string { return "reconcile/" + e.ID }

// Reconciled reads what is kept of an engine's reconciles; the zero state before there was any.
func Reconciled(r store.Reader, e *Engine) (*ReconcileState, error) {
	s := new(ReconcileState)
	raw, err := r.Meta(reconcileKey(e))
	if err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, s)
	}
	return s, err
}

// Put keeps the state, in the caller's transaction.
func (s *ReconcileState) Put(tx store.Tx, e *Engine) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.PutMeta(reconcileKey(e), raw)
}

// LastReconcile shows what the engine's last reconcile found. The source is not asked.
func (s *Service) LastReconcile(ctx context.Context, c *access.Caller, name string) (*api.ReconcileReport, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryDynamicAdmin,
		Any: []access.Right{read(name, "")}, Extra: map[string]any{"reconcile": true}})
	if err != nil {
		return nil, err
	}
	report, err := s.lastReconcile(ctx, c.Tenant, name)
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return report, nil
}

func (s *Service) lastReconcile(ctx context.Context, tenant, name string) (*api.ReconcileReport, error) {
	e, err := s.Engine(s.store.Config(), tenant, name)
	if err != nil {
		return nil, err
	}
	var kept *ReconcileState
	err = s.store.Read(ctx, func(r store.Reader) (err error) {
		kept, err = Reconciled(r, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	report := &kept.Last
	report.Engine = name
	if e.ReconcileEvery() > 0 && !kept.Next.IsZero() {
		report.NextAt = &kept.Next
	}
	if report.At == nil {
		report.Orphans, report.Removed, report.Missing = []api.Orphan{}, []string{}, []string{}
	}
	return report, nil
}
