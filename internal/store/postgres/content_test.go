package postgres_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/postgres"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

// database is the URL of the database that belongs to the folder.
func database(t *testing.T, server *pgtest.Server, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "database")
	name, err := os.ReadFile(file)
	if err != nil {
		name = []byte(server.CreateDB(t))
		if err := os.WriteFile(file, name, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return server.SuperURL(string(name))
}

func home(t *testing.T, server *pgtest.Server) storetest.Home {
	t.Helper()
	config := func(dir string, restored bool) postgres.Config {
		return postgres.Config{URL: database(t, server, dir), Dir: dir, Chain: storetest.Chain, Restored: restored}
	}
	return storetest.Home{
		Open: func(ctx context.Context, dir string, restored bool) (store.Store, error) {
			return postgres.Open(ctx, config(dir, restored))
		},
		Import: func(ctx context.Context, dir string, records iter.Seq2[*store.Record, error]) error {
			return postgres.Import(ctx, config(dir, false), records)
		},
	}
}

func embedded() storetest.Home {
	return storetest.Home{
		Open: func(ctx context.Context, dir string, restored bool) (store.Store, error) {
			return sqlite.Open(ctx, sqlite.Config{Dir: dir, Chain: storetest.Chain, Restored: restored})
		},
		Import: func(ctx context.Context, dir string, records iter.Seq2[*store.Record, error]) error {
			return sqlite.Import(ctx, sqlite.Config{Dir: dir, Chain: storetest.Chain}, records)
		},
	}
}

func TestContent(t *testing.T) {
	t.Parallel()
	shared := home(t, pgtest.Shared(t, 15))
	for name, way := range map[string][2]storetest.Home{
		"shared to shared":   {shared, shared},
		"embedded to shared": {embedded(), shared},
		"shared to embedded": {shared, embedded()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.RunContent(t, way[0], way[1])
		})
	}
}

// A restore goes on with the chain of the node whose folder it is run in.
func TestContentOfTheSameNode(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 17)
	dir := t.TempDir()
	s := open(t, database(t, server, dir), dir)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	record := func(tx store.Tx) error { return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "a"}) }
	must(s.Write(t.Context(), record))
	var all []*store.Record
	must(s.Export(t.Context(), func(r *store.Record) error { all = append(all, r); return nil }))
	node, epoch := s.Node(), s.Epoch()
	must(s.Close())
	must(os.Remove(filepath.Join(dir, "database")))

	h := home(t, server)
	must(h.Import(t.Context(), dir, func(yield func(*store.Record, error) bool) {
		for _, r := range all {
			if !yield(r, nil) {
				return
			}
		}
	}))
	restored, err := h.Open(t.Context(), dir, true)
	must(err)
	defer restored.Close()
	if restored.Node() != node || restored.Epoch() <= epoch {
		t.Errorf("node %s in epoch %d, want %s in a later one than %d", restored.Node(), restored.Epoch(), node, epoch)
	}
	must(restored.Write(t.Context(), record))
	must(restored.Read(t.Context(), func(r store.Reader) error {
		heads, err := r.AuditHeads()
		if err == nil && (len(heads) != 1 || heads[0].LastSeq != 2) {
			err = fmt.Errorf("heads: %+v", heads)
		}
		return err
	}))
}

// A table that a later release adds is exported as well, or its rows would not be in a backup.
func TestEveryTableIsKnown(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 17)
	dir := t.TempDir()
	url := database(t, server, dir)
	open(t, url, dir)
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	rows, err := c.Query(t.Context(), "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	// Exported or, as the signs of life and the counters, made anew.
	const known = "audit beats chains fences goose_db_version lease_counts leases meta nodes objects removed_objects secret_versions secrets store_state"
	if got := strings.Join(names, " "); got != known {
		t.Errorf("tables: %s\nknown: %s\nput the new one into export.go and import.go", got, known)
	}
}
