package mongodb

import (
	"context"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// Settle implements engine.Settler. It drops the fences behind which the recipes' users were to be made
// (fence.go), whichever node sent what is still under way.
func (e *Engine) Settle(ctx context.Context, _ string, raws []engine.Recipe) error {
	const attempt = "cut late creations off"
	var fences []grant
	for _, raw := range raws {
		r, err := e.readRecipe(raw)
		if err != nil {
			return err
		}
		if f := (grant{r.Fence, r.Database}); f.Role != "" && !slices.Contains(fences, f) {
			fences = append(fences, f)
		}
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return err
	}
	if _, err := e.recognise(ctx, s, attempt); err != nil {
		return plain(err)
	}
	for _, f := range fences {
		if !e.options.Namer.OursMark(f.Role) {
			continue // of a lease whose recipe was tampered with
		}
		e.retire(f)
		if err := s.dropRole(ctx, f); err != nil {
			return sentError(attempt, err)
		}
	}
	return nil
}
