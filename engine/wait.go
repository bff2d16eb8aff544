package engine

import (
	"context"
	"time"
)

// Wait lets an engine pause before it asks again. It answers false where the context ends before that:
// at once, if its deadline says so already.
func Wait(ctx context.Context, pause time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= pause {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
