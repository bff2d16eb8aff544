package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/storetest"
	"github.com/scaivault/scaivault/test/pgtest"
)

const tenant = store.DefaultTenant

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%v)", err, errors.Unwrap(err))
	}
}

func newDatabase(t *testing.T) (url string) {
	t.Helper()
	server := pgtest.Shared(t, 15)
	return server.SuperURL(server.CreateDB(t))
}

func openNode(t *testing.T, url, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{URL: url, Dir: dir, Chain: storetest.Chain})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// nodes opens a new store as several nodes.
func nodes(t *testing.T, n int) []*Store {
	t.Helper()
	url, all := newDatabase(t), make([]*Store, n)
	for i := range all {
		all[i] = openNode(t, url, t.TempDir())
	}
	return all
}

func write(t *testing.T, s *Store, fn func(tx store.Tx) error) {
	t.Helper()
	must(t, s.Write(t.Context(), fn))
}

func sql(t *testing.T, s *Store, text string, args ...any) {
	t.Helper()
	_, err := s.pool.Exec(t.Context(), text, args...)
	must(t, err)
}

func ask[T any](t *testing.T, s *Store, text string, args ...any) (v T) {
	t.Helper()
	must(t, s.pool.QueryRow(t.Context(), text, args...).Scan(&v))
	return v
}

// freeze ends a node's signs of life, as if its process stood still.
func freeze(t *testing.T, s *Store) {
	t.Helper()
	s.watch.stop()
	<-s.watch.exited
}

func newLease(s *Store) *store.Lease {
	id, now := ident.New(ident.Lease), time.Now().UTC().Truncate(time.Microsecond)
	return &store.Lease{ID: id, Tenant: tenant, EngineID: "eng_a", Engine: "a", Role: "ro", Identity: "sa:ci",
		Status: api.LeaseIssuing, Username: "v_ro_" + id[len(id)-16:], IssuedAt: now, ExpiresAt: now.Add(time.Hour),
		MaxExpiresAt: now.Add(time.Hour), DueAt: &now, Deadline: now, Node: s.Node(), Epoch: s.Epoch()}
}

func insert(l *store.Lease) func(tx store.Tx) error {
	return func(tx store.Tx) error {
		if err := tx.InsertLease(l); err != nil {
			return err
		}
		return tx.Audit(tenant, &api.AuditEntry{Action: "x", RequestID: l.ID, Success: true})
	}
}

func object(kind store.Kind, id string) *store.Object {
	return &store.Object{Tenant: tenant, Kind: kind, ID: id, Key: id, Doc: json.RawMessage(`{}`)}
}

func claim(t *testing.T, s *Store, limit int) (ids []string) {
	t.Helper()
	write(t, s, func(tx store.Tx) error {
		due, err := tx.ClaimDue("eng_a", tx.Now(), limit, store.Claim{Node: s.Node(), Epoch: s.Epoch(), No: 1, Until: tx.Now().Add(time.Hour)})
		ids = nil
		for _, l := range due {
			ids = append(ids, l.ID)
		}
		return err
	})
	return ids
}

func dueNext(t *testing.T, s *Store) (next, now time.Time) {
	t.Helper()
	must(t, s.Read(t.Context(), func(r store.Reader) error {
		due, err := r.NextDue(r.Now())
		next, now = due["eng_a"], r.Now()
		return err
	}))
	return next, now
}

// verify recomputes every chain from its head and answers how many entries there are.
func verify(t *testing.T, s *Store) (entries int) {
	t.Helper()
	must(t, s.Read(t.Context(), func(r store.Reader) error {
		heads, err := r.AuditHeads()
		for _, h := range heads {
			rows, err := r.AuditChain(h.Node, 1, 0)
			if err != nil {
				return err
			}
			prev := h.Base
			for i, row := range rows {
				if row.Node != h.Node || row.Seq != h.FirstSeq+int64(i) || !bytes.Equal(row.MAC, storetest.Chain(prev, store.AuditMessage(row))) {
					t.Errorf("chain of %s: entry %d (the %d.) does not verify", h.Node, row.Seq, i+1)
				}
				prev = row.MAC
			}
			if !bytes.Equal(prev, h.LastMAC) {
				t.Errorf("chain of %s does not end as its head says", h.Node)
			}
			entries += len(rows)
		}
		return err
	}))
	return entries
}

// Claims of live nodes exclude each other; those of a node that fell silent, that was started
// again, or that was closed, are void.
func TestClaimsAcrossNodes(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	a, b := n[0], n[1]
	for range 20 {
		write(t, a, insert(newLease(a)))
	}
	var wg sync.WaitGroup
	var got [2][]string
	for i, s := range n {
		wg.Go(func() { got[i] = claim(t, s, 12) })
	}
	wg.Wait()
	got[0] = append(got[0], claim(t, a, 20)...)
	all := slices.Concat(got[0], got[1])
	slices.Sort(all)
	if len(all) != 20 || len(slices.Compact(all)) != 20 {
		t.Fatalf("claimed %d and %d of 20", len(got[0]), len(got[1]))
	}

	if next, now := dueNext(t, b); next.After(now.Add(silence)) || next.Before(now) {
		t.Errorf("due again for another node at %v, want within %v of %v: it may fall silent", next, silence, now)
	}
	freeze(t, a)
	if ids := claim(t, b, 20); len(ids) != 0 {
		t.Errorf("%d rows of a node that was there just now were claimed", len(ids))
	}
	sql(t, a, "UPDATE beats SET at = at - $2 WHERE node = $1", a.node, silence.Microseconds())
	if next, now := dueNext(t, b); next.After(now) {
		t.Errorf("after the node's silence due at %v, want by %v", next, now)
	}
	if ids := claim(t, b, 20); len(ids) != len(got[0]) {
		t.Errorf("%d rows of a silent node were claimed, want %d", len(ids), len(got[0]))
	}
	must(t, b.Close())
	if ids := claim(t, a, 20); len(ids) != 20 {
		t.Errorf("%d rows of a closed node were claimed, want 20", len(ids))
	}
}

// A sign of life from the future, given before the database's clock was set back, holds no claim.
func TestClaimsAfterTheClockWentBack(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	a, b := n[0], n[1]
	write(t, a, insert(newLease(a)))
	if ids := claim(t, a, 1); len(ids) != 1 {
		t.Fatalf("%d rows claimed", len(ids))
	}
	freeze(t, a)
	sql(t, a, "UPDATE beats SET at = at + $2 WHERE node = $1", a.node, time.Hour.Microseconds())
	if next, now := dueNext(t, b); next.After(now) {
		t.Errorf("due at %v, want by %v", next, now)
	}
	if ids := claim(t, b, 1); len(ids) != 1 {
		t.Errorf("%d rows were claimed of a node whose last sign lies in the future", len(ids))
	}
}

// Another node's configuration is there before any function runs, whether a notification came or
// not, also what was removed, also if what was removed is no longer known one by one.
func TestConfigAcrossNodes(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	a, b := n[0], n[1]
	write(t, a, func(tx store.Tx) error {
		return errors.Join(tx.PutObject(object(store.KindRole, "one"), 0), tx.PutObject(object(store.KindRole, "two"), 0))
	})
	if b.Config().Object(tenant, store.KindRole, "one") == nil {
		t.Error("a node that lives was not waited for")
	}
	freeze(t, b)
	behind := b.Config().Rev
	write(t, a, func(tx store.Tx) error { return tx.DeleteObject(tenant, store.KindRole, "one") })
	if b.Config().Rev != behind {
		t.Fatal("the test is blind: the node heard of the change by itself")
	}
	runs := 0
	write(t, b, func(tx store.Tx) error {
		runs++
		if tx.ConfigRev() != a.Config().Rev || b.Config().Rev != tx.ConfigRev() {
			t.Errorf("revision %d, view %d, want %d", tx.ConfigRev(), b.Config().Rev, a.Config().Rev)
		}
		return tx.PutObject(object(store.KindRole, "three"), 0)
	})
	for _, s := range n {
		must(t, s.Read(t.Context(), func(r store.Reader) error {
			cfg := s.Config()
			if r.ConfigRev() != cfg.Rev || len(cfg.List(tenant, store.KindRole, "")) != 2 || cfg.Object(tenant, store.KindRole, "one") != nil {
				t.Errorf("configuration of %s at %d: %v", s.node, cfg.Rev, cfg.List(tenant, store.KindRole, ""))
			}
			return nil
		}))
	}

	write(t, a, func(tx store.Tx) error { return tx.DeleteObject(tenant, store.KindRole, "two") })
	sql(t, a, "WITH gone AS (DELETE FROM removed_objects) UPDATE store_state SET removed_rev = config_rev")
	must(t, b.Read(t.Context(), func(store.Reader) error { return nil }))
	if all := b.Config().List(tenant, store.KindRole, ""); len(all) != 1 || all[0].ID != "three" {
		t.Errorf("configuration read as a whole: %v", all)
	}
}

// Two nodes that change the same rows in opposite orders both get through, and soon.
func TestOppositeOrders(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	one, two := newLease(n[0]), newLease(n[0])
	write(t, n[0], func(tx store.Tx) error { return errors.Join(tx.InsertLease(one), tx.InsertLease(two)) })
	var wg sync.WaitGroup
	var first sync.WaitGroup
	first.Add(2)
	for i, ids := range [][]string{{one.ID, two.ID}, {two.ID, one.ID}} {
		wg.Go(func() {
			meet := sync.OnceFunc(func() { first.Done(); first.Wait() })
			err := n[i].Write(context.Background(), func(tx store.Tx) error {
				for _, id := range ids {
					if _, err := tx.UpdateLease(id, func(l *store.Lease) error { l.LateLooks++; return nil }); err != nil {
						return err
					}
					meet()
				}
				return nil
			})
			if err != nil {
				t.Errorf("%v (%v)", err, errors.Unwrap(err))
			}
		})
	}
	wg.Wait()
	if looks := ask[string](t, n[0], "SELECT string_agg(late_looks::text, ' ') FROM leases"); looks != "2 2" {
		t.Errorf("updates lost: %s", looks)
	}
}

// A fence waits for the intents of other nodes that are not committed, and then finds them; an
// intent waits for a fence, and then sees it (law L5).
func TestFenceAcrossNodes(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	a, b := n[0], n[1]
	waiting := func(what string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for ask[int](t, a, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == 0 {
			if time.Now().After(deadline) {
				t.Errorf("%s does not wait", what)
				return
			}
		}
	}
	early, late := newLease(a), newLease(a)
	intent := func(l *store.Lease, during func()) func(tx store.Tx) error {
		return func(tx store.Tx) (err error) {
			if err := tx.LockTenant(tenant, false); err != nil {
				return err
			}
			if l.FenceSeq, err = tx.FenceSeq(tenant); err != nil {
				return err
			}
			during()
			return tx.InsertLease(l)
		}
	}
	fence := &store.Fence{Tenant: tenant, EngineID: "eng_a"}
	var targets []string
	revoke := func(during func()) func(tx store.Tx) error {
		return func(tx store.Tx) (err error) {
			if err := tx.LockTenant(tenant, true); err != nil {
				return err
			}
			if err := tx.AddFence(fence); err != nil {
				return err
			}
			during()
			targets, err = tx.FenceTargets(fence, "", 0)
			return err
		}
	}

	locked, fenced := make(chan struct{}), make(chan error, 1)
	intended := make(chan error, 1)
	write(t, a, intent(early, sync.OnceFunc(func() {
		go func() {
			fenced <- b.Write(context.Background(), revoke(func() { close(locked); waiting("the intent") }))
		}()
		waiting("the fence")
		go func() { <-locked; intended <- b.Write(context.Background(), func(store.Tx) error { return nil }) }()
	})))
	<-locked
	must(t, a.Write(t.Context(), intent(late, func() {})))
	must(t, <-fenced)
	must(t, <-intended)
	if !slices.Equal(targets, []string{early.ID}) || early.FenceSeq != 0 || late.FenceSeq != fence.Seq {
		t.Errorf("targets %v; the early intent saw %d, the late one %d of %d", targets, early.FenceSeq, late.FenceSeq, fence.Seq)
	}
}

// Of two nodes that write one name at the same time exactly one succeeds, and of two that write the
// next version of one secret, or the first value of one key, each sees the other's.
func TestRacesAcrossNodes(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	const rounds = 25
	var won, keys atomic.Int64
	var wg sync.WaitGroup
	for round := range rounds {
		start := make(chan struct{})
		for _, s := range n {
			wg.Go(func() {
				<-start
				l := newLease(s)
				l.Username = fmt.Sprint("v_", round)
				switch err := s.Write(context.Background(), insert(l)); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, store.ErrUsernameTaken):
					t.Errorf("the loser of a name: %v (%v)", err, errors.Unwrap(err))
				}
				err := s.Write(context.Background(), func(tx store.Tx) error {
					sec, err := tx.Secret(tenant, "p")
					if fault.CodeOf(err) == fault.SecretNotFound {
						sec, err = &store.Secret{Tenant: tenant, Path: "p"}, nil
					}
					if err != nil {
						return err
					}
					sec.Version++
					return tx.PutSecret(sec)
				})
				if err != nil {
					t.Errorf("secret: %v (%v)", err, errors.Unwrap(err))
				}
				made := false
				err = s.Write(context.Background(), func(tx store.Tx) error {
					key := fmt.Sprint(round)
					old, err := tx.Meta(key)
					if made = old == nil; err != nil || !made {
						return err
					}
					return tx.PutMeta(key, []byte(s.node))
				})
				if err != nil {
					t.Errorf("meta: %v (%v)", err, errors.Unwrap(err))
				}
				if made {
					keys.Add(1)
				}
			})
		}
		close(start)
		wg.Wait()
	}
	if won.Load() != rounds || keys.Load() != rounds {
		t.Errorf("%d names and %d keys were made, want %d", won.Load(), keys.Load(), rounds)
	}
	if v := ask[int](t, n[0], "SELECT version FROM secrets"); v != 2*rounds {
		t.Errorf("version %d, want %d", v, 2*rounds)
	}
}

// Eight writers on each of three nodes: nothing lost, nothing doubled, every chain whole.
func TestWritersOnThreeNodes(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 12
	n := nodes(t, 3)
	write(t, n[0], func(tx store.Tx) error { return tx.PutObject(object(store.KindPolicy, "shared"), 0) })
	var wg sync.WaitGroup
	for _, s := range n {
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					l := newLease(s)
					err := s.Write(context.Background(), func(tx store.Tx) error {
						if err := tx.LockTenant(tenant, i%4 == 0); err != nil {
							return err
						}
						if err := insert(l)(tx); err != nil || i%3 != 0 {
							return err
						}
						return tx.UpdateObject(tenant, store.KindPolicy, "shared", func(o *store.Object) error {
							o.Doc = fmt.Appendf(nil, "[%d]", o.Version)
							return nil
						})
					})
					if err == nil {
						err = s.WriteRelaxed(context.Background(), func(tx store.Tx) error {
							_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseActive; return nil })
							return err
						})
					}
					if err != nil {
						t.Errorf("writer %d of %s: %v (%v)", w, s.node, err, errors.Unwrap(err))
						return
					}
				}
			})
		}
	}
	wg.Wait()
	const all = 3 * writers * each
	if entries := verify(t, n[1]); entries != all {
		t.Errorf("%d entries, want %d", entries, all)
	}
	must(t, n[2].Read(t.Context(), func(r store.Reader) error {
		counts, err := r.LeaseCounts("")
		if len(counts) != 1 || counts[0].N != all || counts[0].Status != api.LeaseActive {
			t.Errorf("counts: %+v", counts)
		}
		if o := n[2].Config().Object(tenant, store.KindPolicy, "shared"); o.Version != 1+all/3 {
			t.Errorf("version %d of the shared object, want %d", o.Version, 1+all/3)
		}
		seen := map[string]bool{}
		for before, pages := int64(0), 0; ; pages++ { // the pages of all chains join without gap
			rows, err := r.AuditEntries(store.AuditFilter{Tenant: tenant}, before, 50)
			if err != nil || len(rows) == 0 {
				break
			}
			for _, row := range rows {
				seen[row.Entry.ID] = true
			}
			before = rows[len(rows)-1].Pos
		}
		if len(seen) != all {
			t.Errorf("%d entries listed, want %d", len(seen), all)
		}
		return err
	}))
}

// A credential takes two transactions of the store, however many nodes there are.
func TestTransactionsPerCredential(t *testing.T) {
	t.Parallel()
	for _, s := range nodes(t, 3)[:1] {
		before := ask[int](t, s, "SELECT sum(commits)::int FROM nodes")
		l := newLease(s)
		write(t, s, func(tx store.Tx) error { return errors.Join(tx.LockTenant(tenant, false), insert(l)(tx)) })
		must(t, s.WriteRelaxed(t.Context(), func(tx store.Tx) error {
			_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseActive; return nil })
			return errors.Join(err, tx.Audit(tenant, &api.AuditEntry{Action: "x"}))
		}))
		if n := ask[int](t, s, "SELECT sum(commits)::int FROM nodes") - before; n != 2 {
			t.Errorf("%d transactions", n)
		}
	}
}

// Of two processes that run as one node the later one has it; the former writes nothing any more.
func TestSupersededProcess(t *testing.T) {
	t.Parallel()
	url, dir, other := newDatabase(t), t.TempDir(), t.TempDir()
	a := openNode(t, url, dir)
	if _, err := Open(t.Context(), Config{URL: url, Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second open of a folder: %v", err)
	}
	id, err := os.ReadFile(filepath.Join(dir, nodeFile))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(other, nodeFile), id, 0o600))
	write(t, a, insert(newLease(a)))
	b := openNode(t, url, other)
	if b.Node() != a.Node() || b.Epoch() != a.Epoch()+1 {
		t.Errorf("node %s epoch %d after %s epoch %d", b.Node(), b.Epoch(), a.Node(), a.Epoch())
	}
	if err := a.Write(t.Context(), insert(newLease(a))); fault.CodeOf(err) != fault.ServiceUnavailable {
		t.Errorf("write of the former process: %v", err)
	}
	write(t, b, insert(newLease(b)))
	if entries := verify(t, b); entries != 2 {
		t.Errorf("%d entries", entries)
	}
}

// Nodes that start at once on an empty database make one store, not several, nor half of one.
func TestOpenTogether(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	var wg sync.WaitGroup
	var all [4]*Store
	for i := range all {
		wg.Go(func() {
			s, err := Open(context.Background(), Config{URL: url, Dir: t.TempDir()})
			if err != nil {
				t.Error(err)
				return
			}
			all[i] = s
		})
	}
	wg.Wait()
	for _, s := range all {
		if s == nil {
			continue
		}
		if s.Installation() != all[0].Installation() || s != all[0] && s.Node() == all[0].Node() {
			t.Errorf("installation %s, node %s", s.Installation(), s.Node())
		}
		must(t, s.Close())
	}
}

// A schema of a newer release is refused, unless that release says that it serves this one.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	url, dir := newDatabase(t), t.TempDir()
	s := openNode(t, url, dir)
	sql(t, s, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, true)")
	epoch := ask[int](t, s, "SELECT sum(epoch)::int FROM nodes")
	for _, says := range []string{"'serves releases from schema 9998 on'", "NULL"} {
		sql(t, s, "COMMENT ON TABLE goose_db_version IS "+says)
		if _, err := Open(t.Context(), Config{URL: url, Dir: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "newer release") {
			t.Errorf("open where the schema says %s: %v", says, err)
		}
	}
	if after := ask[int](t, s, "SELECT sum(epoch)::int FROM nodes"); after != epoch {
		t.Error("the refused node began an epoch")
	}
	sql(t, s, "COMMENT ON TABLE goose_db_version IS 'serves releases from schema 1 on'")
	write(t, openNode(t, url, t.TempDir()), func(store.Tx) error { return nil })
}

// What is answered is durable even where the database's default is not; only what may lag is not.
func TestDurableByDefault(t *testing.T) {
	t.Parallel()
	url := newDatabase(t)
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer c.Close(t.Context())
	_, err = c.Exec(t.Context(), "ALTER DATABASE "+c.Config().Database+" SET synchronous_commit = off")
	must(t, err)
	s := openNode(t, url, t.TempDir())
	sql(t, s, `CREATE TABLE modes (mode text)`)
	sql(t, s, `CREATE FUNCTION note_mode() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO modes VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$`)
	sql(t, s, `CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON meta DEFERRABLE INITIALLY DEFERRED
		FOR EACH ROW EXECUTE FUNCTION note_mode()`)
	put := func(tx store.Tx) error { return tx.PutMeta("k", []byte("v")) }
	must(t, s.Write(t.Context(), put))
	must(t, s.WriteRelaxed(t.Context(), put))
	must(t, s.Write(t.Context(), put))
	if modes := ask[string](t, s, "SELECT string_agg(mode, ' ') FROM modes"); modes != "on off on" {
		t.Errorf("synchronous_commit at the commits: %s", modes)
	}
}

// A value that the database has no place for is its writer's failure, and nobody else's.
func TestValueThatDoesNotFit(t *testing.T) {
	t.Parallel()
	s := nodes(t, 1)[0]
	good, bad := newLease(s), newLease(s)
	bad.Identity = "a\x00b"
	errs := make(chan error, 2)
	busy := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		once := sync.OnceFunc(func() { <-busy })
		must(t, s.Write(context.Background(), func(store.Tx) error { once(); return nil }))
	})
	wg.Go(func() { errs <- s.Write(context.Background(), insert(bad)) })
	wg.Go(func() { must(t, s.Write(context.Background(), insert(good))); errs <- nil })
	close(busy)
	wg.Wait()
	for range 2 {
		if err := <-errs; err != nil && fault.CodeOf(err) != fault.InternalError {
			t.Errorf("write of a NUL: %v", err)
		}
	}
	write(t, s, func(tx store.Tx) error {
		return tx.Audit(tenant, &api.AuditEntry{Action: "a\x00b", SecretPath: "\xff", SourceIP: "\x00"})
	})
	if n := verify(t, s); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

// What a node remembers of a lease that it made is compared with the row: another node's change is
// not lost, and is seen.
func TestRememberedLease(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	l := newLease(n[0])
	l.Metadata = map[string]string{"a": "b"}
	write(t, n[0], insert(l))
	l.Metadata["a"] = "the caller's own"
	write(t, n[1], func(tx store.Tx) error {
		_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseRevoking; return nil })
		return err
	})
	var seen []api.LeaseStatus
	write(t, n[0], func(tx store.Tx) error {
		got, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { seen = append(seen, l.Status); l.LateLooks = 7; return nil })
		if err == nil && got.Metadata["a"] != "b" {
			t.Errorf("metadata: %v", got.Metadata)
		}
		return err
	})
	if !slices.Equal(seen, []api.LeaseStatus{api.LeaseIssuing, api.LeaseRevoking}) {
		t.Errorf("the function saw %v, want what the node remembered, then what the row says", seen)
	}
	must(t, n[1].Read(t.Context(), func(r store.Reader) error {
		got, err := r.Lease(tenant, l.ID)
		if err == nil && (got.Status != api.LeaseRevoking || got.LateLooks != 7 || got.Version != 3) {
			t.Errorf("row: %+v", got)
		}
		return err
	}))
}

// A node that stands still in the middle of a transaction, with the locks that everybody needs,
// holds the others up for seconds, and no longer.
func TestNodeStandsStill(t *testing.T) {
	t.Parallel()
	n := nodes(t, 2)
	still, err := n[0].pool.Acquire(t.Context())
	must(t, err)
	defer still.Release()
	for _, text := range []string{"BEGIN", "SELECT 1 FROM store_state FOR NO KEY UPDATE",
		fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockKey("tenant", n[0].installation, tenant))} {
		_, err := still.Exec(t.Context(), text)
		must(t, err)
	}
	write(t, n[1], func(tx store.Tx) error {
		if err := tx.LockTenant(tenant, false); err != nil {
			return err
		}
		return tx.PutObject(object(store.KindRole, "one"), 0)
	})
	if _, err := still.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("the node that stood still committed")
	}
}
