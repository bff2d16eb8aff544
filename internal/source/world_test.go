package source_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

const (
	tenant   = store.DefaultTenant
	rootPath = "infra/root"
	caPath   = "infra/ca"
	first    = "first-root"
)

// world is one installation with one engine, "one", on a source in memory whose root has the
// password first, and the process that runs on it.
type world struct {
	*testing.T
	dir  string
	host *leasetest.Source

	*process
}

// process is what a crash ends.
type process struct {
	base    *sqlite.Store
	store   *mortal
	kind    *leasetest.Type
	secrets *secret.Service
	sources *source.Service
	admin   *access.Caller
	opening func() // whenever the source service opens an engine
	asked   func() // and asks it which server it reached
	list    []byte // of what is revoked, in the place of the real one
}

// inWorld runs a test in a bubble of its own time.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	dir := t.TempDir()
	key, err := seal.CreateFile(filepath.Join(dir, "seal.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, dir: dir, host: leasetest.NewSource("server-one")}
		w.host.AcceptRoot(first)
		w.Cleanup(func() {
			if n := w.host.Open(); n != 0 {
				w.Errorf("%d connections were left open", n)
			}
		})
		w.start(key)
		w.bind("system:admin", policy.Rule{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}})
		w.grant("one", policy.Rotate)
		w.write(first)
		_, err := w.secrets.Write(context.Background(), w.admin, caPath, &api.SecretWrite{Data: map[string]json.RawMessage{"certificate": []byte(`"PEM"`)}})
		w.must(err)
		w.engine("one")
		defer w.end()
		test(w)
	})
}

func (w *world) start(key seal.Seal) {
	w.Helper()
	base, err := sqlite.Open(context.Background(), sqlite.Config{Dir: w.dir, Chain: audit.Chain([]byte("test"))})
	w.must(err)
	w.process = w.processOn(base, key)
}

// another is the same installation with one more process on its store, which hears of what the first
// one does by reading, as other nodes do.
func (w *world) another() *world {
	w.Helper()
	key, err := seal.OpenFile(filepath.Join(w.dir, "seal.key"))
	w.must(err)
	other := &world{T: w.T, dir: w.dir, host: w.host, process: w.processOn(w.base, key)}
	w.Cleanup(other.sources.Close)
	return other
}

func (w *world) processOn(base *sqlite.Store, key seal.Seal) *process {
	w.Helper()
	p := &process{base: base, store: &mortal{Store: base}, admin: access.System(tenant, "system:admin"),
		kind: &leasetest.Type{Hosts: map[string]*leasetest.Source{"one": w.host, "two": leasetest.NewSource("server-two")}}}
	keys, err := seal.Open(context.Background(), p.store, key)
	w.must(err)
	door := access.New(access.Config{Store: p.store, Limits: access.Limits{Off: true}})
	p.secrets = secret.New(p.store, door, keys)
	p.sources = source.New(source.Config{Store: p.store, Door: door, Secrets: p.secrets, Keys: keys,
		EndBindings: func(store.Tx, string, string) error { return nil }, Types: []engine.Type{watched{p.kind, p}, listing{ssh.Type{}, p}},
		Namer: statement.NewNamer(base.Installation(), []byte("key"), nil), Logger: slog.New(slog.DiscardHandler)})
	p.secrets.Join(secret.Hooks{InUse: p.sources.Uses, Pinned: p.sources.Pinned, AtSource: p.sources.RotateSecret, Gone: p.sources.ForgetRoot,
		Changed: func(string, string, int) { p.sources.SecretChanged() }})
	return p
}

// die ends the process as kill -9 does: nothing of it reaches the store or the source any more.
func (p *process) die() {
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.dead = true
	p.kind.Kill()
}

func (w *world) restart() {
	w.Helper()
	w.end()
	key, err := seal.OpenFile(filepath.Join(w.dir, "seal.key"))
	w.must(err)
	w.start(key)
}

func (w *world) end() {
	w.Helper()
	w.sources.Close()
	w.must(w.base.Close())
}

// bind gives an identity a policy of these rules, in the place of the one it had.
// grant lets an engine read its secrets, and do more with its root.
func (w *world) grant(engine string, more ...policy.Permission) {
	w.Helper()
	w.bind("dynamic:"+engine,
		policy.Rule{PathPattern: rootPath, Permissions: append([]policy.Permission{policy.Read}, more...)},
		policy.Rule{PathPattern: caPath, Permissions: []policy.Permission{policy.Read}})
}

func (w *world) bind(identity string, rules ...policy.Rule) {
	w.Helper()
	id := "pol-" + identity
	w.must(w.base.Write(context.Background(), func(tx store.Tx) error {
		for kind, doc := range map[store.Kind]any{
			store.KindPolicy:  map[string]any{"scope": "tenant", "rules": rules, "is_active": true},
			store.KindBinding: map[string]any{"policy": id, "identity": identity},
		} {
			raw, err := json.Marshal(doc)
			if err != nil {
				return err
			}
			o := &store.Object{Tenant: tenant, Kind: kind, ID: id, Key: identity + " " + id, Doc: raw}
			if err := tx.PutObject(o, store.AnyVersion); err != nil {
				return err
			}
		}
		return nil
	}))
}

// write writes a version of the root secret by hand.
func (w *world) write(password string) {
	w.Helper()
	w.writeAs("root", password, nil)
}

func (w *world) writeAs(username, password string, o *api.SecretOptions) {
	w.Helper()
	data := map[string]json.RawMessage{}
	for k, v := range map[string]string{"username": username, "password": password} {
		data[k], _ = json.Marshal(v)
	}
	_, err := w.secrets.Write(context.Background(), w.admin, rootPath, &api.SecretWrite{Data: data, Options: o})
	w.must(err)
}

func (w *world) engine(name string) {
	w.Helper()
	config, _ := json.Marshal(map[string]string{"host": name, "root_credentials_path": rootPath, "tls_ca_path": caPath})
	_, err := w.sources.CreateEngine(context.Background(), w.admin, &api.EngineRequest{Name: name, Type: "fake", Config: config})
	w.must(err)
}

func (w *world) rotate() error {
	_, err := w.sources.RotateRoot(context.Background(), w.admin, "one")
	return err
}

func (w *world) mustRotate() {
	w.Helper()
	w.must(w.rotate())
}

// use makes an account, as an issuance does: with the connection that is open, and again with another
// where the source refuses the root.
func (w *world) use() error {
	ctx := context.Background()
	e, err := w.sources.Engine(w.store.Config(), tenant, "one")
	w.must(err)
	h, err := w.sources.Acquire(ctx, e)
	if err != nil {
		return err
	}
	defer h.Release()
	if err := e.Reached(h.SourceID()); err != nil {
		return err
	}
	return w.sources.Follow(ctx, e, h, func() error { return w.issue(h) })
}

func (w *world) issue(h *source.Handle) error {
	w.Helper()
	ctx := context.Background()
	plan, err := h.Plan(ctx, engine.PlanRequest{LeaseID: "lease", RoleName: "app", ExpiresAt: time.Now().Add(time.Hour)})
	w.must(err)
	plan.Deadline = time.Now().Add(time.Minute)
	_, err = h.Issue(ctx, plan)
	return err
}

func (w *world) mustUse() {
	w.Helper()
	w.must(w.use())
}

// root is the root secret's current version and its password.
func (w *world) root() (int, string) {
	w.Helper()
	s, err := w.secrets.Read(context.Background(), w.admin, rootPath, 0)
	w.must(err)
	var password string
	w.must(json.Unmarshal(s.Data["password"], &password))
	return s.Version, password
}

// wantNoCandidate wants no root to be kept but for the secret's.
func (w *world) wantNoCandidate() {
	w.Helper()
	w.must(w.base.Read(context.Background(), func(r store.Reader) error {
		kept, err := r.Meta("root_candidate/" + tenant + "/" + rootPath)
		if len(kept) > 0 {
			w.Error("a candidate is kept that will not be tried again")
		}
		return err
	}))
}

// tried are the passwords that the source was asked to set, in order.
func (w *world) tried() (passwords []string) {
	for _, c := range w.host.Touches() {
		if c.Op == "setroot" {
			passwords = append(passwords, c.Name)
		}
	}
	return passwords
}

// wantRoot wants the secret's version to be this one, and the source to accept it.
func (w *world) wantRoot(version int) {
	w.Helper()
	got, password := w.root()
	if got != version {
		w.Errorf("the root secret is at version %d, want %d", got, version)
	}
	if !w.host.AcceptsRoot(password) {
		w.Errorf("the source does not accept version %d of the root secret", got)
	}
}

func (w *world) health() *api.EngineHealth {
	w.Helper()
	h, err := w.sources.Health(context.Background(), w.admin, "one")
	w.must(err)
	return h
}

// rotations counts the entries of rotations that succeeded.
func (w *world) rotations() int {
	w.Helper()
	return w.entries(func(e *api.AuditEntry) bool { return e.Action == "dynamic_engine_rotate_root" && e.Success })
}

func (w *world) entries(want func(e *api.AuditEntry) bool) (n int) {
	w.Helper()
	w.must(w.base.Read(context.Background(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.base.Node(), 1, 0)
		for _, row := range rows {
			if want(&row.Entry) {
				n++
			}
		}
		return err
	}))
	return n
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) wantCode(err error, want fault.Code) {
	w.Helper()
	if got := fault.CodeOf(err); got != want {
		w.Fatalf("code %q, want %q (%v)", got, want, err)
	}
}

// watched are engines that tell what the source service does with them.
type watched struct {
	*leasetest.Type
	process *process
}

func (t watched) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	if t.process.opening != nil {
		t.process.opening()
	}
	e, err := t.Type.Open(ctx, o)
	if fake, ok := e.(*leasetest.Engine); ok {
		return watchedEngine{fake, t.process}, err
	}
	return e, err
}

type watchedEngine struct {
	*leasetest.Engine
	process *process
}

func (e watchedEngine) SourceID() string {
	if e.process.asked != nil {
		e.process.asked()
	}
	return e.Engine.SourceID()
}

// listing has the list that a test wants.
type listing struct {
	ssh.Type
	process *process
}

func (t listing) RevocationList(at time.Time, revoked []engine.Recipe) ([]byte, error) {
	if t.process.list != nil {
		return t.process.list, nil
	}
	return t.Type.RevocationList(at, revoked)
}

// mortal is a store that does nothing more after its process died.
type mortal struct {
	store.Store
	mu     sync.Mutex
	dead   bool
	before func()       // each write
	after  func()       // each write, before its caller hears of it
	read   func() error // before each read, which is lost with an error
}

func lostStore() error { return fault.New(fault.ServiceUnavailable, "the store is lost") }

func (m *mortal) lost() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return lostStore()
	}
	return nil
}

func (m *mortal) Write(ctx context.Context, fn func(store.Tx) error) error {
	if m.before != nil {
		m.before()
	}
	if err := m.lost(); err != nil {
		return err
	}
	err := m.Store.Write(ctx, fn)
	if m.after != nil {
		m.after()
	}
	if lost := m.lost(); lost != nil {
		return lost
	}
	return err
}

func (m *mortal) WriteRelaxed(ctx context.Context, fn func(store.Tx) error) error {
	if err := m.lost(); err != nil {
		return err
	}
	return m.Store.WriteRelaxed(ctx, fn)
}

func (m *mortal) Read(ctx context.Context, fn func(store.Reader) error) error {
	if m.read != nil {
		if err := m.read(); err != nil {
			return err
		}
	}
	if err := m.lost(); err != nil {
		return err
	}
	return m.Store.Read(ctx, fn)
}
