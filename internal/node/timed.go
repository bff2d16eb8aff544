package node

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/internal/metrics"
	"github.com/scaivault/scaivault/internal/store"
)

// timed is a store whose operations are measured.
type timed struct {
	store.Store
	metrics *metrics.Metrics
}

// Write measures how long a caller waits until its change is durable.
func (t timed) Write(ctx context.Context, fn func(tx store.Tx) error) error {
	defer t.done("write", time.Now())
	return t.Store.Write(ctx, fn)
}

// WriteRelaxed measures how long a caller waits until its change is visible.
func (t timed) WriteRelaxed(ctx context.Context, fn func(tx store.Tx) error) error {
	defer t.done("write_relaxed", time.Now())
	return t.Store.WriteRelaxed(ctx, fn)
}

// Read measures a snapshot, and what is done on it.
func (t timed) Read(ctx context.Context, fn func(r store.Reader) error) error {
	defer t.done("read", time.Now())
	return t.Store.Read(ctx, fn)
}

func (t timed) done(operation string, start time.Time) {
	t.metrics.Store(operation, time.Since(start))
}
