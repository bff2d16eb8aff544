// Package redis makes credentials in Redis 6.2 and later and in Valkey.
//
// A credential is an ACL user. Redis replicates no users, so each is made and
// ended on every node: of one server, of a cluster, or of the set that Sentinels
// watch; a node that was away is repaired when it is back (repair.go). Users are
// in memory until they are saved, so every change is followed by ACL SAVE or
// CONFIG REWRITE.
//
// Redis has neither transactions that fail nor time-outs of statements: what is
// done instead stands in fence.go and settle.go. The operator's guide is
// docs/engines/redis.md.
package redis

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

const (
	typeName = "redis"
	// maxNameBytes is a limit of ours: Redis has none, and people read the names.
	maxNameBytes = 64
)

// Type is the kind of source "redis".
type Type struct{}

// Name is "redis".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	return c.Config(c.endpoint(), c.CAPath, c.CertPath, c.SentinelCredentialsPath), nil
}

// ParseRole implements engine.Type.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is one open source: a server, a cluster, or a set.
type Engine struct {
	config    *config
	options   engine.Options
	log       *slog.Logger
	connector *connector
	source    string // its identity
	marker    string // the user that bears it at the source; empty where source_id says it

	mu        sync.Mutex
	root      engine.Login
	nodes     map[string]*node // by address, all that were ever met
	cluster   bool
	surveyed  survey
	behind    map[string]bool   // addresses of nodes that must be repaired
	suspected map[mismatch]bool // what the last comparison of the nodes found

	surveying chan struct{} // held by who surveys
	closed    chan struct{}
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
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
		nodes: map[string]*node{}, behind: map[string]bool{},
		surveying: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.connector, err = newConnector(ctx, c, o); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.OperationTimeout.Std())
	defer cancel()
	if err := e.meet(ctx); err != nil {
		e.Close()
		return nil, err
	}
	go e.repairAlways(context.WithoutCancel(ctx))
	return e, nil
}

// meet finds the nodes and learns what source they are.
func (e *Engine) meet(ctx context.Context) error {
	members, err := e.survey(ctx)
	if err != nil {
		return err
	}
	if e.source = e.config.SourceID; e.source != "" {
		return nil
	}
	if err := e.identify(ctx, members); err != nil {
		return plain(err)
	}
	e.forgetSurvey()
	return nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.mu.Lock()
	select {
	case <-e.closed:
	default:
		close(e.closed)
	}
	nodes := e.nodes
	e.mu.Unlock()
	for _, n := range nodes {
		n.pool.Close()
	}
}

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
)
