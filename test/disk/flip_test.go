package disk_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// One bit is wrong, somewhere in the files of a store that was closed or killed: what the store then
// answers is either what it answered before, or an error.
func TestFlippedBit(t *testing.T) {
	t.Parallel()
	closed, killed := folders(t)
	truth := map[string]string{}
	for moment, files := range map[string]map[string][]byte{"closed": closed, "killed": killed} {
		dir := filepath.Join(t.TempDir(), "data")
		must(t, put(dir, files))
		answer, err := portrait(dir)
		must(t, err)
		truth[moment] = answer
	}
	for _, c := range []struct {
		moment, name string
		files        map[string][]byte
		times        int
	}{
		{"closed", "scaivault.db", closed, often(40, 2500)},
		{"closed", "scaivault.db-sum", closed, often(6, 300)},
		{"killed", "scaivault.db", killed, often(12, 700)},
		{"killed", "scaivault.db-wal", killed, often(30, 1500)},
		{"killed", "scaivault.db-sum", killed, often(6, 300)},
	} {
		told, dir := 0, filepath.Join(t.TempDir(), "data")
		for range c.times {
			bit := rand.IntN(8 * len(c.files[c.name]))
			became := flip(t, dir, c.files, c.name, bit, truth[c.moment])
			matrix.add("one flipped bit", c.name+" of a "+c.moment+" store", became)
			switch became {
			case wrong:
				t.Errorf("bit %d of %s of a %s store is flipped, and an answer changed without an error", bit, c.name, c.moment)
			case refused:
				told++
			}
		}
		if told == 0 && c.name == "scaivault.db" {
			t.Errorf("%s of a %s store: none of %d flipped bits was noticed", c.name, c.moment, c.times)
		}
	}
}

// flip turns one bit over and tells what became of the answers.
func flip(t *testing.T, dir string, files map[string][]byte, name string, bit int, truth string) string {
	t.Helper()
	defer os.RemoveAll(dir)
	must(t, put(dir, files))
	damaged := slices.Clone(files[name])
	damaged[bit/8] ^= 1 << (bit % 8)
	must(t, os.WriteFile(filepath.Join(dir, name), damaged, 0o600))
	switch answer, err := portrait(dir); {
	case err != nil:
		return refused
	case answer == truth:
		return right
	default:
		return wrong
	}
}

// folders are the files of a store that was closed, and of one whose process was killed.
func folders(t *testing.T) (closed, killed map[string][]byte) {
	t.Helper()
	dir, witnessFile, at := template(t)
	r := record(dir)
	v, err := open(dir, witnessFile, r.layer, at)
	must(t, err)
	work(t, v, r, witnessFile, 60)
	r.freeze()
	v.close()
	return record(dir).base, r.image(len(r.events), lostNone, random())
}

// portrait is all that a store answers, by every way that there is to ask for it: so a row that an
// index does not find shows as one that is changed.
func portrait(dir string) (string, error) {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: chain, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	defer s.Close()
	var b strings.Builder
	if err := s.Read(context.Background(), func(r store.Reader) error { return draw(&b, r, s) }); err != nil {
		return "", err
	}
	if err := s.Export(context.Background(), func(rec *store.Record) error {
		if rec.State == nil { // which tells the epoch, that each opening moves
			fmt.Fprintf(&b, "%s\n", rec.Kind())
		}
		return nil
	}); err != nil {
		return "", err
	}
	return b.String(), s.Ping(context.Background())
}

func draw(b *strings.Builder, r store.Reader, s *sqlite.Store) error {
	fmt.Fprintln(b, s.Installation(), s.Node(), r.ConfigRev())
	leases, err := r.Leases(store.LeaseFilter{}, "", 0)
	if err != nil {
		return err
	}
	engineID := ""
	for _, l := range leases {
		engineID = l.EngineID
		byID, err := r.Lease(tenant, l.ID)
		if err != nil {
			return err
		}
		byName, err := r.LeasesByUsername([]string{l.Username})
		if err != nil {
			return err
		}
		fmt.Fprintln(b, lines(l), lines(byID), byName[l.Username] != nil)
	}
	far := time.Now().Add(1000 * time.Hour)
	for _, f := range []store.LeaseFilter{{Identity: holder}, {EngineID: engineID, Status: api.LeaseActive}, {Identity: holder, Status: api.LeaseActive},
		{Status: api.LeaseRevoked}, {ExpiresBefore: &far}} {
		found, err := r.Leases(f, "", 0)
		if err != nil {
			return err
		}
		fmt.Fprintln(b, len(found))
	}
	counts, err := r.LeaseCounts("")
	if err != nil {
		return err
	}
	n, oldest, err := r.Overdue(engineID, far)
	if err != nil {
		return err
	}
	due, err := r.NextDue(r.Now())
	if err != nil {
		return err
	}
	fmt.Fprintln(b, counts, n, oldest, due)
	for _, kind := range []store.Kind{store.KindEngine, store.KindRole, store.KindPolicy, store.KindBinding, store.KindSystem, store.KindToken} {
		objects, err := r.Objects(tenant, kind, "", "", 0)
		if err != nil {
			return err
		}
		for _, o := range objects {
			byID, err := r.Object(tenant, kind, o.ID)
			if err != nil {
				return err
			}
			fmt.Fprintln(b, o.Key, string(o.Doc), byID.Version)
		}
	}
	secret, err := r.Secret(tenant, rootPath)
	if err != nil {
		return err
	}
	rows, err := r.AuditEntries(store.AuditFilter{IdentityID: holder}, 0, 0)
	if err != nil {
		return err
	}
	all, err := r.AuditChain(s.Node(), 1, 0)
	if err != nil {
		return err
	}
	for _, row := range append(rows, all...) {
		fmt.Fprintln(b, row.Seq, string(row.Raw), row.MAC)
	}
	generation, err := r.Meta("generation/" + s.Node())
	fmt.Fprintln(b, *secret, len(rows), len(all), string(generation))
	return err
}

// lines is a lease without what points elsewhere.
func lines(l *store.Lease) string {
	flat := *l
	flat.Claim, flat.Revocation, flat.DueAt, flat.RevokedAt = nil, nil, nil, nil
	flat.RenewedAt, flat.PendingExpiresAt, flat.PendingDeadline = nil, nil, nil
	text := fmt.Sprintf("%+v", flat)
	if l.DueAt != nil {
		text += l.DueAt.String()
	}
	if l.Revocation != nil {
		text += fmt.Sprintf("%+v", *l.Revocation)
	}
	return text
}
