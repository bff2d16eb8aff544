package mongodb

import (
	"context"
	"time"
)

// Now implements engine.Clock: the time at the primary, or at a mongos.
func (e *Engine) Now(ctx context.Context) (time.Time, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return time.Time{}, err
	}
	h, err := s.hello(ctx)
	if err != nil {
		return time.Time{}, plain(err)
	}
	if h.LocalTime.IsZero() {
		return time.Time{}, misconfigured("read the source's clock: it does not tell the time", nil)
	}
	return h.LocalTime, nil
}
