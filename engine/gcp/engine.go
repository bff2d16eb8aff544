// Package gcp makes credentials of Google Cloud: keys and access tokens of service accounts.
//
// A key is made by uploading the public half of a pair of ours, in a certificate that ends with the
// lease: the private half never crosses the network but to the caller, Google itself refuses the key
// after the end, and what was uploaded is known again by its public key after a crash. An account of
// the credential's own has a planned name, a mark in its description, and bindings with a date
// condition. What Google cannot kill at once (tokens that were made before) has an
// [engine.Outcome.EffectiveAt].
//
// Google is spoken to by REST through Options.Dial: no environment, no default credentials, no
// metadata server. The operator's guide is docs/engines/gcp.md.
package gcp

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

const (
	typeName = "gcp"
	keyBits  = 2048 // the most that Google takes
)

// Type is the kind of source "gcp".
type Type struct{}

// Name is "gcp".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	known := c.Config(c.endpoint(), c.CAPath, c.CertPath)
	known.RootHome = typeName + ":" + c.Endpoints.IAM // a key is an account's, whatever project the engine uses it for
	return known, nil
}

// ParseRole implements engine.Type.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is one open project.
type Engine struct {
	config  *config
	options engine.Options
	log     *slog.Logger
	source  string
	issuing *http.Client // bounded, so that revocation finds a connection however many want credentials
	other   *http.Client
	tokens  *tokens

	mu       sync.Mutex
	closed   bool
	replaced *root                    // by a rotation that has not ended it yet; nil for none
	policies map[string]chan struct{} // by resource: held by who changes its policy
	needs    map[string]need          // by resource: what roles need there
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	root, err := readRoot(c, o.Root)
	if err != nil {
		return nil, err
	}
	trust, err := c.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		config: c, options: o, log: o.Logger, source: c.SourceID,
		issuing:  engine.HTTPClient(o, trust, *c.MaxOpenConnections-1),
		other:    engine.HTTPClient(o, trust, *c.MaxOpenConnections),
		policies: map[string]chan struct{}{}, needs: map[string]need{},
	}
	if e.source == "" { // project ids are unique, and never given again
		e.source = "gcp/" + c.Project
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.tokens = newTokens(root, e.other)
	ctx, cancel := e.operation(ctx)
	defer cancel()
	if _, err := e.tokens.get(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.issuing.CloseIdleConnections()
	e.other.CloseIdleConnections()
}

func (e *Engine) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

func newKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		panic("make a key: " + err.Error()) // there is no randomness
	}
	return key
}

var (
	_ engine.Type         = Type{}
	_ engine.Bounded      = (*role)(nil)
	_ engine.Engine       = (*Engine)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
)
