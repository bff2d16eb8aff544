package sqlite_test

import (
	"context"
	"iter"
	"testing"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
)

func TestContent(t *testing.T) {
	t.Parallel()
	config := func(dir string) sqlite.Config { return sqlite.Config{Dir: dir, Chain: storetest.Chain} }
	home := storetest.Home{
		Open: func(ctx context.Context, dir string, restored bool) (store.Store, error) {
			c := config(dir)
			c.Restored = restored
			return sqlite.Open(ctx, c)
		},
		Import: func(ctx context.Context, dir string, records iter.Seq2[*store.Record, error]) error {
			return sqlite.Import(ctx, config(dir), records)
		},
	}
	storetest.RunContent(t, home, home)
}
