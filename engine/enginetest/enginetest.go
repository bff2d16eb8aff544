// Package enginetest is what every engine must pass, against a real source.
//
// An engine's test gives a [Target] and calls [Run]; a law that its source
// cannot keep is an exception with a reason, declared there and printed here.
package enginetest

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/proxy"
)

// Target is a source with a root, made for one test and used by nobody else.
type Target struct {
	// Open opens an engine over the source.
	Open func(t *testing.T, o Opening) engine.Engine
	// Elsewhere opens an engine over another source; nil without one.
	Elsewhere func(t *testing.T) engine.Engine
	// Address is the source's host:port, before which the suite puts a proxy.
	Address string
	// Role is one that works at the source.
	Role engine.Role
	// Params are the engine's own fields of a request; nil where it needs none.
	Params json.RawMessage
	// Public are the fields of a credential that are no secrets, besides its username.
	Public []string

	// Login tries to use a credential as its holder would.
	Login func(ctx context.Context, data map[string]statement.Secret) (Session, error)
	// Sessions open sessions that revocation must end, each in another state.
	Sessions map[string]func(t *testing.T, data map[string]statement.Secret) Session
	// Exists tells whether the source has an account of the name.
	Exists func(t *testing.T, name string) bool
	// Plant makes an account of a stranger.
	Plant func(t *testing.T, name string)
	// End is the end that the source enforces; nil where it enforces none.
	End func(t *testing.T, name string) time.Time
	// Log is all that the source has written to its log, with everything
	// logged that can be; Say makes the source log a text.
	Log func(t *testing.T) string
	Say func(t *testing.T, text string)

	// Exceptions are subtests that do not apply, with the reason.
	Exceptions map[string]string
}

// Opening is how an engine is opened. Zero values are the target's own.
type Opening struct {
	Address          string // of the proxy
	Epoch            int64
	Root             map[string]statement.Secret
	OperationTimeout time.Duration
}

// Session is an open session of a credential.
type Session interface {
	// Works tells whether the session can still do anything.
	Works(ctx context.Context) bool
	Close()
}

// Node is the node that the suite's engines belong to.
const Node = "enginetest"

// Run runs the suite. Each subtest gets a target of its own.
func Run(t *testing.T, newTarget func(t *testing.T) *Target) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := newTarget(t)
			if reason, ok := target.Exceptions[c.name]; ok {
				t.Skipf("does not apply: %s", reason) //nolint:forbidigo // a declared exception
			}
			c.run(&bench{T: t, target: target})
		})
	}
}

// RunCase runs one subtest by its name, for a target that is dear to make.
func RunCase(t *testing.T, name string, target *Target) {
	t.Helper()
	for _, c := range cases() {
		if c.name == name {
			c.run(&bench{T: t, target: target})
			return
		}
	}
	t.Fatalf("there is no case %s", name)
}

type testCase struct {
	name string
	run  func(b *bench)
}

func cases() []testCase {
	return []testCase{
		{"Issue", testIssue},
		{"NoSecretInRecipe", testNoSecretInRecipe},
		{"NameTaken", testNameTaken},
		{"DeadlinePassed", testDeadlinePassed},
		{"LateExecution", testLateExecution},
		{"LostAnswer", testLostAnswer},
		{"RevokeTwice", testRevokeTwice},
		{"RevokeUnknown", testRevokeUnknown},
		{"RevokeEndsSessions", testRevokeEndsSessions},
		{"RevokeBeatsReconnecting", testRevokeBeatsReconnecting},
		{"RevokeBatch", testRevokeBatch},
		{"Lookup", testLookup},
		{"WrongServer", testWrongServer},
		{"Renew", testRenew},
		{"PrepareTwice", testPrepareTwice},
		{"List", testList},
		{"RotateRoot", testRotateRoot},
		{"Clock", testClock},
		{"Concurrency", testConcurrency},
		{"SecretsStayOutOfTheLog", testSecretsStayOutOfTheLog},
		{"Unreachable", testUnreachable},
		{"BlackHole", testBlackHole},
		{"Frozen", testFrozen},
		{"CloseTwice", testCloseTwice},
	}
}

// bench is one subtest at work.
type bench struct {
	*testing.T
	target *Target
}

func (b *bench) open() engine.Engine {
	b.Helper()
	e := b.target.Open(b.T, Opening{})
	b.Cleanup(e.Close)
	return e
}

// openBehindProxy opens an engine with little patience.
func (b *bench) openBehindProxy() (engine.Engine, *proxy.Proxy) {
	b.Helper()
	p := proxy.New(b, b.target.Address)
	e := b.target.Open(b.T, Opening{Address: p.Addr(), OperationTimeout: 2 * time.Second})
	b.Cleanup(e.Close)
	return e, p
}

func (b *bench) plan(e engine.Engine) *engine.Plan {
	b.Helper()
	p, err := e.Plan(b.Context(), engine.PlanRequest{
		LeaseID: ident.New(ident.Lease), RoleName: "suite", Role: b.target.Role, ExpiresAt: time.Now().Add(time.Hour).Truncate(time.Millisecond),
		Params: b.target.Params,
	})
	if err != nil {
		b.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(20 * time.Second)
	return p
}

// fixed tells whether the end of the target's credentials cannot be moved.
func (b *bench) fixed() bool {
	bounded, ok := b.target.Role.(engine.Bounded)
	return ok && bounded.Bounds().Fixed
}

// issued is a credential that exists.
type issued struct {
	*engine.Plan
	recipe engine.Recipe
}

func (b *bench) issue(e engine.Engine) issued {
	b.Helper()
	p := b.plan(e)
	r, err := e.Issue(b.Context(), p)
	if err != nil {
		b.Fatalf("issue: %v", err)
	}
	return issued{p, r}
}

// issueSoon is issue of an engine with little patience.
func (b *bench) issueSoon(e engine.Engine) (c issued) {
	b.Helper()
	b.soon("issue", func() error {
		p := b.plan(e)
		r, err := e.Issue(b.Context(), p)
		c = issued{p, r}
		return err
	})
	return c
}

// soon tries what a busy machine may keep from being done within an engine's little patience.
func (b *bench) soon(what string, try func() error) {
	b.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err := try()
		switch {
		case err == nil:
			return
		case time.Now().After(deadline):
			b.Fatalf("%s: %v", what, err)
		}
	}
}

func (b *bench) revoke(e engine.Engine, r engine.Recipe) {
	b.Helper()
	outcome, err := e.Revoke(b.Context(), r)
	if err != nil {
		b.Fatalf("revoke: %v", err)
	}
	if outcome.Residue != "" {
		b.Fatalf("revoke left a residue: %s", outcome.Residue)
	}
}

// secrets are what nobody but the holder of a credential may see.
func (b *bench) secrets(p *engine.Plan) map[string]statement.Secret {
	secrets := maps.Clone(p.Data)
	maps.DeleteFunc(secrets, func(field string, value statement.Secret) bool {
		return value.Reveal() == p.Username || slices.Contains(b.target.Public, field)
	})
	return secrets
}

func (b *bench) login(data map[string]statement.Secret) (Session, error) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Second)
	defer cancel()
	s, err := b.target.Login(ctx, data)
	if err == nil {
		b.Cleanup(s.Close)
	}
	return s, err
}

// works fails the test unless the credential logs in and works.
func (b *bench) works(data map[string]statement.Secret) {
	b.Helper()
	s, err := b.login(data)
	if err != nil {
		b.Fatalf("log in with the credential: %v", err)
	}
	if !s.Works(b.Context()) {
		b.Fatal("the credential logs in and cannot do what its role says")
	}
}

// dead fails the test unless the account is gone and nobody logs in with it.
func (b *bench) dead(p *engine.Plan) {
	b.Helper()
	if _, err := b.login(p.Data); err == nil {
		b.Error("a dead credential logs in")
	}
	if b.target.Exists(b.T, p.Username) {
		b.Error("the account of a dead credential exists")
	}
}

func (b *bench) lookup(e engine.Engine, r engine.Recipe) engine.State {
	b.Helper()
	presence, err := e.Lookup(b.Context(), r)
	if err != nil {
		b.Fatalf("look up: %v", err)
	}
	return presence.State
}

// settle excludes late execution, where the engine must be told to.
func (b *bench) settle(e engine.Engine, r engine.Recipe) {
	b.Helper()
	if s, ok := e.(engine.Settler); ok {
		if err := s.Settle(b.Context(), Node, []engine.Recipe{r}); err != nil {
			b.Fatalf("settle: %v", err)
		}
	}
}
