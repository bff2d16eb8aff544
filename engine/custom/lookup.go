package custom

import (
	"context"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. A program without such a function leaves it unknown what became of
// an issuance that nobody saw the end of: it is called unusable, so that the name is revoked.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := e.readRecipe(raw)
	if err != nil || !e.can[functionLookup] {
		return engine.Presence{State: engine.Unusable}, err
	}
	var found lookedUp
	q := r.request(functionLookup)
	if err := e.call(ctx, &q, &found); err != nil {
		return engine.Presence{}, err
	}
	switch found.State {
	case "absent":
		return engine.Presence{State: engine.Absent}, nil
	case "unusable":
		return engine.Presence{State: engine.Unusable}, nil
	case "foreign":
		return engine.Presence{State: engine.Foreign}, nil
	case "usable":
		if given(found.Ref) && e.checkRef(&q, found.Ref) == nil { // else it is found by its name
			r.Ref = found.Ref
		}
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	}
	return engine.Presence{}, e.broken(&q, &failure{code: codeReply, err: replyError("state is none of absent, unusable, usable and foreign")})
}
