// Package custom makes credentials in sources that ScaiVault does not know, by a program or a script
// of the operator's.
//
// The engine keeps the laws, the program knows the source: it is called once per operation with one
// JSON document and answers with one (protocol.go, docs/engines/custom.md). What runs it is a runtime:
// a process of the host (exec), or an interpreter of Starlark. Everything that must hold whatever the
// program does is here: the name is durable before the program runs, what it makes can be revoked from
// the name alone, and no text of it reaches a caller.
package custom

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

const (
	typeName = "custom"
	// maxNameBytes is the shortest limit among the sources that are likely: PostgreSQL's.
	maxNameBytes = 63
)

// Type is the kind of source "custom".
type Type struct {
	Host Host
}

// Name is "custom".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	return c.Config(c.endpoint(), c.CAPath, c.CertPath), nil
}

// ParseRole implements engine.Type.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is one program with its parameters.
type Engine struct {
	config  *config
	options engine.Options
	log     *slog.Logger
	runtime runtime
	source  string // its identity
	// cautions are warnings about the host.
	cautions []string
	can      map[string]bool // the functions of those that are not required

	all     chan struct{} // one token per call under way
	issuing chan struct{} // one token per call under way that is no revocation
	pauses  pauses
	closed  chan struct{}
	closing sync.Once
}

// Open implements engine.Type.
func (t Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	e := &Engine{
		config: c, options: o, log: o.Logger,
		all: make(chan struct{}, *c.MaxOpenConnections), issuing: make(chan struct{}, *c.MaxOpenConnections-1),
		can: map[string]bool{}, closed: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.runtime, err = t.runtime(ctx, c, o, e.log); err != nil {
		return nil, err
	}
	if c.Runtime == runtimeExec && t.Host.User == nil {
		e.cautions = []string{"programs run as the server's own user: have the operator give them one with CUSTOM_PROGRAMS_USER"}
	}
	found, err := e.ask(ctx)
	if err != nil {
		e.Close()
		return nil, err
	}
	e.source = e.identity(found)
	for _, f := range append(found.Functions, e.runtime.functions()...) {
		e.can[f] = true
	}
	if e.can[functionList] {
		return listing{e}, nil
	}
	return e, nil
}

// identity tells one source from another: what the operator says, what the program says, or else that
// it is this program's.
func (e *Engine) identity(found *checked) string {
	switch {
	case e.config.SourceID != "":
		return e.config.SourceID
	case found.SourceID != "":
		return found.SourceID
	}
	return e.config.program()
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.closing.Do(func() {
		close(e.closed)
		e.runtime.close()
	})
}

var (
	_ engine.Type    = Type{}
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
	_ engine.Lister  = listing{}
)
