package witness_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/witness"
)

// world is a data folder, a witness outside it, and the process that has both.
type world struct {
	t    *testing.T
	dir  string
	file string

	store   *sqlite.Store
	witness *witness.Service
	admin   *access.Caller
	resumed int
}

func setup(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	w := &world{t: t, dir: t.TempDir(), file: filepath.Join(t.TempDir(), "key.witness")}
	w.admin = access.System(store.DefaultTenant, "system:test")
	w.open()
	w.write(func(tx store.Tx) error {
		return errors.Join(
			put(tx, store.KindPolicy, "pol", "all", `{"rules": [{"path_pattern": "**", "permissions": ["admin"]}], "is_active": true}`),
			put(tx, store.KindBinding, "bind", "system:test pol", `{"policy": "pol", "identity": "system:test"}`))
	})
	w.start()
	return w
}

func put(tx store.Tx, kind store.Kind, id, key, doc string) error {
	return tx.PutObject(&store.Object{Tenant: store.DefaultTenant, Kind: kind, ID: id, Key: key, Doc: []byte(doc)}, store.AnyVersion)
}

func (w *world) open() {
	w.t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: w.dir, Chain: audit.Chain([]byte("test"))})
	w.must(err)
	w.store = s
	w.t.Cleanup(func() { _ = s.Close() })
	w.witness = w.observe(s, w.file)
}

// observe is the witness of a node that keeps the file.
func (w *world) observe(s store.Store, file string) *witness.Service {
	return witness.New(witness.Config{Store: s, Door: access.New(access.Config{Store: s, Limits: access.Limits{Off: true}}),
		File: file, Resumed: func() { w.resumed++ }, Logger: slog.New(slog.DiscardHandler)})
}

func (w *world) start() {
	w.t.Helper()
	w.must(w.witness.Start(context.Background()))
}

// restart ends the process as kill -9 does, which leaves the folder as it is, puts a copy of the
// folder back if one is given, and starts another.
func (w *world) restart(older string) {
	w.t.Helper()
	w.must(w.store.Close())
	if older != "" {
		w.must(os.RemoveAll(w.dir))
		w.must(os.CopyFS(w.dir, os.DirFS(older)))
	}
	w.open()
	w.start()
}

// copy is the folder as it is now.
func (w *world) copy() string {
	w.t.Helper()
	dir := filepath.Join(w.t.TempDir(), "copy")
	w.must(w.store.Close())
	w.must(os.CopyFS(dir, os.DirFS(w.dir)))
	w.open()
	w.start()
	return dir
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(fn func(tx store.Tx) error) {
	w.t.Helper()
	w.must(w.store.Write(context.Background(), fn))
}

// record writes something that is worth noting.
func (w *world) record() {
	w.t.Helper()
	w.write(func(tx store.Tx) error { return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "test"}) })
}

// wantQuarantine wants the store to be in quarantine as an older copy, or not to be.
func (w *world) wantQuarantine(want bool) {
	w.t.Helper()
	q, err := w.witness.State()
	w.must(err)
	if got := q != nil && q.Active; got != want {
		w.t.Fatalf("quarantine: %+v, want %t", q, want)
	}
	if want && (q.Reason != "older_copy" || q.RestoredAt == nil || !strings.Contains(q.Detail, "generation")) {
		w.t.Errorf("quarantine: %+v", q)
	}
}

func (w *world) resume(onlyCopy bool) (*api.Quarantine, error) {
	return w.witness.Resume(context.Background(), w.admin, &api.ResumeRequest{OnlyCopy: onlyCopy})
}

// A copy that is put back is noticed, once the word is given it is the store, and every copy made
// before that is an older one from then on.
func TestOlderCopy(t *testing.T) {
	w := setup(t)
	older := w.copy()
	w.record()
	w.must(w.witness.Note(t.Context()))
	w.restart("")
	w.wantQuarantine(false)
	newer := w.copy()

	w.restart(older)
	w.wantQuarantine(true)
	w.record()
	w.must(w.witness.Note(t.Context()))
	w.restart("") // neither time nor a start makes it the newest
	w.wantQuarantine(true)
	if _, err := w.resume(false); fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), "generation") {
		t.Errorf("resumed without the word: %v", err)
	}
	w.wantQuarantine(true)

	q, err := w.resume(true)
	w.must(err)
	if q.Active || q.ResumedBy != "system:test" || w.resumed != 1 {
		t.Errorf("%+v, told %d times", q, w.resumed)
	}
	_, err = w.resume(true)
	w.must(err) // again
	w.restart("")
	w.wantQuarantine(false)

	for _, copied := range []string{older, newer} {
		w.restart(copied)
		w.wantQuarantine(true)
	}
}

// The node is stopped in good order: a copy that lacks its last second is noticed.
func TestStopNotesTheLast(t *testing.T) {
	w := setup(t)
	w.record()
	w.must(w.witness.Note(t.Context()))
	older := w.copy()
	w.record()
	w.must(w.witness.Stop(t.Context()))
	w.restart(older)
	w.wantQuarantine(true)
}

// What nothing was written to is not written to by its witness either.
func TestIdle(t *testing.T) {
	w := setup(t)
	before, err := os.ReadFile(w.file)
	w.must(err)
	for range 3 {
		w.must(w.witness.Note(t.Context()))
	}
	after, err := os.ReadFile(w.file)
	w.must(err)
	if string(before) != string(after) {
		t.Errorf("%s became %s", before, after)
	}
}

// failing is a store whose disk has just failed: what is written is not there afterwards.
type failing struct{ store.Store }

var errDisk = errors.New("disk failed")

func (f failing) Write(ctx context.Context, fn func(tx store.Tx) error) error {
	return f.Store.Write(ctx, func(tx store.Tx) error { return errors.Join(fn(tx), errDisk) })
}

// Whichever of the two writes is the last before the end, the next start raises no alarm.
func TestNoFalseAlarm(t *testing.T) {
	w := setup(t)
	w.must(w.store.Close())
	w.open()
	for range 3 {
		if err := w.observe(failing{w.store}, w.file).Start(t.Context()); !errors.Is(err, errDisk) {
			t.Fatal(err)
		}
	}
	w.restart("") // the store's write is lost: the file must not have been written
	w.wantQuarantine(false)

	file := w.file
	w.file = filepath.Join(file, "x") // cannot be written
	w.restart("")
	w.record()
	w.must(w.witness.Note(t.Context()))
	w.file = file
	w.restart("")
	w.wantQuarantine(false)
}

// A resumed store whose witness could not be written is no older copy of itself.
func TestResumeWithoutTheFile(t *testing.T) {
	w := setup(t)
	older := w.copy()
	w.record()
	w.restart("")
	w.restart(older)
	w.wantQuarantine(true)
	former, err := os.ReadFile(w.file)
	w.must(err)
	_, err = w.resume(true)
	w.must(err)
	w.must(os.WriteFile(w.file, former, 0o600))
	w.restart("")
	w.wantQuarantine(false)
}

// A witness that is lost, damaged or another installation's is made anew, and stops nobody.
func TestUselessWitness(t *testing.T) {
	w := setup(t)
	good, err := os.ReadFile(w.file)
	w.must(err)
	other := setupOther(t)
	for name, content := range map[string][]byte{
		"empty": {}, "flipped": []byte(strings.Replace(string(good), `"generation":1`, `"generation":9`, 1)),
		"another's": other, "no witness": []byte("x"),
	} {
		w.must(os.WriteFile(w.file, content, 0o600))
		w.restart("")
		w.wantQuarantine(false)
		if now, err := os.ReadFile(w.file); err != nil || !strings.Contains(string(now), w.store.Installation()) {
			t.Errorf("%s: %s, %v", name, now, err)
		}
	}
	w.must(os.Remove(w.file))
	w.restart("")
	w.wantQuarantine(false)
}

func setupOther(t *testing.T) []byte {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), file: filepath.Join(t.TempDir(), "other.witness")}
	w.open()
	for range 20 {
		w.start()
	}
	raw, err := os.ReadFile(w.file)
	w.must(err)
	return raw
}

// another is the store of another node.
type another struct{ store.Store }

func (another) Node() string { return "n_other" }

// The database behind running nodes becomes an older one: the first that looks says so, and when it
// is resumed at one node the others agree.
func TestRunningNodes(t *testing.T) {
	w := setup(t)
	file := filepath.Join(t.TempDir(), "witness")
	other := w.observe(another{w.store}, file)
	for range 5 {
		w.must(other.Start(t.Context()))
	}
	var former []byte
	w.write(func(tx store.Tx) (err error) {
		former, err = tx.Meta("generation/n_other")
		return err
	})
	w.must(other.Start(t.Context()))
	w.write(func(tx store.Tx) error { return tx.PutMeta("generation/n_other", former) })
	for range 3 { // of a node that misses nothing
		w.record()
		w.must(w.witness.Note(t.Context()))
	}
	w.wantQuarantine(false)
	w.must(other.Note(t.Context()))
	w.wantQuarantine(true)
	_, err := w.resume(true)
	w.must(err)
	for range 3 {
		w.record()
		w.must(other.Note(t.Context()))
		w.must(w.witness.Note(t.Context()))
		w.wantQuarantine(false)
	}
	other = w.observe(another{w.store}, file)
	w.must(other.Start(t.Context()))
	w.wantQuarantine(false)
}

// A node that takes the place of another finds the other's witness, and goes by what that had reached.
func TestWitnessOfAnotherNode(t *testing.T) {
	w := setup(t)
	w.restart("")
	w.restart("")
	heir := w.observe(another{w.store}, w.file)
	w.must(heir.Start(t.Context()))
	w.wantQuarantine(false)
	w.must(heir.Start(t.Context()))
	w.wantQuarantine(false)
}
