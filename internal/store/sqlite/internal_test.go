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
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

func openForTest(t *testing.T) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Chain: func(_, message []byte) []byte { return message[:8] }})
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
	if _, err := s.committer.conn.exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)"); err != nil {
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
	if _, err := s.committer.conn.c.ExecContext(context.Background(), "PRAGMA max_page_count=60"); err != nil {
		t.Fatal(err)
	}
	err := s.Write(t.Context(), put("large", 1<<20))
	if fault.CodeOf(err) != fault.ServiceUnavailable || errors.Unwrap(err) == nil || strings.Contains(err.Error(), "SQLITE") {
		t.Errorf("write on a full disk: %v (cause %v)", err, errors.Unwrap(err))
	}
	if s.Config().ByKey("t", store.KindPolicy, "large") != nil {
		t.Error("the configuration has what was not committed")
	}
	if _, err := s.committer.conn.c.ExecContext(context.Background(), "PRAGMA max_page_count=1000000"); err != nil {
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
		if _, err := s.committer.conn.one("PRAGMA synchronous", nil, &n); err != nil {
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
	if err := s.committer.synchronous([]*commit.Request{{Relaxed: true}, {Relaxed: false}}); err != nil || mode() != full {
		t.Error("a mixed group is not flushed")
	}
}

// What runs for every lease, or while very many lie there, goes by an index: no statement that was
// prepared for it reads a growing table from end to end, or sorts (law L10).
func TestStatementsUseIndexes(t *testing.T) {
	t.Parallel()
	s := openForTest(t)
	now := time.Now()
	l := store.Lease{ID: "lease_1", Tenant: "t", EngineID: "e", Role: "r", Username: "u", Status: api.LeaseActive, DueAt: &now}
	err := s.Write(t.Context(), func(tx store.Tx) error {
		_, errNoTarget := tx.FenceTargets(&store.Fence{Tenant: "t", Seq: 1, EngineID: "e", Role: "r"}, "", 1)
		_, errNoHolder := tx.FenceTargets(&store.Fence{Tenant: "t", Seq: 1, Identity: "i"}, "", 1)
		_, errNoToken := tx.FenceTargets(&store.Fence{Tenant: "t", Seq: 1, TokenID: "k", TiedOnly: true}, "", 1)
		_, _, errPending := tx.FencePending(&store.Fence{Tenant: "t", Seq: 1, EngineID: "e"}, 1)
		errInsert := tx.InsertLease(&l)
		_, errDue := tx.ClaimDue("e", now, 1, store.Claim{Until: now})
		_, errUpdate := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseRevoked; return nil })
		_, errName := tx.LeasesByUsername([]string{"u"})
		_, _, errOverdue := tx.Overdue("e", now)
		_, errNext := tx.NextDue(now)
		_, errOpen := tx.OpenFences()
		_, errSince := tx.FencesSince("t", 0)
		_, errCounts := tx.AuditCounts("t", now, now)
		_, errHeads := tx.AuditHeads()
		_, errKey := tx.Objects("t", store.KindToken, "sa:ci/", "", 1)
		_, errSecrets := tx.Secrets("t", "a", "", 1)
		_, errTrim := tx.Trim(now, now, 9)
		errAudit := tx.Audit("t", &api.AuditEntry{})
		return errors.Join(errNoTarget, errNoHolder, errNoToken, errPending, errInsert, errDue, errUpdate, errName, errOverdue,
			errNext, errOpen, errSince, errCounts, errHeads, errKey, errSecrets, errTrim, errAudit)
	})
	if err != nil {
		t.Fatal(err)
	}
	c := s.committer.conn // idle, and nobody else writes
	seen := 0
	for query := range c.stmts {
		verb, _, _ := strings.Cut(query, " ")
		if verb != "SELECT" && verb != "UPDATE" && verb != "DELETE" && verb != "WITH" || strings.Contains(query, "kind <> ?") {
			continue // the configuration is read as a whole, once
		}
		seen++
		err := c.eachOnce("EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?")), func(scan scanFunc) error {
			var id, parent, unused int
			var step string
			if err := scan(&id, &parent, &unused, &step); err != nil {
				return err
			}
			for _, table := range []string{"leases", "audit", "objects", "secrets"} {
				if step == "SCAN "+table && !strings.Contains(query, "ORDER BY seq") { // its key, with a LIMIT
					t.Errorf("%s:\n%s", query, step)
				}
			}
			if strings.Contains(step, "TEMP B-TREE FOR ORDER BY") {
				t.Errorf("%s:\n%s", query, step)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", query, errors.Unwrap(err))
		}
	}
	if seen < 20 {
		t.Errorf("only %d statements were looked at", seen)
	}
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
