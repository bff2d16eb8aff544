package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// Home is a kind of store, in places that belong to folders. Its chain is [Chain].
type Home struct {
	Open   func(ctx context.Context, dir string, restored bool) (store.Store, error)
	Import func(ctx context.Context, dir string, records iter.Seq2[*store.Record, error]) error
}

// open opens the folder's store until the end of the test.
func (h Home) open(t *testing.T, dir string, restored bool) *bundle {
	t.Helper()
	s := value[store.Store](t)(h.Open(t.Context(), dir, restored))
	t.Cleanup(func() { must(t, s.Close()) })
	return &bundle{Store: s}
}

// unfinished wants the folder's store to be refused, since its restore is not finished.
func (h Home) unfinished(t *testing.T, dir string) {
	t.Helper()
	s, err := h.Open(t.Context(), dir, false)
	if err == nil {
		must(t, s.Close())
	}
	if !errors.Is(err, store.ErrRestoring) {
		t.Fatalf("a store whose restore is not finished: %v", err)
	}
}

// RunContent proves that what is exported from one store, and imported into another, is the same.
func RunContent(t *testing.T, from, to Home) {
	t.Run("RoundTrip", func(t *testing.T) { t.Parallel(); contentRoundTrip(t, from, to) })
	t.Run("Snapshot", func(t *testing.T) { t.Parallel(); contentSnapshot(t, from) })
	t.Run("Refused", func(t *testing.T) { t.Parallel(); contentRefused(t, from, to) })
	t.Run("CutOff", func(t *testing.T) { t.Parallel(); contentCutOff(t, from, to) })
}

// export is all that a store holds, each record as it stands in a backup.
func export(t *testing.T, s store.Store) []string {
	t.Helper()
	var lines []string
	must(t, s.Export(t.Context(), func(r *store.Record) error {
		line, err := json.Marshal(r)
		lines = append(lines, string(line))
		return err
	}))
	return lines
}

// records reads lines back; after the first n it fails, if n is not negative.
func records(lines []string, n int) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for i, line := range lines {
			if i == n {
				yield(nil, errCutOff)
				return
			}
			r := &store.Record{}
			err := json.Unmarshal([]byte(line), r)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

var errCutOff = errors.New("the rest is missing")

// fill puts something of everything into a store, more than a page of leases.
func fill(t *testing.T, b *bundle) *bundle {
	t.Helper()
	b.write(t, func(tx store.Tx) error {
		for _, err := range []error{
			tx.PutMeta("keyring", []byte{0, 1, 2, 255}),
			tx.PutObject(object(store.KindEngine, "eng_a", "a", `{"html":"<a & b>"}`), 0),
			tx.PutObject(object(store.KindToken, "tok_1", "sa:ci/tok_1", `{}`), 0),
			tx.PutSecret(&store.Secret{Tenant: store.DefaultTenant, Path: "apps/x", Type: "json", Version: 2, Versions: 3,
				Doc: json.RawMessage(`{"a":1}`), CreatedAt: noon, UpdatedAt: at(time.Minute), ExpiresAt: atp(time.Hour),
				RotationPolicy: "rp_1", RotateAt: atp(time.Hour), RotateDueAt: atp(time.Minute)}),
			tx.PutSecretVersion(&store.SecretVersion{Tenant: store.DefaultTenant, Path: "apps/x", Version: 2, Sealed: []byte{9, 0, 200},
				CreatedAt: noon, CreatedBy: "sa:ci", GraceUntil: atp(time.Hour)}),
			tx.AddFence(&store.Fence{Tenant: store.DefaultTenant, EngineID: "eng_a", IssuedBefore: atp(0), Reason: "revoked_prefix", By: "user:ops", At: noon, AuditID: "aud_1"}),
			tx.Audit(store.DefaultTenant, entry("first")), tx.Audit(store.DefaultTenant, entry("second <&>")),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	b.write(t, func(tx store.Tx) error { // a version of its own
		return tx.UpdateObject(store.DefaultTenant, store.KindEngine, "eng_a", func(o *store.Object) error { o.Key = "b"; return nil })
	})
	full := lease(func(l *store.Lease) {
		l.Metadata, l.TokenID, l.Tied, l.SourceID = map[string]string{"pod": "p"}, "tok_1", true, "7"
		l.RenewedAt, l.PendingExpiresAt, l.PendingDeadline, l.LateLooks, l.FenceSeq = atp(1), atp(2), atp(3), 2, 1
		l.Claim = &store.Claim{Node: "n_1", Epoch: 3, No: 4, Until: at(time.Minute)}
	})
	dead, bare := lease(), lease(func(l *store.Lease) { l.Recipe = nil })
	b.insert(t, full, dead, bare)
	b.update(t, dead.ID, func(l *store.Lease) { revoked(at(time.Minute))(l); l.Revocation.Residue = "a grant" })
	many := make([]*store.Lease, store.PageSize+20)
	for i := range many {
		many[i] = lease()
	}
	b.insert(t, many...)
	return b
}

func contentRoundTrip(t *testing.T, from, to Home) {
	t.Helper()
	original := from.open(t, t.TempDir(), false)
	fill(t, original)
	lines := export(t, original)

	dir := t.TempDir()
	must(t, to.Import(t.Context(), dir, records(lines, -1)))
	to.unfinished(t, dir)
	b := to.open(t, dir, true)
	if b.Installation() != original.Installation() {
		t.Errorf("installation %s, want %s", b.Installation(), original.Installation())
	}
	if b.Epoch() < time.Now().Add(-time.Hour).Unix() {
		t.Errorf("epoch %d may be one that the original comes to", b.Epoch())
	}
	b.write(t, func(tx store.Tx) error { return tx.PutMeta(store.RestoringKey, nil) })
	if got, want := withoutState(export(t, b)), withoutState(lines); got != want {
		t.Errorf("the restored store holds\n%s\nwant\n%s", got, want)
	}
	var counts, wantCounts []store.LeaseCount
	must(t, original.Read(t.Context(), func(r store.Reader) (err error) { wantCounts, err = r.LeaseCounts(""); return err }))
	b.read(t, func(r store.Reader) { counts = value[[]store.LeaseCount](t)(r.LeaseCounts("")) })
	wantEqual(t, "counters", counts, wantCounts)
	wantEqual(t, "configuration", b.Config().Rev, original.Config().Rev)
	if b.Config().ByKey(store.DefaultTenant, store.KindEngine, "b") == nil {
		t.Error("the configuration is not that of the original")
	}

	// It goes on: numbers follow the restored ones, and both chains are whole.
	b.write(t, func(tx store.Tx) error {
		f := &store.Fence{Tenant: store.DefaultTenant, EngineID: "eng_a", Reason: "x", At: noon}
		if err := tx.AddFence(f); err != nil || f.Seq != 2 {
			return fmt.Errorf("fence %d, %w", f.Seq, err)
		}
		return tx.Audit(store.DefaultTenant, entry("after"))
	})
	b.read(t, func(r store.Reader) {
		total := 0
		for _, h := range value[[]store.AuditHead](t)(r.AuditHeads()) {
			prev := h.Base
			for _, row := range value[[]*store.AuditRow](t)(r.AuditChain(h.Node, h.FirstSeq, 0)) {
				if string(row.MAC) != string(Chain(prev, store.AuditMessage(row))) {
					t.Errorf("the chain of %s is broken at %d", h.Node, row.Seq)
				}
				prev = row.MAC
				total++
			}
		}
		if total != 3 {
			t.Errorf("%d entries, want 3", total)
		}
		if rows := value[[]*store.AuditRow](t)(r.AuditEntries(store.AuditFilter{Action: "first"}, 0, 0)); len(rows) != 1 || rows[0].Entry.IdentityID != "sa:ci" {
			t.Errorf("found %d entries by action", len(rows))
		}
	})
}

// withoutState leaves out what a restored store has of its own: the state, and the mark of the restore.
func withoutState(lines []string) string {
	var rest []string
	for _, l := range lines {
		if !strings.HasPrefix(l, `{"state"`) && !strings.Contains(l, store.RestoringKey) {
			rest = append(rest, l)
		}
	}
	return strings.Join(rest, "\n")
}

// What is written while an export runs waits for nothing, and is not part of it.
func contentSnapshot(t *testing.T, from Home) {
	t.Helper()
	b := fill(t, from.open(t, t.TempDir(), false))
	late := lease()
	begun := false
	must(t, b.Export(t.Context(), func(r *store.Record) error {
		if !begun {
			begun = true
			b.insert(t, late)
		}
		if r.Lease != nil && r.Lease.ID == late.ID {
			t.Error("the export holds a lease that was made after it had begun")
		}
		return nil
	}))
	if err := b.Export(t.Context(), func(*store.Record) error { return errCutOff }); !errors.Is(err, errCutOff) {
		t.Errorf("the error of who takes the records: %v", err)
	}
	closed := make(chan error, 1)
	err := b.Export(t.Context(), func(r *store.Record) error {
		if r.State != nil {
			go func() { closed <- b.Close() }()
			must(t, <-closed)
		}
		return nil
	})
	if err == nil {
		t.Error("an export went on after the store was closed")
	}
}

// A store that holds data is left as it is.
func contentRefused(t *testing.T, from, to Home) {
	t.Helper()
	lines := export(t, fill(t, from.open(t, t.TempDir(), false)))
	dir := t.TempDir()
	own := to.open(t, dir, false)
	own.insert(t, lease())
	before := export(t, own)
	must(t, own.Close())
	if err := to.Import(t.Context(), dir, records(lines, -1)); !errors.Is(err, store.ErrNotEmpty) {
		t.Fatalf("import over a store: %v", err)
	}
	if withoutState(export(t, to.open(t, dir, false))) != withoutState(before) {
		t.Error("the store is not what it was")
	}
}

// An import that fails leaves nothing, one that was not finished no store, and the next begins anew.
func contentCutOff(t *testing.T, from, to Home) {
	t.Helper()
	lines := export(t, fill(t, from.open(t, t.TempDir(), false)))
	dir := t.TempDir()
	for _, n := range []int{len(lines) - 1, 0} {
		if err := to.Import(t.Context(), dir, records(lines, n)); !errors.Is(err, errCutOff) {
			t.Fatalf("an import that was cut off: %v", err)
		}
		must(t, to.Import(t.Context(), dir, records(lines, -1)))
		to.unfinished(t, dir)
	}
	if err := to.Import(t.Context(), dir, records(lines, 1)); !errors.Is(err, errCutOff) {
		t.Fatalf("an import that was cut off: %v", err)
	}
	own := to.open(t, dir, false)
	if n := len(export(t, own)); n != 1 {
		t.Errorf("after an import that failed the place holds %d records, want the state of a new store only", n)
	}
	dir = t.TempDir()
	must(t, to.Import(t.Context(), dir, records(lines, -1)))
	must(t, to.Import(t.Context(), dir, records(lines, -1)))
	if got := withoutState(export(t, to.open(t, dir, true))); got != withoutState(lines) {
		t.Errorf("the restored store holds\n%s\nwant\n%s", got, withoutState(lines))
	}
}
