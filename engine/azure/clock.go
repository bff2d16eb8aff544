package azure

import (
	"context"
	"time"
)

// Now implements engine.Clock: the time at Microsoft Graph, to the second.
func (e *Engine) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	return e.client.now(ctx)
}
