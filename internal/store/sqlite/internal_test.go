package sqlite

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

func openForTest(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Chain: func(prev, message []byte) []byte { return message[:8] }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(t.Context(), Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.commit.conn.exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "newer release") {
		t.Errorf("open: %v", err)
	}
	after, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the refused store changed (%v)", err)
	}
}

// A commit that the database refuses has not happened for anybody, and what is held in memory
// follows the database again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	put := func(key string, size int) func(store.Tx) error {
		return func(tx store.Tx) error {
			o := &store.Object{Tenant: "t", Kind: store.KindPolicy, ID: key, Key: key, Doc: []byte(`"` + strings.Repeat("x", size) + `"`)}
			return errors.Join(tx.PutObject(o, 0), tx.Audit("t", &api.AuditEntry{Action: key}))
		}
	}
	if err := s.Write(t.Context(), put("before", 1)); err != nil {
		t.Fatal(err)
	}
	// On the writer's connection, before anything waits: the file may not grow by more than a bit.
	if _, err := s.commit.conn.c.ExecContext(context.Background(), "PRAGMA max_page_count=60"); err != nil {
		t.Fatal(err)
	}
	err := s.Write(t.Context(), put("large", 1<<20))
	if fault.CodeOf(err) != fault.ServiceUnavailable || errors.Unwrap(err) == nil || strings.Contains(err.Error(), "SQLITE") {
		t.Errorf("write on a full disk: %v (cause %v)", err, errors.Unwrap(err))
	}
	if s.Config().ByKey("t", store.KindPolicy, "large") != nil {
		t.Error("the configuration has what was not committed")
	}
	if _, err := s.commit.conn.c.ExecContext(context.Background(), "PRAGMA max_page_count=1000000"); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), put("after", 1)); err != nil {
		t.Fatal(err)
	}
	err = s.Read(t.Context(), func(r store.Reader) error {
		rows, err := r.AuditChain(s.Node(), 1, 0)
		if len(rows) != 2 || rows[1].Seq != 2 || rows[1].Entry.Action != "after" {
			t.Errorf("chain after the failure: %v", rows)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Config().ByKey("t", store.KindPolicy, "after") == nil {
		t.Error("the configuration lacks what was committed")
	}
}

// Only a group that is relaxed as a whole leaves the flush to the next.
func TestRelaxedGroup(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	mode := func() (n int) {
		// The committer is idle, and nobody else writes.
		if _, err := s.commit.conn.one("PRAGMA synchronous", nil, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	const normal, full = 1, 2
	for _, tt := range []struct {
		write func(context.Context, func(store.Tx) error) error
		want  int
	}{{s.Write, full}, {s.WriteRelaxed, normal}, {s.WriteRelaxed, normal}, {s.Write, full}} {
		if err := tt.write(t.Context(), func(tx store.Tx) error { return tx.PutMeta("k", []byte("v")) }); err != nil {
			t.Fatal(err)
		}
		if got := mode(); got != tt.want {
			t.Errorf("synchronous = %d, want %d", got, tt.want)
		}
	}
	if s.commit.synchronous([]*request{{relaxed: true}, {relaxed: false}}); mode() != full {
		t.Error("a mixed group is not flushed")
	}
}

// The queries that run for every lease, or while very many lie there, go by an index.
func TestQueriesUseIndexes(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	s.Read(t.Context(), func(rd store.Reader) error {
		r := rd.(*reader)
		for query, index := range map[string]string{
			"SELECT * FROM leases WHERE id = 'x'":                             "sqlite_autoindex_leases_1",
			"SELECT * FROM leases WHERE username = 'x'":                       "leases_username",
			"SELECT * FROM objects WHERE tenant='t' AND kind='k' AND key='x'": "objects_key",
			"SELECT * FROM fences WHERE closed = 0 ORDER BY tenant, seq":      "fences_open",
		} {
			plan := ""
			err := r.conn.each("EXPLAIN QUERY PLAN "+query, nil, func(scan scanFunc) error {
				var id, parent, unused int
				var detail string
				err := scan(&id, &parent, &unused, &detail)
				plan += detail + "\n"
				return err
			})
			if err != nil || !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
				t.Errorf("%s:\n%s%v", query, plan, err)
			}
		}
		return nil
	})
}

// The driver's generated code belongs to one version of its C library; any other one is untested
// there. See "Fragile modernc.org/libc dependency" in its documentation.
func TestLibraryVersion(t *testing.T) {
	t.Parallel()
	version := func(args ...string) string {
		out, err := exec.Command("go", append([]string{"list", "-m", "-f", "{{.Version}}"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("go list %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "modernc.org/sqlite").Output()
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if have := version("modernc.org/libc"); !strings.Contains(string(mod), "modernc.org/libc "+have+"\n") {
		t.Errorf("modernc.org/libc is %s; the driver's go.mod wants another", have)
	}
}
