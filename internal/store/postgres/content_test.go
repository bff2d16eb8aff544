package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// A store that several nodes wrote to comes into the embedded one with all their chains, and from
// there into a shared one again.
func TestContentOfSeveralNodes(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 17)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	days := func(n int) time.Time { return time.Date(2026, 3, 1+n, 0, 0, 0, 0, time.UTC) }
	record := func(s store.Store, day int, action string) {
		t.Helper()
		must(s.Write(t.Context(), func(tx store.Tx) error {
			return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: action, IdentityID: "sa:ci", Timestamp: days(day)})
		}))
	}
	first := t.TempDir()
	url := database(t, server, first)
	one, two := open(t, url, first), open(t, url, t.TempDir())
	for day := range 6 {
		record([]store.Store{one, two}[day%2], day, fmt.Sprint("d", day))
	}
	moved := func(from store.Store, to storetest.Home) store.Store {
		t.Helper()
		var all []*store.Record
		must(from.Export(t.Context(), func(r *store.Record) error { all = append(all, r); return nil }))
		dir := t.TempDir()
		must(to.Import(t.Context(), dir, func(yield func(*store.Record, error) bool) {
			for _, r := range all {
				if !yield(r, nil) {
					return
				}
			}
		}))
		s, err := to.Open(t.Context(), dir, true)
		must(err)
		t.Cleanup(func() { s.Close() })
		must(s.Write(t.Context(), func(tx store.Tx) error { return tx.PutMeta(store.RestoringKey, nil) }))
		return s
	}
	alone := moved(one, embedded())
	record(alone, 6, "d6")
	check := func(s store.Store, chains int, want string) {
		t.Helper()
		must(s.Read(t.Context(), func(r store.Reader) error {
			heads, err := r.AuditHeads()
			must(err)
			if len(heads) != chains {
				t.Errorf("%d chains, want %d", len(heads), chains)
			}
			for _, h := range heads {
				rows, err := r.AuditChain(h.Node, h.FirstSeq, 0)
				must(err)
				prev := h.Base
				for _, row := range rows {
					if !bytes.Equal(row.MAC, storetest.Chain(prev, store.AuditMessage(row))) {
						t.Errorf("the chain of %s is broken at %d", h.Node, row.Seq)
					}
					prev = row.MAC
				}
				if !bytes.Equal(prev, h.LastMAC) {
					t.Errorf("the chain of %s does not end where its head says", h.Node)
				}
			}
			var listed []string
			for before := int64(0); ; { // in pages of 2
				page, err := r.AuditEntries(store.AuditFilter{IdentityID: "sa:ci"}, before, 2)
				must(err)
				for _, row := range page {
					listed, before = append(listed, row.Entry.Action), row.Pos
				}
				if len(page) < 2 {
					break
				}
			}
			if got := strings.Join(listed, " "); got != want {
				t.Errorf("listed %s, want %s", got, want)
			}
			counts, err := r.AuditCounts(store.DefaultTenant, days(0), days(9))
			if err == nil && len(counts) != len(listed) {
				t.Errorf("%d actions are counted, want %d", len(counts), len(listed))
			}
			return err
		}))
	}
	check(alone, 3, "d6 d5 d4 d3 d2 d1 d0")
	back := moved(alone, home(t, server))
	check(back, 3, "d6 d5 d4 d3 d2 d1 d0")
	must(alone.Write(t.Context(), func(tx store.Tx) error {
		n, err := tx.Trim(days(0), days(3), 100)
		if n != 3 {
			t.Errorf("%d entries are trimmed, want 3", n)
		}
		return err
	}))
	check(alone, 3, "d6 d5 d4 d3")
	check(moved(alone, embedded()), 3, "d6 d5 d4 d3")
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
