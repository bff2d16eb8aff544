package clock

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

var _ store.Store = (*Guard)(nil)

// Write is the store's, by the agreed time.
func (g *Guard) Write(ctx context.Context, fn func(tx store.Tx) error) error {
	return g.Store.Write(ctx, func(tx store.Tx) error { return fn(guardedTx{tx, g}) })
}

// WriteRelaxed is the store's, by the agreed time.
func (g *Guard) WriteRelaxed(ctx context.Context, fn func(tx store.Tx) error) error {
	return g.Store.WriteRelaxed(ctx, func(tx store.Tx) error { return fn(guardedTx{tx, g}) })
}

// Read is the store's, by the agreed time.
func (g *Guard) Read(ctx context.Context, fn func(r store.Reader) error) error {
	return g.Store.Read(ctx, func(r store.Reader) error { return fn(guardedReader{r, g}) })
}

type (
	guardedTx struct {
		store.Tx
		guard *Guard
	}
	guardedReader struct {
		store.Reader
		guard *Guard
	}
)

func (t guardedTx) Now() time.Time     { return t.guard.agree(t.Tx.Now()) }
func (r guardedReader) Now() time.Time { return r.guard.agree(r.Reader.Now()) }
