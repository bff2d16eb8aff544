// Package azure makes credentials in Microsoft Entra ID and Azure.
//
// A credential is an application with a service principal of its own, which is given roles at scopes of
// Azure and memberships in groups, and gets a password last; or one more password of an application
// that exists. Microsoft makes the password itself. What is made is spread over replicas: something can
// be unknown for a while after it was made, or known after it was deleted, and every step here expects
// that. Microsoft Graph executes a request however late it arrives; what a late one makes has no
// password, and is found by its mark.
//
// The operator's guide is docs/engines/azure.md.
package azure

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	typeName = "azure"
	// maxNameBytes is a limit of ours: Microsoft Graph takes 256 characters.
	maxNameBytes = 64
)

// Type is the kind of source "azure".
type Type struct{}

// Name is "azure".
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

// Engine is one tenant, with the subscriptions in it.
type Engine struct {
	config  *config
	options engine.Options
	log     *slog.Logger
	names   *statement.NameTemplate // nil for the usual names
	client  *client
	known   *known        // what roles and groups are called
	issuing chan struct{} // one token per credential that is being made

	mu    sync.Mutex
	asked demands // what roles have asked for since the start
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	trust, err := c.Load(ctx, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		config: c, options: o, log: o.Logger, client: newClient(c, o, trust), known: newKnown(),
		issuing: make(chan struct{}, *c.MaxOpenConnections-1), asked: demands{scopes: map[string]bool{}},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.names, err = c.NameTemplate(maxNameBytes); err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	r, err := newRoot(o.Root)
	if err != nil {
		return nil, err
	}
	e.client.become(r)
	ctx, cancel := e.operation(ctx)
	defer cancel()
	if err := e.client.prove(ctx, r); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.config.sourceID() }

// Close implements engine.Engine.
func (e *Engine) Close() { e.client.close() }

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

var (
	_ engine.Type         = Type{}
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Bounded      = (*role)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.BatchRevoker = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)
