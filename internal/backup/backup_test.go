package backup_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/backup"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
	"github.com/scaivault/scaivault/internal/store/storetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a store with something in it, and its keys.
type world struct {
	store *sqlite.Store
	key   *seal.File
	keys  *seal.Keyring
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{}
	var err error
	w.store, err = sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Chain: storetest.Chain})
	must(t, err)
	t.Cleanup(func() { w.store.Close() })
	w.key, err = seal.CreateFile(filepath.Join(t.TempDir(), "seal.key"), strings.NewReader(strings.Repeat(t.Name(), 32)))
	must(t, err)
	w.keys, err = seal.Open(t.Context(), w.store, w.key)
	must(t, err)
	must(t, w.store.Write(t.Context(), func(tx store.Tx) error {
		for range 40 {
			if err := tx.InsertLease(lease()); err != nil {
				return err
			}
		}
		return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "a"})
	}))
	return w
}

func lease() *store.Lease {
	id := ident.New(ident.Lease)
	due := time.Now().UTC().Truncate(time.Microsecond)
	return &store.Lease{ID: id, Tenant: store.DefaultTenant, EngineID: "eng_a", Engine: "a", Role: "ro", Identity: "sa:ci",
		Status: api.LeaseActive, Username: "v_ro_" + id[len(id)-16:], Recipe: []byte(`{"n":1}`),
		IssuedAt: due, ExpiresAt: due, MaxExpiresAt: due, DueAt: &due, Deadline: due, Node: "n_1", Epoch: 1, Version: 1}
}

// plain is a backup of the world without its encryption.
func (w *world) plain(t *testing.T) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := backup.Write(t.Context(), &file, w.store, w.keys, "v1"); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func (w *world) mac(t *testing.T) []byte {
	t.Helper()
	key, err := w.keys.BackupKey()
	must(t, err)
	return key
}

// read reads a whole backup and counts its records.
func read(file []byte, key []byte) (n int, err error) {
	r, err := backup.Open(bytes.NewReader(file))
	if err != nil {
		return 0, err
	}
	for _, err := range r.Records(key) {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := w.plain(t)
	r, err := backup.Open(bytes.NewReader(file))
	must(t, err)
	if r.Header.Installation != w.store.Installation() || r.Header.Release != "v1" || r.Header.CreatedAt.IsZero() {
		t.Errorf("header %+v", r.Header)
	}
	opened, err := seal.OpenSealed(t.Context(), w.key, r.Header.Keyring)
	must(t, err)
	key, err := opened.BackupKey()
	must(t, err)
	dir := t.TempDir()
	must(t, sqlite.Import(t.Context(), sqlite.Config{Dir: dir}, r.Records(key)))
	if s := r.Summary(true); s.Records["leases"] != 40 || s.Records["audit"] != 1 || !s.Authentic {
		t.Errorf("summary %+v", s)
	}
	restored, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Restored: true})
	must(t, err)
	defer restored.Close()
	want, got := lines(t, w.store), lines(t, restored)
	if want != got {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
}

// lines are a store's records but for the state and the mark of the restore.
func lines(t *testing.T, s store.Store) string {
	t.Helper()
	var b strings.Builder
	must(t, s.Export(t.Context(), func(r *store.Record) error {
		if r.State != nil || r.Meta != nil && r.Meta.Key == store.RestoringKey {
			return nil
		}
		return json.NewEncoder(&b).Encode(r)
	}))
	return b.String()
}

// Wherever a backup is cut off, and whichever bit of it is flipped, it is not taken for a whole one.
func TestDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file, key := w.plain(t), w.mac(t)
	all, err := read(file, key)
	must(t, err)
	for n := 0; n < len(file); n += 7 {
		if got, err := read(file[:n], nil); err == nil {
			t.Fatalf("cut off after %d of %d bytes: read %d of %d records without an error", n, len(file), got, all)
		}
	}
	if _, err := read(file[:len(file)-1], nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("without its last byte: %v", err)
	}
	for n := 10; n < len(file); n += 11 { // gzip's own header says nothing
		flipped := bytes.Clone(file)
		flipped[n] ^= 1 << (n % 8)
		// A few bits of the compression mean nothing.
		if _, err := read(flipped, nil); err == nil && text(t, flipped) != text(t, file) {
			t.Errorf("byte %d flipped: read without an error", n)
		}
	}
	if _, err := read(append(bytes.Clone(file), file...), nil); err == nil {
		t.Error("two backups in one file were taken for one")
	}
}

// edited is the backup with another text in its place, with all that is to be had without the key.
func edited(t *testing.T, file []byte, change func(text string) string) []byte {
	t.Helper()
	var b bytes.Buffer
	out := gzip.NewWriter(&b)
	_, err := io.WriteString(out, change(text(t, file)))
	must(t, errors.Join(err, out.Close()))
	return b.Bytes()
}

// text is the lines of a backup.
func text(t *testing.T, file []byte) string {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(file))
	must(t, err)
	lines, err := io.ReadAll(zip)
	must(t, err)
	return string(lines)
}

// Who can encrypt to the recipients cannot make a backup that is restored.
func TestForged(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	file := w.plain(t)
	foreign := other.mac(t)
	foreign[0] ^= 1
	if _, err := read(file, foreign); !errors.Is(err, backup.ErrForged) {
		t.Errorf("with another MAC key: %v", err)
	}
	changed := edited(t, file, func(text string) string { return strings.Replace(text, "sa:ci", "sa:me", 1) })
	if _, err := read(changed, nil); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a changed record: %v", err)
	}
	// A record is left out, its count and the digest are put right, and the MAC cannot be.
	var body []string
	forged := edited(t, file, func(text string) string {
		all := strings.SplitAfter(text, "\n")
		for i, line := range all[:len(all)-2] {
			if i != len(all)-4 {
				body = append(body, line)
			}
		}
		return strings.Join(append(body, endOf(t, body, all[len(all)-2], nil)), "")
	})
	if _, err := read(forged, nil); err != nil {
		t.Fatalf("the forgery is no good one: %v", err)
	}
	if _, err := read(forged, w.mac(t)); !errors.Is(err, backup.ErrForged) {
		t.Errorf("a record left out: %v", err)
	}
}

// A release refuses what it would not understand in full.
func TestNewer(t *testing.T) {
	t.Parallel()
	file := newWorld(t).plain(t)
	for name, change := range map[string][2]string{
		"form":    {`"scaivault_backup":1`, `"scaivault_backup":2,"more":{}`},
		"content": {fmt.Sprintf(`"content":%d`, store.ContentVersion), `"content":999`},
		"field":   {`{"lease":{`, `{"lease":{"Unheard":1,`},
		"kind":    {`{"lease":{`, `{"unheard":{`},
	} {
		newer := edited(t, file, func(text string) string { return strings.Replace(text, change[0], change[1], 1) })
		if _, err := read(newer, nil); err == nil || !strings.Contains(err.Error(), "newer release") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine, err := age.GenerateX25519Identity()
	must(t, err)
	other, err := age.GenerateX25519Identity()
	must(t, err)
	recipients, err := backup.ParseRecipients([]byte("# mine\n" + mine.Recipient().String() + "\n"))
	must(t, err)
	var file bytes.Buffer
	out, err := backup.Encrypt(&file, recipients...)
	must(t, err)
	_, err = out.Write(w.plain(t))
	must(t, errors.Join(err, out.Close()))

	try := func(file []byte, by ...age.Identity) error {
		r, err := backup.Decrypt(bytes.NewReader(file), by...)
		if err != nil {
			return err
		}
		for _, err := range r.Records(nil) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	must(t, try(file.Bytes(), other, mine))
	refused := func(what string, err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q", what, err, text)
		}
	}
	refused("another identity", try(file.Bytes(), other), "encrypted to somebody else")
	refused("not encrypted", try(w.plain(t), mine), "no backup of scaivault")
	refused("empty", try(nil, mine), "no backup of scaivault")
	refused("cut off in the header", try(file.Bytes()[:60], mine), "damaged")
	refused("cut off", try(file.Bytes()[:file.Len()-1], mine), "damaged")
	flipped := bytes.Clone(file.Bytes())
	flipped[len(flipped)/2] ^= 4
	refused("flipped", try(flipped, mine), "damaged")

	_, err = backup.Encrypt(io.Discard)
	refused("to nobody", err, "never written in the clear")
	_, _, err = backup.Passphrase([]byte("short\n"))
	refused("a short passphrase", err, "at least 12")
	_, err = backup.ParseIdentities([]byte("AGE-SECRET-KEY-1 canary"))
	refused("a broken identity", err, "none that age knows")
	if strings.Contains(err.Error(), "canary") {
		t.Error("the error repeats the identity")
	}
}

// A backup of the first format is read for ever: a field that is renamed would be lost without a word.
func TestFormatOne(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "format-1.jsonl"))
	must(t, err)
	var file bytes.Buffer
	zip := gzip.NewWriter(&file)
	_, err = zip.Write(text)
	must(t, errors.Join(err, zip.Close()))
	r, err := backup.Open(&file)
	must(t, err)
	dir := t.TempDir()
	must(t, sqlite.Import(t.Context(), sqlite.Config{Dir: dir}, r.Records([]byte("the key of the file"))))
	restored, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Restored: true})
	must(t, err)
	defer restored.Close()
	all := strings.SplitAfter(string(text), "\n")
	if want, got := strings.Join(all[2:len(all)-2], ""), lines(t, restored); !holds(t, got, want) {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
}

// A million leases must not be in memory: what passes through is many times what is held. Alone, so
// that no other test's memory is counted.
func TestMemoryIsBounded(t *testing.T) { //nolint:paralleltest // see above
	const leases, size, bound = 12_000, 8 << 10, 48 << 20
	filler := strings.Repeat("x", size)
	peak := &peakWriter{base: heap()}
	generate := func(yield func(*store.Record, error) bool) {
		if !yield(&store.Record{State: &store.State{Installation: "i", Nodes: []store.NodeState{{ID: "n_1"}}}}, nil) {
			return
		}
		for i := range leases {
			l := lease()
			l.Metadata = map[string]string{"filler": filler}
			if i%500 == 0 {
				peak.look()
			}
			if !yield(&store.Record{Lease: l}, nil) {
				return
			}
		}
	}
	dir := t.TempDir()
	must(t, sqlite.Import(t.Context(), sqlite.Config{Dir: dir}, iter.Seq2[*store.Record, error](generate)))
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Restored: true, Chain: storetest.Chain})
	must(t, err)
	defer s.Close()
	key, err := seal.CreateFile(filepath.Join(t.TempDir(), "seal.key"), strings.NewReader(strings.Repeat("k", 64)))
	must(t, err)
	keys, err := seal.Open(context.Background(), s, key)
	must(t, err)
	summary, err := backup.Write(t.Context(), peak, s, keys, "v1")
	must(t, err)
	if summary.Records["leases"] != leases {
		t.Errorf("%d leases, want %d", summary.Records["leases"], leases)
	}
	t.Logf("%d MiB of leases, at most %d MiB more in memory", leases*size>>20, peak.most>>20)
	if peak.most > bound {
		t.Errorf("the memory grew by %d MiB", peak.most>>20)
	}
}

// peakWriter looks at the memory while something is written to it.
type peakWriter struct{ base, most uint64 }

func (p *peakWriter) Write(b []byte) (int, error) {
	p.look()
	return len(b), nil
}

func (p *peakWriter) look() {
	if now := heap(); now > p.base {
		p.most = max(p.most, now-p.base)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// endOf is the last line of a backup whose other lines are body, made from another's; without a key
// its MAC stays.
func endOf(t *testing.T, body []string, line string, key []byte) string {
	t.Helper()
	var l struct {
		End struct {
			Records map[string]int `json:"records"`
			SHA256  []byte         `json:"sha256"`
			MAC     []byte         `json:"mac"`
		} `json:"end"`
	}
	must(t, json.Unmarshal([]byte(line), &l))
	l.End.Records["leases"] = strings.Count(strings.Join(body, ""), `{"lease":{`)
	sum := sha256.Sum256([]byte(strings.Join(body, "")))
	l.End.SHA256 = sum[:]
	if key != nil {
		mac := hmac.New(sha256.New, key)
		mac.Write(sum[:])
		l.End.MAC = mac.Sum(nil)
	}
	text, err := json.Marshal(l)
	must(t, err)
	return string(text) + "\n"
}

// holds tells whether each line of want is one of got, which may say more.
func holds(t *testing.T, got, want string) bool {
	t.Helper()
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		return false
	}
	for i := range w {
		if w[i] == "" {
			continue
		}
		var a, b any
		must(t, errors.Join(json.Unmarshal([]byte(g[i]), &a), json.Unmarshal([]byte(w[i]), &b)))
		if !within(a, b) {
			return false
		}
	}
	return true
}

func within(got, want any) bool {
	w, isObject := want.(map[string]any)
	if !isObject {
		return reflect.DeepEqual(got, want)
	}
	g, _ := got.(map[string]any)
	for name, value := range w {
		if !within(g[name], value) {
			return false
		}
	}
	return true
}
