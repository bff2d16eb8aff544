package mongodb

import (
	"context"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. A user is made by one command and there is no way to switch one off,
// so one that is there can be used.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	const attempt = "look a credential up"
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return engine.Presence{}, err
	}
	if _, err := e.recognise(ctx, s, attempt); err != nil {
		return engine.Presence{}, plain(err)
	}
	found, err := s.find(ctx, attempt, []user{r.user()})
	switch {
	case err != nil:
		return engine.Presence{}, plain(err)
	case len(found) == 0:
		return engine.Presence{State: engine.Absent}, nil
	case !e.ours(found[0]):
		return engine.Presence{State: engine.Foreign}, nil
	}
	return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
}
