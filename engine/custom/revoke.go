package custom

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// maxResidue bounds what a program may say of what it left.
const maxResidue = 1 << 10

// Revoke implements engine.Engine.
func (e *Engine) Revoke(ctx context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Outcome{}, err
	}
	var done revoked
	q := r.request(functionRevoke)
	ctx = failpoint.OnSending(ctx, failpoint.R2)
	if err := e.call(ctx, &q, &done); err != nil {
		return engine.Outcome{}, err
	}
	failpoint.Hit(failpoint.R3)
	return engine.Outcome{Residue: q.shown(done.Residue, maxResidue), EffectiveAt: done.EffectiveAt}, nil
}

// Renew implements engine.Renewer. Where the program has no such function its source enforces no end,
// and there is nothing to move.
func (e *Engine) Renew(ctx context.Context, raw engine.Recipe, until time.Time) error {
	r, err := e.readRecipe(raw)
	if err != nil || !e.can[functionRenew] {
		return err
	}
	q := r.request(functionRenew)
	until = until.UTC()
	q.ExpiresAt = &until
	return e.call(ctx, &q, &renewed{})
}
