package audit_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	_ "modernc.org/sqlite"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

var key = []byte("the chain's key, which only the seal opens")

type world struct {
	t     testing.TB
	dir   string
	store *sqlite.Store
	door  *access.Door
	audit *audit.Service
	admin *access.Caller
}

// setup opens the store in dir with an administrator.
func setup(t testing.TB, dir string) *world {
	t.Helper()
	chain := audit.Chain(key)
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: chain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, dir: dir, store: s}
	w.door = access.New(access.Config{Store: s, Limits: access.Limits{Off: true}})
	w.audit = audit.New(audit.Config{Store: s, Door: w.door, Chain: chain})
	ids := identity.New(identity.Config{Store: s, Door: w.door})
	if _, err := ids.Bootstrap(context.Background()); err != nil {
		t.Fatal(err)
	}
	token, err := ids.NewAdminToken(context.Background(), "test", false)
	if err != nil {
		t.Fatal(err)
	}
	o := access.Origin{RequestID: "req_test", SourceIP: netip.MustParseAddr("192.0.2.1")}
	if w.admin, err = w.door.Authenticate(context.Background(), token.Text.Reveal(), "", o); err != nil {
		t.Fatal(err)
	}
	return w
}

// act does something as the administrator n times.
func (w *world) act(n int, action, path string, why error) {
	w.t.Helper()
	for range n {
		pass, err := w.door.Admit(context.Background(), w.admin, access.Ask{Action: action, Path: path})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := pass.Record(context.Background(), why); !errors.Is(err, why) {
			w.t.Fatal(err)
		}
	}
}

func (w *world) verify() *api.AuditVerification {
	w.t.Helper()
	v, err := w.audit.Check(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) head() store.AuditHead {
	w.t.Helper()
	var heads []store.AuditHead
	if err := w.store.Read(context.Background(), func(r store.Reader) (err error) {
		heads, err = r.AuditHeads()
		return err
	}); err != nil || len(heads) != 1 {
		w.t.Fatal(heads, err)
	}
	return heads[0]
}

// tamper closes the store, changes the database behind its back and opens it again.
func (w *world) tamper(statements ...string) *world {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(w.dir, "*.db"))
	if err != nil || len(files) != 1 {
		w.t.Fatal("find the database", files, err)
	}
	db, err := sql.Open("sqlite", files[0])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range statements {
		r, err := db.Exec(s)
		if err != nil {
			w.t.Fatal(err)
		}
		if n, _ := r.RowsAffected(); n == 0 {
			w.t.Fatalf("%s changed nothing", s)
		}
	}
	if err := db.Close(); err != nil {
		w.t.Fatal(err)
	}
	// Who can write the database can also take away the checksums that its pages no longer match.
	if err := os.Remove(files[0] + "-sum"); err != nil {
		w.t.Fatal(err)
	}
	chain := audit.Chain(key)
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: w.dir, Chain: chain})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { s.Close() })
	return &world{t: w.t, dir: w.dir, store: s, audit: audit.New(audit.Config{Store: s, Chain: chain})}
}

func TestAWholeChainVerifies(t *testing.T) {
	t.Parallel()
	w := setup(t, t.TempDir())
	w.act(1100, "read", "app/x", nil)
	v, err := w.audit.Verify(t.Context(), w.admin)
	if err != nil || !v.OK || len(v.Chains) != 1 || v.Chains[0].Entries != w.head().LastSeq-1 || v.Chains[0].FirstSeq != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	if err := w.audit.WriteHeads(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.act(3, "read", "app/x", nil)
	if v := w.verify(); !v.OK {
		t.Errorf("%+v", v)
	}
	stranger := audit.New(audit.Config{Store: w.store, Chain: audit.Chain([]byte("another key"))})
	if v, err := stranger.Check(t.Context()); err != nil || v.OK {
		t.Errorf("by another key: %+v, %v", v, err)
	}
	if v := w.tamper("UPDATE meta SET value = value WHERE key LIKE 'audit_anchor/%'").verify(); !v.OK {
		t.Errorf("after a restart: %+v", v)
	}
}

func TestVerifyNamesTheFirstBrokenEntry(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		statements []string
		broken     string // "#n", or the id of entry n as "n"
		problem    string
	}{
		"a flipped byte":       {[]string{`UPDATE audit SET raw = replace(raw, '"app/x"', '"app/y"') WHERE seq = 7`}, "7", "altered"},
		"an illegible entry":   {[]string{`UPDATE audit SET raw = 'x' WHERE seq = 7`}, "#7", "altered"},
		"another tenant":       {[]string{`UPDATE audit SET tenant = 'tnt_other' WHERE seq = 7`}, "7", "altered"},
		"a flipped bit of MAC": {[]string{`UPDATE audit SET mac = zeroblob(32) WHERE seq = 7`}, "7", "altered"},
		"a removed entry":      {[]string{`DELETE FROM audit WHERE seq = 7`}, "#7", "missing"},
		"a removed beginning":  {[]string{`DELETE FROM audit WHERE seq < 7`}, "7", "removed"},
		"a renumbered hole": {[]string{`DELETE FROM audit WHERE seq = 7`, `UPDATE audit SET seq = -seq WHERE seq > 7`,
			`UPDATE audit SET seq = -seq - 1 WHERE seq < 0`}, "8", "altered"},
		"a swapped pair": {[]string{`UPDATE audit SET seq = -7 WHERE seq = 7`, `UPDATE audit SET seq = 7 WHERE seq = 8`,
			`UPDATE audit SET seq = 8 WHERE seq = -7`}, "8", "altered"},
		"a copied entry":  {[]string{`UPDATE audit SET raw = (SELECT raw FROM audit WHERE seq = 6), mac = (SELECT mac FROM audit WHERE seq = 6) WHERE seq = 7`}, "6", "altered"},
		"a cut end":       {[]string{`DELETE FROM audit WHERE seq >= 9`}, "#9", "the end is missing"},
		"a forged anchor": {[]string{`UPDATE meta SET value = CAST('{"heads":[],"mac":""}' AS BLOB) WHERE key LIKE 'audit_anchor/%'`}, "", "tampered"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t, t.TempDir())
			w.act(10, "read", "app/x", nil)
			if err := w.audit.WriteHeads(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := tt.broken
			if want != "" && want[0] != '#' {
				want = w.id(want)
			}
			v := w.tamper(tt.statements...).verify()
			if v.OK || len(v.Chains) != 1 || v.Chains[0].FirstBroken != want || !strings.Contains(v.Chains[0].Problem, tt.problem) {
				t.Errorf("%+v, want %s", v, want)
			}
		})
	}
}

func (w *world) id(seq string) string {
	var id string
	err := w.store.Read(context.Background(), func(r store.Reader) error {
		var n int64
		if _, err := fmt.Sscan(seq, &n); err != nil {
			return err
		}
		rows, err := r.AuditChain(w.store.Node(), n, 1)
		if err == nil {
			id = rows[0].Entry.ID
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

func TestACutEndThatWasWrittenOnIsFound(t *testing.T) {
	t.Parallel()
	w := setup(t, t.TempDir())
	w.act(10, "read", "app/x", nil)
	if err := w.audit.WriteHeads(t.Context()); err != nil {
		t.Fatal(err)
	}
	cut := w.tamper(`DELETE FROM audit WHERE seq >= 9`)
	w = setup(t, reopened(t, cut))
	w.act(10, "read", "app/x", nil)
	if v := w.verify(); v.OK || !strings.Contains(v.Chains[0].Problem, "not the one that was there before") {
		t.Errorf("%+v", v)
	}
}

func reopened(t *testing.T, w *world) string {
	t.Helper()
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	return w.dir
}

func TestHeadsAreWrittenWhenAChainHasMoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, t.TempDir())
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.audit.Run(ctx); close(done) }()
		heads := func() (n int) {
			list, err := w.audit.Logs(t.Context(), w.admin, store.AuditFilter{Action: "audit_heads"}, page.Request{})
			if err != nil {
				t.Fatal(err)
			}
			return len(list.Logs)
		}
		time.Sleep(time.Hour + time.Second)
		first := w.head().LastSeq
		if n := heads(); n != 1 {
			t.Errorf("an idle hour has %d entries of heads", n)
		}
		time.Sleep(10 * time.Minute)
		if n := heads(); n != 2 {
			t.Errorf("%d entries of heads after one read", n)
		}
		if w.head().LastSeq != first+3 {
			t.Errorf("the chain grew by %d", w.head().LastSeq-first)
		}
		stop()
		<-done
	})
}

func TestLogs(t *testing.T) {
	t.Parallel()
	w := setup(t, t.TempDir())
	ctx := t.Context()
	w.act(3, "write", "app/x", nil)
	w.act(2, "delete", "app/xy", fault.New(fault.SecretNotFound, "none"))
	yes, no := true, false
	future := time.Now().Add(time.Hour)
	count := func(f store.AuditFilter) int {
		t.Helper()
		list, err := w.audit.Logs(ctx, w.admin, f, page.Request{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(list.Logs)
	}
	for name, tt := range map[string]struct {
		f    store.AuditFilter
		want int
	}{
		"action":       {store.AuditFilter{Action: "write"}, 3},
		"path":         {store.AuditFilter{Path: "app/x"}, 3},
		"prefix":       {store.AuditFilter{PathPrefix: "app/x"}, 5},
		"failed":       {store.AuditFilter{PathPrefix: "app/", Success: &no}, 2},
		"succeeded":    {store.AuditFilter{PathPrefix: "app/", Success: &yes}, 3},
		"identity":     {store.AuditFilter{IdentityID: "user:admin", PathPrefix: "app/"}, 5},
		"stranger":     {store.AuditFilter{IdentityID: "user:nobody"}, 0},
		"type":         {store.AuditFilter{IdentityType: "service_account"}, 0},
		"address":      {store.AuditFilter{SourceIP: "192.0.2.1", PathPrefix: "app/"}, 5},
		"request":      {store.AuditFilter{RequestID: "req_test", PathPrefix: "app/"}, 5},
		"future":       {store.AuditFilter{From: &future}, 0},
		"until then":   {store.AuditFilter{To: &future, PathPrefix: "app/"}, 5},
		"other tenant": {store.AuditFilter{Tenant: "tnt_other", PathPrefix: "app/"}, 5}, // the caller's own counts
	} {
		if got := count(tt.f); got != tt.want {
			t.Errorf("%s: %d entries, want %d", name, got, tt.want)
		}
	}

	var seen []string
	for p := (page.Request{Limit: 2}); ; {
		list, err := w.audit.Logs(ctx, w.admin, store.AuditFilter{PathPrefix: "app/"}, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.Logs {
			seen = append(seen, e.Action)
		}
		if !list.HasMore {
			break
		}
		p.Cursor = *list.Cursor
	}
	if got := strings.Join(seen, " "); got != "delete delete write write write" {
		t.Errorf("pages gave %s", got)
	}

	past := time.Now().Add(-time.Hour)
	_, err := w.audit.Logs(ctx, w.admin, store.AuditFilter{From: &future, To: &past}, page.Request{})
	wantCode(t, err, fault.InvalidRequest)
	_, err = w.audit.Logs(ctx, w.admin, store.AuditFilter{}, page.Request{Cursor: "nonsense"})
	wantCode(t, err, fault.InvalidCursor)

	sum, err := w.audit.Summary(ctx, w.admin, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string][2]int64{}
	var total, failed int64
	for _, a := range sum.Actions {
		counts[a.Action] = [2]int64{a.OK, a.Failed}
		total, failed = total+a.OK+a.Failed, failed+a.Failed
	}
	if counts["write"] != [2]int64{3, 0} || counts["delete"] != [2]int64{0, 2} || sum.Total != total || sum.Failed != failed {
		t.Errorf("%+v", sum)
	}
}

func TestReadingTheTrailIsJudgedAndRecorded(t *testing.T) {
	t.Parallel()
	w := setup(t, t.TempDir())
	ctx := t.Context()
	ids := identity.New(identity.Config{Store: w.store, Door: w.door})
	token, err := ids.CreateToken(ctx, w.admin, &api.TokenRequest{Name: "x", Scopes: []string{"secrets:read"}})
	if err != nil {
		t.Fatal(err)
	}
	limited, err := w.door.Authenticate(ctx, token.Token, "", access.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(c *access.Caller) error{
		"logs": func(c *access.Caller) error {
			_, err := w.audit.Logs(ctx, c, store.AuditFilter{}, page.Request{})
			return err
		},
		"summary": func(c *access.Caller) error { _, err := w.audit.Summary(ctx, c, nil, nil); return err },
		"verify":  func(c *access.Caller) error { _, err := w.audit.Verify(ctx, c); return err },
	} {
		before := w.head().LastSeq
		if got := fault.CodeOf(ask(limited)); got != fault.InsufficientScope {
			t.Errorf("%s: code %q", name, got)
		}
		if err := ask(w.admin); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := w.head().LastSeq - before; got != 2 {
			t.Errorf("%s: two requests made %d entries", name, got)
		}
	}
}

// flaky is a sink that fails when told to.
type flaky struct {
	fails bool
	lines [][]byte
}

func (f *flaky) Name() string { return "flaky" }

func (f *flaky) Deliver(lines [][]byte) error {
	if f.fails {
		return errors.New("away")
	}
	f.lines = append(f.lines, lines...)
	return nil
}

func TestASinkMissesNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, t.TempDir())
	ctx := t.Context()
	sink := &flaky{}
	shipper := &audit.Shipper{Store: w.store, Sink: sink, Logger: slog.New(slog.DiscardHandler)}
	w.act(700, "read", "app/x", nil)
	if err := shipper.Ship(ctx); err != nil {
		t.Fatal(err)
	}
	sink.fails = true
	w.act(3, "read", "app/x", nil)
	if err := shipper.Ship(ctx); err == nil {
		t.Fatal("a sink that is away took entries")
	}
	sink.fails = false
	again := &audit.Shipper{Store: w.store, Sink: sink, Logger: shipper.Logger} // as after a restart
	if err := again.Ship(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := int64(len(sink.lines)), w.head().LastSeq; got != want {
		t.Fatalf("%d lines of %d entries", got, want)
	}
	for i, l := range sink.lines {
		var got struct {
			Node  string
			Seq   int64
			MAC   string
			Entry api.AuditEntry
		}
		if err := json.Unmarshal(l, &got); err != nil || got.Seq != int64(i+1) || got.Node != w.store.Node() || len(got.MAC) != 64 || got.Entry.ID == "" {
			t.Fatalf("line %d: %s, %v", i, l, err)
		}
	}
}

func TestShipperRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t, t.TempDir())
		var out bytes.Buffer
		shipper := &audit.Shipper{Store: w.store, Sink: audit.Output{Writer: &out}, Logger: slog.New(slog.DiscardHandler)}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { shipper.Run(ctx); close(done) }()
		w.act(2, "read", "app/x", nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := strings.Count(out.String(), "app/x"); got != 2 {
			t.Errorf("after 2 s %d entries are out", got)
		}
		w.act(1, "read", "app/x", nil)
		stop()
		<-done
		if got := strings.Count(out.String(), "app/x"); got != 3 {
			t.Errorf("at the end %d entries are out", got)
		}
	})
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	sink := audit.File(path)
	for _, batch := range [][][]byte{{[]byte("1"), []byte("2")}, {[]byte("3")}} {
		if err := sink.Deliver(batch); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "1\n2\n3\n" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := audit.File(filepath.Join(path, "x")).Deliver([][]byte{[]byte("1")}); err == nil {
		t.Error("a file that cannot be took entries")
	}
}

func TestOpenSink(t *testing.T) {
	t.Parallel()
	for setting, name := range map[string]string{"file:/var/log/a": "file:/var/log/a", "stdout": "output"} {
		sink, err := audit.OpenSink(setting)
		if err != nil || sink.Name() != name {
			t.Errorf("%s: %v, %v", setting, sink, err)
		}
	}
	for _, setting := range []string{"", "file:", "kafka"} {
		if _, err := audit.OpenSink(setting); err == nil {
			t.Errorf("%q is a sink", setting)
		}
	}
}

func TestSyslog(t *testing.T) {
	t.Parallel()
	address := filepath.Join(t.TempDir(), "log")
	socket, err := net.ListenPacket("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	sink, err := audit.DialSyslog("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Deliver([][]byte{[]byte(`{"seq":1}`)}); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 1024)
	n, _, err := socket.ReadFrom(message)
	// <86> is facility authpriv, severity info.
	if got := string(message[:n]); err != nil || !strings.HasPrefix(got, "<86>") || !strings.Contains(got, "scaivault") || !strings.HasSuffix(got, "{\"seq\":1}\n") {
		t.Errorf("%q, %v", got, err)
	}
}

func wantCode(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Fatalf("code %q, want %q (%v)", got, want, err)
	}
}

func BenchmarkChain(b *testing.B) {
	chain := audit.Chain(key)
	prev, message := make([]byte, 32), make([]byte, 500)
	b.ReportAllocs()
	for b.Loop() {
		prev = chain(prev, message)
	}
}
