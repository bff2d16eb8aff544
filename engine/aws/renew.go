package aws

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
)

const renewing = "renew a credential"

// Renew implements engine.Renewer: it moves the moment after which the user is denied everything.
func (e *Engine) Renew(ctx context.Context, raw engine.Recipe, until time.Time) error {
	r, err := e.readRecipe(raw)
	if err != nil {
		return err
	}
	if r.Type != iamUser {
		return failure(engine.Refused, renewing+": the end of a session cannot be moved", nil)
	}
	c, err := e.reach()
	if err != nil {
		return err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	u, err := findUser(ctx, c, r.Username)
	if err != nil {
		return err
	}
	if u == nil || !e.ours(u, r) {
		return failure(engine.Refused, renewing+": its user is gone", nil)
	}
	if deadline, ok := ctx.Deadline(); ok { // a late one must not take the place of what was set after it
		ctx = withFence(ctx, deadline)
	}
	err = putUserPolicy(ctx, c, r.Username, endPolicy, endDocument(until))
	if gone(err) {
		return failure(engine.Refused, renewing+": its user is gone", nil)
	} else if err != nil {
		return sent(renewing, err)
	}
	return nil
}
