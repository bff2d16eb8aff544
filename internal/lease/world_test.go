package lease_test

import (
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/clock"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

const (
	tenant   = store.DefaultTenant
	rootPath = "infra/root"
	timeout  = 15 * time.Second // operation_timeout of the engines
)

// world is one installation: a real store, the door, and the process that runs on them. Two
// engines, "one" and "two", reach a source each.
type world struct {
	t        testing.TB
	dir      string
	one, two *leasetest.Source

	ahead time.Duration // of the store's clock, from the next start on
	*process
}

// process is what a crash ends.
type process struct {
	base    *sqlite.Store
	store   *mortal
	clock   *clock.Guard
	kind    *leasetest.Type
	door    *access.Door
	sources *source.Service
	leases  *lease.Manager

	stop    context.CancelFunc // of the clock
	running sync.WaitGroup
}

// secrets has the one root secret; its version is the stored one.
type secrets struct{ store store.Store }

func (s secrets) ReadAs(ctx context.Context, c *access.Caller, path string) (map[string]statement.Secret, int, error) {
	version := 0
	err := s.store.Read(ctx, func(r store.Reader) error {
		row, err := r.Secret(c.Tenant, path)
		if err == nil {
			version = row.Version
		}
		return err
	})
	return map[string]statement.Secret{"password": statement.Secret(rootPassword(version)), "private_key": caKey}, version, err
}

// caKey is of an SSH CA.
const caKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
`

func rootPassword(version int) string { return "root-" + string(rune('0'+version)) }

// template is a store with the identities and the engines in it, made once and copied.
var template = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lease-template-")
	if err != nil {
		return "", err
	}
	err = fill(dir)
	return dir, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := template(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

func fill(dir string) error {
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: dir, Chain: chain})
	if err != nil {
		return err
	}
	put := func(tx store.Tx, kind store.Kind, id, key string, doc any) {
		raw, _ := json.Marshal(doc)
		if err := tx.PutObject(&store.Object{Tenant: tenant, Kind: kind, ID: id, Key: key, Doc: raw}, store.AnyVersion); err != nil {
			panic(err)
		}
	}
	type rule = policy.Rule
	err = s.Write(context.Background(), func(tx store.Tx) error {
		for name, rules := range map[string][]rule{
			"admin": {{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}}},
			"app":   {{PathPattern: "dynamic/*/*", Permissions: []policy.Permission{"dynamic:generate"}}},
			"other": {{PathPattern: "dynamic/*/*", Permissions: []policy.Permission{"dynamic:generate"}}},
			"read":  {{PathPattern: "dynamic/one/*", Permissions: []policy.Permission{"dynamic:read"}}},
			"half":  {{PathPattern: "dynamic/one", Permissions: []policy.Permission{"dynamic:manage"}}},
		} {
			put(tx, store.KindUser, "usr-"+name, name, access.User{DisplayName: name})
			put(tx, store.KindPolicy, "pol-"+name, name, map[string]any{"scope": "tenant", "rules": rules, "is_active": true})
			put(tx, store.KindBinding, "bind-"+name, "user:"+name+" pol-"+name, map[string]any{"policy": "pol-" + name, "identity": "user:" + name})
		}
		return tx.PutSecret(&store.Secret{Tenant: tenant, Path: rootPath, Type: "json", Version: 1, Versions: 1, Doc: []byte("{}")})
	})
	if err != nil {
		return err
	}
	w := &world{one: leasetest.NewSource("server-one"), two: leasetest.NewSource("server-two")}
	w.process = w.newProcess(s)
	if err := w.clock.Open(context.Background()); err != nil {
		return err
	}
	admin := access.System(tenant, "system:setup")
	err = s.Write(context.Background(), func(tx store.Tx) error {
		put(tx, store.KindBinding, "bind-setup", "system:setup pol-admin", map[string]any{"policy": "pol-admin", "identity": "system:setup"})
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"one", "two"} {
		raw, _ := json.Marshal(map[string]any{"host": name, "root_credentials_path": rootPath})
		if _, err := w.sources.CreateEngine(context.Background(), admin, &api.EngineRequest{Name: name, Type: "fake", Config: raw}); err != nil {
			return err
		}
		for _, doc := range []string{
			`{"name": "app", "default_ttl": "1h", "max_ttl": "8h", "grants": "all"}`,
			`{"name": "short", "default_ttl": "30s", "max_ttl": "40s", "grants": "all"}`,
			`{"name": "tied", "default_ttl": "1h", "tie_to_token": true}`,
			`{"name": "few", "max_leases": 2}`,
			`{"name": "fixed", "renewable": false}`,
			`{"name": "bounded", "default_ttl": "20m", "shortest": 900, "longest": 3600, "fixed": true}`,
			`{"name": "sim", "default_ttl": "2m", "max_ttl": "1h"}`,
		} {
			if _, err := w.sources.CreateRole(context.Background(), admin, name, []byte(doc)); err != nil {
				return err
			}
		}
	}
	w.sources.Close()
	return s.Close()
}

var chain = audit.Chain([]byte("test"))

// inWorld runs a test in a bubble of its own time, in a world of its own.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	t.Parallel()
	dir := t.TempDir()
	copyDir(t, from, dir)
	synctest.Test(t, func(t *testing.T) {
		w := open(t, dir)
		defer w.end()
		test(w)
	})
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, d.Name()), raw, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// open starts a process on a folder.
func open(t testing.TB, dir string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, one: leasetest.NewSource("server-one"), two: leasetest.NewSource("server-two")}
	w.start()
	return w
}

func (w *world) start() {
	w.t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Dir: w.dir, Chain: chain})
	if err != nil {
		w.t.Fatal(err)
	}
	w.process = w.newProcess(s)
	w.must(w.clock.Open(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.running.Go(func() { w.clock.Run(ctx) })
	w.leases.Start()
}

func (w *world) newProcess(s *sqlite.Store) *process {
	p := &process{base: s, store: &mortal{Store: s, ahead: w.ahead}, kind: &leasetest.Type{Hosts: map[string]*leasetest.Source{"one": w.one, "two": w.two}}}
	log := slog.New(slog.DiscardHandler)
	p.clock = clock.New(clock.Config{Store: p.store, Logger: log})
	p.door = access.New(access.Config{Store: p.clock, Limits: access.Limits{Off: true}})
	p.sources = source.New(source.Config{Store: p.clock, Door: p.door, Secrets: secrets{p.clock}, Types: []engine.Type{p.kind, ssh.Type{}},
		EndBindings: func(store.Tx, string, string) error { return nil },
		Namer:       statement.NewNamer(s.Installation(), []byte("key"), nil), Logger: log})
	p.leases = lease.New(lease.Config{Store: p.clock, Clock: p.clock, Door: p.door, Sources: p.sources, Logger: log})
	p.clock.Join(p.door, p.leases.Kick)
	p.sources.SetRevoker(p.leases)
	return p
}

// die ends the process as kill -9 does: nothing of it reaches the store or a source any more.
func (p *process) die() {
	p.store.mu.Lock()
	p.store.dead = true
	p.store.mu.Unlock()
	p.kind.Kill()
}

// restart ends the process, if it has not died, and starts another on the same folder.
func (w *world) restart() {
	w.t.Helper()
	w.end()
	w.start()
}

func (w *world) end() {
	w.t.Helper()
	w.leases.Stop()
	w.stop()
	w.running.Wait()
	w.sources.Close()
	if err := w.base.Close(); err != nil {
		w.t.Error(err)
	}
}

var allScopes = []string{access.ScopeAdmin}

// caller is a user, authenticated by a fresh token.
func (w *world) caller(name string, scopes ...string) *access.Caller {
	w.t.Helper()
	return w.callerFor(name, 20*365*24*time.Hour, scopes...)
}

func (w *world) callerFor(name string, life time.Duration, scopes ...string) *access.Caller {
	w.t.Helper()
	if len(scopes) == 0 {
		scopes = allScopes
	}
	id, secret := access.NewTokenText()
	raw, _ := json.Marshal(access.Token{Identity: "user:" + name, Subject: "usr-" + name,
		Hash: access.Digest(secret.Reveal()), Scopes: scopes, ExpiresAt: time.Now().Add(life)})
	o := &store.Object{Tenant: tenant, Kind: store.KindToken, ID: id, Key: access.TokenKey("user:"+name, id), Doc: raw}
	w.must(w.base.Write(context.Background(), func(tx store.Tx) error { return tx.PutObject(o, store.AnyVersion) }))
	c, err := w.door.Authenticate(context.Background(), secret.Reveal(), "", access.Origin{
		RequestID: ident.New(ident.Request), SourceIP: netip.MustParseAddr("192.0.2.1"), Start: time.Now()})
	w.must(err)
	return c
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) wantCode(err error, want fault.Code) {
	w.t.Helper()
	if got := fault.CodeOf(err); got != want {
		w.t.Fatalf("code %q, want %q (%v)", got, want, err)
	}
}

// issue gets a credential that must be given.
func (w *world) issue(c *access.Caller, engineName, role string, ttl ...time.Duration) *api.Credential {
	w.t.Helper()
	made, err := w.tryIssue(c, engineName, role, ttl...)
	w.must(err)
	return made
}

func (w *world) tryIssue(c *access.Caller, engineName, role string, ttl ...time.Duration) (*api.Credential, error) {
	req := api.CredsRequest{}
	if len(ttl) > 0 {
		d := api.Duration(ttl[0])
		req.TTL = &d
	}
	return w.leases.Issue(context.Background(), c, engineName, role, req, nil)
}

// row is the lease as stored.
func (w *world) row(id string) *store.Lease {
	w.t.Helper()
	var l *store.Lease
	w.must(w.base.Read(context.Background(), func(r store.Reader) (err error) {
		l, err = r.Lease(tenant, id)
		return err
	}))
	return l
}

// rows are all leases, the oldest first.
func (w *world) rows() []*store.Lease {
	w.t.Helper()
	var all []*store.Lease
	w.must(w.base.Read(context.Background(), func(r store.Reader) (err error) {
		all, err = r.Leases(store.LeaseFilter{Tenant: tenant}, "", 0)
		return err
	}))
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// only is the one lease there is.
func (w *world) only() *store.Lease {
	w.t.Helper()
	all := w.rows()
	if len(all) != 1 {
		w.t.Fatalf("there are %d leases, want 1", len(all))
	}
	return all[0]
}

func (w *world) wantStatus(id string, want api.LeaseStatus) *store.Lease {
	w.t.Helper()
	l := w.row(id)
	if l.Status != want {
		w.t.Fatalf("lease is %s, want %s (%+v)", l.Status, want, l.Revocation)
	}
	return l
}

// wantDead wants the lease closed for the reason, with nothing at the source.
func (w *world) wantDead(id, reason string) *store.Lease {
	w.t.Helper()
	l := w.wantStatus(id, api.LeaseRevoked)
	if l.Revocation.Reason != reason {
		w.t.Fatalf("reason is %s, want %s", l.Revocation.Reason, reason)
	}
	if w.at(l.Engine).Account(l.Username) != nil {
		w.t.Fatalf("the account %s of a revoked lease exists", l.Username)
	}
	return l
}

func (w *world) at(engineName string) *leasetest.Source {
	if engineName == "two" {
		return w.two
	}
	return w.one
}

// wantAccounts wants this many accounts at engine one's source.
func (w *world) wantAccounts(n int) {
	w.t.Helper()
	if got := w.one.Accounts(); len(got) != n {
		w.t.Fatalf("%d accounts at the source, want %d: %+v", len(got), n, got)
	}
}

// entries are the audit entries, the oldest first, that begin with what the template made.
func (w *world) entries() []api.AuditEntry {
	w.t.Helper()
	var all []api.AuditEntry
	w.must(w.base.Read(context.Background(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.base.Node(), 1, 0)
		for _, row := range rows {
			all = append(all, row.Entry)
		}
		return err
	}))
	return all
}

// wantEntry wants an audit entry of the action, success and outcome for the lease.
func (w *world) wantEntry(action string, success bool, leaseID, outcome string) {
	w.t.Helper()
	var seen []string
	for _, e := range w.entries() {
		if e.ExtraData["lease_id"] != leaseID {
			continue
		}
		if e.Action == action && e.Success == success && e.ExtraData["outcome"] == outcome {
			return
		}
		raw, _ := json.Marshal(e)
		seen = append(seen, string(raw))
	}
	w.t.Fatalf("no entry %s success=%t outcome=%s; there is:\n%s", action, success, outcome, strings.Join(seen, "\n"))
}

// once makes a fault happen to the first call of an operation.
func once(op string, f leasetest.Fault) func(leasetest.Call) leasetest.Fault {
	var mu sync.Mutex
	done := false
	return func(c leasetest.Call) leasetest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if c.Op != op || done {
			return leasetest.Fault{}
		}
		done = true
		return f
	}
}

// always makes a fault happen to every call of the operations, of all when none is named.
func always(f leasetest.Fault, ops ...string) func(leasetest.Call) leasetest.Fault {
	return func(c leasetest.Call) leasetest.Fault {
		for _, op := range ops {
			if c.Op == op {
				return f
			}
		}
		if len(ops) == 0 {
			return f
		}
		return leasetest.Fault{}
	}
}

func (s secrets) AddVersion(store.Tx, string, string, map[string]statement.Secret, string) (int, error) {
	return 0, lostStore()
}

func (s secrets) Create(store.Tx, string, string, map[string]statement.Secret, string) (int, error) {
	return 0, lostStore()
}

func (s secrets) VersionAs(context.Context, *access.Caller, string, int) (map[string]statement.Secret, int, error) {
	return nil, 0, lostStore()
}

func (s secrets) Announce(string, string, int) {}

// wantEntryFailed wants a failed entry of the action for the lease.
func (w *world) wantEntryFailed(action, leaseID string) {
	w.t.Helper()
	for _, e := range w.entries() {
		if e.Action == action && !e.Success && e.ExtraData["lease_id"] == leaseID {
			return
		}
	}
	w.t.Fatalf("no failed entry %s", action)
}
