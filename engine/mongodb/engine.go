// Package mongodb makes credentials in MongoDB 4.4 and later: in a server alone, in a replica set, and
// in a sharded cluster.
//
// A credential is a user. Users replicate, so one is made and dropped at the primary, by commands that
// wait for a majority; but whoever holds it may talk to any member, so it is dead only when every
// member has been asked (members.go). MongoDB makes no transactions of these commands and knows no end
// of a user: what is done instead stands in fence.go. The operator's guide is docs/engines/mongodb.md.
package mongodb

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

const (
	typeName = "mongodb"
	// maxNameBytes is a limit of ours: MongoDB has none, and people read the names.
	maxNameBytes = 64
)

// Type is the kind of source "mongodb".
type Type struct{}

// Name is "mongodb".
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

// Engine is one open source.
type Engine struct {
	config    *config
	options   engine.Options
	log       *slog.Logger
	connector *connector
	source    string        // its identity
	marker    string        // the role that bears it at the source; empty where source_id says it
	issuing   chan struct{} // a token per issuance: they never hold all connections

	mu        sync.Mutex
	root      engine.Login
	main      *server            // the source as one
	members   map[string]*server // by address, all that were ever met
	fences    map[string]*fence  // the present one of each database
	databases map[string]bool    // in which users of roles were planned
	closed    bool
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	return open(ctx, o, net.DefaultResolver)
}

func open(ctx context.Context, o engine.Options, dns resolver) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	root, err := engine.ReadLogin("root secret", o.Root)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		config: c, options: o, log: o.Logger, root: root,
		issuing: make(chan struct{}, *c.MaxOpenConnections-1),
		members: map[string]*server{}, fences: map[string]*fence{}, databases: map[string]bool{},
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.connector, err = newConnector(ctx, c, o, dns); err != nil {
		return nil, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	if err := e.meet(ctx); err != nil {
		e.Close()
		return nil, plain(err)
	}
	return e, nil
}

// meet proves that root can log in, and learns what source this is.
func (e *Engine) meet(ctx context.Context) error {
	s, err := e.connector.whole(ctx, e.root)
	if err != nil {
		return err
	}
	e.main = s
	if err := s.suits(ctx); err != nil {
		return err
	}
	if e.source = e.config.SourceID; e.source != "" {
		return nil
	}
	return e.identify(ctx, s)
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.mu.Lock()
	servers := slices.Collect(maps.Values(e.members))
	if e.main != nil {
		servers = append(servers, e.main)
	}
	e.main, e.members, e.closed = nil, nil, true
	e.mu.Unlock()
	for _, s := range servers {
		s.close()
	}
}

// whole is the source as one: what is sent to it goes to the primary, or to any mongos. Where SRV
// records list its hosts, it is connected to anew when they have changed.
func (e *Engine) whole(ctx context.Context) (*server, error) {
	e.mu.Lock()
	s, as, closed := e.main, e.root, e.closed
	e.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	p, err := e.connector.place(ctx)
	if err != nil || slices.Equal(p.hosts, s.hosts) {
		return s, err
	}
	next, err := e.connector.whole(ctx, as)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	current := e.main == s && !e.closed
	if current {
		e.main = next
	}
	e.mu.Unlock()
	if !current { // somebody else has done it, or it is over
		next.close()
		return e.whole(ctx)
	}
	s.leave()
	return next, nil
}

// errClosed is the error of an engine that was closed.
var errClosed = unreachable("use the source: the engine is closed", nil)

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

var (
	_ engine.Type         = Type{}
	_ engine.Engine       = (*Engine)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Settler      = (*Engine)(nil)
	_ engine.BatchRevoker = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)
