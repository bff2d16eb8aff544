package redis

import (
	"context"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. A credential is usable if it is on
// everywhere; one that is missing or off on a node that answers is half made, or
// half ended.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	const attempt = "look a credential up"
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return engine.Presence{}, plain(err)
	}
	var mu sync.Mutex
	var on, off, absent, foreign int
	outcomes := onEach(members, func(m member) error {
		return m.pool.With(ctx, engine.Revoking, func(c *conn) error {
			answer, err := c.do(ctx, "ACL", "GETUSER", r.Username)
			if err != nil {
				return asked(attempt, err)
			}
			a, there := readUser(r.Username, answer)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !there:
				absent++
			case !e.ours(a):
				foreign++
			case a.on:
				on++
			default:
				off++
			}
			return nil
		})
	})
	if err := firstError(outcomes); err != nil {
		if away(err) {
			e.forgetSurvey()
		}
		return engine.Presence{}, plain(err)
	}
	switch asked := on + off + absent + foreign; {
	case on == asked && on > 0:
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	case on+off > 0:
		return engine.Presence{State: engine.Unusable}, nil
	case foreign > 0:
		return engine.Presence{State: engine.Foreign}, nil
	case asked < len(members):
		return engine.Presence{}, busy(attempt+": it is not on the nodes that answer, and not all of them do", nil)
	}
	return engine.Presence{State: engine.Absent}, nil
}
