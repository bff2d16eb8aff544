package leasetest

import (
	"context"
	"encoding/json"
	"maps"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// Type is an engine type whose sources are looked up by the host of their configuration. It stands
// for one process: what that left at the sources outlives it.
type Type struct {
	Hosts map[string]*Source
	// Bare hides every optional interface.
	Bare bool

	dead atomic.Bool
}

// Kill makes nothing of this process reach a source any more. What a source has begun goes on.
func (t *Type) Kill() { t.dead.Store(true) }

var _ engine.Type = (*Type)(nil)

type config struct {
	Host             string `json:"host"`
	Root             string `json:"root_credentials_path"`
	CA               string `json:"tls_ca_path"`
	OperationTimeout string `json:"operation_timeout"`
	Reconcile        string `json:"reconcile"`
	RootHome         string `json:"root_home"`
}

// Name is fake.
func (t *Type) Name() string { return "fake" }

// ParseConfig reads {"host", "root_credentials_path", "tls_ca_path", "operation_timeout", "reconcile", "root_home"}; the
// interval of reconciles is an hour.
func (t *Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parse[config](raw)
	if err != nil {
		return engine.Config{}, err
	}
	timeout := 15 * time.Second
	if c.OperationTimeout != "" {
		if timeout, err = time.ParseDuration(c.OperationTimeout); err != nil {
			return engine.Config{}, fault.New(fault.InvalidConfig, "read operation_timeout: it is no duration")
		}
	}
	var others []string
	if c.CA != "" {
		others = []string{c.CA}
	}
	return engine.Config{RootCredentialsPath: c.Root, SecretPaths: others, Endpoint: c.Host, RootHome: c.RootHome, OperationTimeout: timeout,
		ConnectTimeout: 5 * time.Second, MaxOpenConnections: 4, Reconcile: c.Reconcile, ReconcileInterval: time.Hour}, nil
}

// role is the engine's part of a role: what it grants, and the bounds of its credentials in seconds.
type role struct {
	Grants   string `json:"grants"`
	Shortest int    `json:"shortest"`
	Longest  int    `json:"longest"`
	Fixed    bool   `json:"fixed"`
}

// Bounds implements engine.Bounded.
func (r *role) Bounds() engine.Bounds {
	return engine.Bounds{Shortest: time.Duration(r.Shortest) * time.Second, Longest: time.Duration(r.Longest) * time.Second, Fixed: r.Fixed}
}

// ParseRole reads {"grants", "shortest", "longest", "fixed"}.
func (t *Type) ParseRole(raw json.RawMessage) (engine.Role, error) { return parse[role](raw) }

func parse[T any](raw json.RawMessage) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(raw, v); err != nil {
		return nil, fault.New(fault.InvalidConfig, "read the document: it is not what a fake engine knows")
	}
	return v, nil
}

// Open connects to the source of the configured host.
func (t *Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parse[config](o.Config)
	if err != nil {
		return nil, err
	}
	s := t.Hosts[c.Host]
	if s == nil {
		return nil, &engine.Error{Kind: engine.Unreachable, Reason: "there is no such host"}
	}
	if c.CA != "" {
		if _, err := o.Secret(ctx, c.CA); err != nil {
			return nil, &engine.Error{Kind: engine.Misconfigured, Reason: "read the secret of tls_ca_path", Err: err}
		}
	}
	e := &Engine{source: s, options: o, dead: &t.dead, password: o.Root["password"].Reveal()}
	var server string
	err = e.call(ctx, Call{Op: "open", Name: o.EngineName}, func() error {
		server = s.id
		return e.logIn()
	})
	if err != nil {
		return nil, err
	}
	e.server = server
	s.mu.Lock()
	s.open++
	s.mu.Unlock()
	if t.Bare {
		return struct{ engine.Engine }{e}, nil
	}
	return e, nil
}

// Engine is one connection to a Source.
type Engine struct {
	source  *Source
	options engine.Options
	server  string
	closed  atomic.Bool
	dead    *atomic.Bool

	password string // of root; under source.mu
}

var (
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Renewer      = (*Engine)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Settler      = (*Engine)(nil)
	_ engine.BatchRevoker = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)

type recipe struct {
	Name string `json:"name"`
	OID  int    `json:"oid,omitempty"`
}

func encode(r recipe) engine.Recipe { raw, _ := json.Marshal(r); return raw }

func decode(raw engine.Recipe) recipe {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Name == "" {
		panic("leasetest: a recipe that this engine never gave: " + string(raw))
	}
	return r
}

// SourceID is the server that was reached.
func (e *Engine) SourceID() string { return e.server }

// Close ends the connection.
func (e *Engine) Close() {
	if e.closed.CompareAndSwap(false, true) {
		e.source.mu.Lock()
		e.source.open--
		e.source.mu.Unlock()
	}
}

// call does work at the source, with the fault that the source has for it. work runs under the
// source's lock.
func (e *Engine) call(ctx context.Context, c Call, work func() error) error {
	if e.closed.Load() {
		panic("leasetest: an engine was used after it was closed")
	}
	if e.dead.Load() {
		return lost(nil)
	}
	s := e.source
	c.Node = e.options.Node
	f := s.begin(c)
	locked := func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return work()
	}
	if f.Kind != Late && f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
			if f.Kind == None || f.Kind == LoseAfter {
				s.behind(c, f.Delay, func() { _ = work() }) // what was sent is done some time
			}
			return lost(ctx.Err())
		}
	}
	if ctx.Err() != nil {
		return &engine.Error{Kind: engine.Unreachable, Reason: "there was no time left to begin", Err: ctx.Err()}
	}
	switch f.Kind {
	case Refuse:
		return &engine.Error{Kind: engine.Refused, Reason: "the source says no"}
	case Unreachable:
		return &engine.Error{Kind: engine.Unreachable, Reason: "the source cannot be reached"}
	case Busy:
		return &engine.Error{Kind: engine.Busy, Reason: "somebody holds a lock"}
	case LoseBefore:
		return lost(nil)
	case LoseAfter:
		if err := locked(); err != nil {
			return err
		}
		return lost(nil)
	case Reconnect:
		s.mu.Lock()
		err := e.logIn()
		s.mu.Unlock()
		if err != nil {
			return err
		}
	case Late:
		s.behind(c, f.Delay, func() { _ = work() })
		<-ctx.Done()
		return lost(ctx.Err())
	case HalfMade:
		s.mu.Lock()
		if s.id == e.server {
			s.nextOID++
			s.accounts[c.Name] = &Account{Name: c.Name, OID: s.nextOID, Mark: e.options.Installation}
		}
		s.mu.Unlock()
		return lost(nil)
	case Taken:
		s.mu.Lock()
		if s.id == e.server && s.accounts[c.Name] == nil {
			s.nextOID++
			s.accounts[c.Name] = &Account{Name: c.Name, OID: s.nextOID, Usable: true}
			s.taken = append(s.taken, c.Name)
		}
		s.mu.Unlock()
	}
	err := locked()
	if f.Answer > 0 {
		select {
		case <-time.After(f.Answer):
		case <-ctx.Done():
			return lost(ctx.Err())
		}
	}
	return err
}

func lost(err error) error {
	return &engine.Error{Kind: engine.Uncertain, Reason: "the source did not answer", Err: err}
}

// logIn refuses a password of root that is not accepted. The caller holds source.mu.
func (e *Engine) logIn() error {
	if s := e.source; s.roots != nil && !s.roots[e.password] {
		return &engine.Error{Kind: engine.Misconfigured, Reason: "root's password is not accepted"}
	}
	return nil
}

// here refuses work on another server than the one that was opened. The caller holds source.mu.
func (e *Engine) here() error {
	if e.source.id != e.server {
		return &engine.Error{Kind: engine.WrongServer, Reason: "another server answers now"}
	}
	return nil
}

// Plan names an account.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	name := e.options.Namer.New(r.RoleName, 63)
	return &engine.Plan{LeaseID: r.LeaseID, Username: name, Role: r.Role, ExpiresAt: r.ExpiresAt, Recipe: encode(recipe{Name: name}),
		Data: map[string]statement.Secret{"username": statement.Secret(name), "password": "canary-password"}}, nil
}

// Issue makes the account, with one session of its user.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	var made recipe
	s := e.source
	begun := time.Now()
	err := e.call(ctx, Call{Op: "issue", Name: p.Username}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		if begun.After(p.Deadline) {
			return &engine.Error{Kind: engine.Refused, Reason: "it is past the deadline"}
		}
		if s.accounts[p.Username] != nil {
			return &engine.Error{Kind: engine.NameTaken, Reason: "the name exists"}
		}
		s.nextOID++
		made = recipe{Name: p.Username, OID: s.nextOID}
		s.accounts[p.Username] = &Account{Name: p.Username, OID: s.nextOID, Mark: e.options.Installation,
			Usable: true, Sessions: 1, Until: p.ExpiresAt}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return encode(made), nil
}

// Revoke kills the account.
func (e *Engine) Revoke(ctx context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r := decode(raw)
	var o engine.Outcome
	err := e.call(ctx, Call{Op: "revoke", Name: r.Name}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		o = e.kill(r)
		return nil
	})
	if err != nil {
		return engine.Outcome{}, err
	}
	return o, nil
}

// kill drops what is ours under the name. The caller holds source.mu.
func (e *Engine) kill(r recipe) engine.Outcome {
	a := e.source.accounts[r.Name]
	switch {
	case a == nil || a.Mark != e.options.Installation || r.OID != 0 && r.OID != a.OID:
		return engine.Outcome{}
	case a.Stuck && e.source.lag > 0: // it goes, its sessions end later, and what names it stays
		at := time.Now().Add(e.source.lag)
		delete(e.source.accounts, r.Name)
		return engine.Outcome{Residue: "a grant by another names it", EffectiveAt: &at}
	case a.Stuck:
		a.Usable, a.Sessions = false, 0
		return engine.Outcome{Residue: "a grant by another keeps it"}
	case e.source.lag > 0:
		at := time.Now().Add(e.source.lag)
		if !a.Usable { // the second time
			delete(e.source.accounts, r.Name)
		}
		a.Usable = false
		return engine.Outcome{EffectiveAt: &at}
	}
	delete(e.source.accounts, r.Name)
	return engine.Outcome{}
}

// RevokeBatch kills many; each is a call of its own for faults.
func (e *Engine) RevokeBatch(ctx context.Context, rs []engine.Recipe) []engine.Result {
	results := make([]engine.Result, len(rs))
	for k, raw := range rs {
		results[k].Outcome, results[k].Err = e.Revoke(ctx, raw)
	}
	return results
}

// Lookup looks at the account.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r := decode(raw)
	var p engine.Presence
	err := e.call(ctx, Call{Op: "lookup", Name: r.Name}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		a := e.source.accounts[r.Name]
		switch {
		case a == nil || a.Stuck && a.Named && !a.Usable:
		case a.Mark != e.options.Installation || r.OID != 0 && r.OID != a.OID:
			p.State = engine.Foreign
		case !a.Usable:
			p.State = engine.Unusable
		default:
			p = engine.Presence{State: engine.Usable, Recipe: encode(recipe{Name: r.Name, OID: a.OID})}
		}
		return nil
	})
	if err != nil {
		return engine.Presence{}, err
	}
	return p, nil
}

// Renew moves the account's end.
func (e *Engine) Renew(ctx context.Context, raw engine.Recipe, until time.Time) error {
	r := decode(raw)
	return e.call(ctx, Call{Op: "renew", Name: r.Name}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		a := e.source.accounts[r.Name]
		if a == nil || a.Mark != e.options.Installation || !a.Usable {
			return &engine.Error{Kind: engine.Refused, Reason: "its account is gone"}
		}
		if deadline, ok := ctx.Deadline(); ok && time.Now().After(deadline) {
			return &engine.Error{Kind: engine.Refused, Reason: "it is past the deadline"}
		}
		a.Until = until
		return nil
	})
}

// Settle ends what the node left behind for these accounts.
func (e *Engine) Settle(ctx context.Context, node string, rs []engine.Recipe) error {
	return e.call(ctx, Call{Op: "settle", Name: node}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		names := map[string]bool{}
		for _, raw := range rs {
			names[decode(raw).Name] = true
		}
		e.source.settle(node, names)
		return nil
	})
}

// List lists the accounts of this installation.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	var all []engine.Account
	err := e.call(ctx, Call{Op: "list"}, func() error {
		for name, a := range e.source.accounts {
			if a.Mark == e.options.Installation {
				all = append(all, engine.Account{Username: name, Recipe: encode(recipe{Name: name, OID: a.OID})})
			}
		}
		return e.here()
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// PrepareRole has nothing to make.
func (e *Engine) PrepareRole(ctx context.Context, name string, _ engine.Role) ([]string, error) {
	return nil, e.call(ctx, Call{Op: "prepare", Name: name}, e.here)
}

// PlanRoot draws another password. A source that makes roots takes it at once, in the place of one
// that another PlanRoot has left.
func (e *Engine) PlanRoot(ctx context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	if !e.source.makes() {
		return candidate, nil
	}
	return candidate, e.call(ctx, Call{Op: "makeroot", Name: candidate["password"].Reveal()}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		e.source.roots = map[string]bool{e.password: true, candidate["password"].Reveal(): true}
		return nil
	})
}

// SetRoot makes the source accept the candidate only, through the connection that is open. A source
// that makes roots knows it already.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	return e.call(ctx, Call{Op: "setroot", Name: candidate["password"].Reveal()}, func() error {
		if err := e.here(); err != nil {
			return err
		}
		if e.source.makesRoots && !e.source.roots[candidate["password"].Reveal()] {
			return &engine.Error{Kind: engine.Refused, Reason: "there is no such root"}
		}
		e.password = candidate["password"].Reveal()
		e.source.roots = map[string]bool{e.password: true}
		return nil
	})
}

// Now is the source's clock.
func (e *Engine) Now(ctx context.Context) (now time.Time, err error) {
	err = e.call(ctx, Call{Op: "now"}, func() error {
		now = time.Now().Add(e.source.ahead)
		return e.here()
	})
	return now, err
}

// Check looks at the source.
func (e *Engine) Check(ctx context.Context) engine.Health {
	if err := e.call(ctx, Call{Op: "check"}, e.here); err != nil {
		status := "unreachable"
		if engine.KindOf(err) == engine.Misconfigured {
			status = "misconfigured"
		}
		return engine.Health{Status: status, Error: err.Error(), TLS: "none"}
	}
	return engine.Health{Status: "healthy", TLS: "none"}
}
