// Package mysql makes credentials in MySQL 8.0.21 and later and in MariaDB 10.6
// and later.
//
// A credential is an account. In the privileges form it gets its rights from one
// server-side role (MySQL) or directly (MariaDB, where to activate a role at login
// takes a right over the whole server); in the statements form the operator's own
// statements make it. Both are killed by the same sequence (revoke.go).
//
// These servers have no transaction for what concerns accounts. What is made up of
// several statements is therefore made locked and unlocked last, undone by name,
// and looked at again (issue.go); what is executed late is refused by fences
// (fence.go). The operator's guide is docs/engines/mysql.md.
package mysql

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const typeName = "mysql"

// Type is the kind of source "mysql": MySQL and MariaDB.
type Type struct{}

// Name is "mysql".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	return c.Config(c.target.String(), c.CAPath, c.CertPath), nil
}

// ParseRole implements engine.Type.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is one open server.
type Engine struct {
	config    *config
	options   engine.Options
	log       *slog.Logger
	pool      *engine.Pool[*conn]
	connector *connector
	dialect   dialect
	names     *statement.NameTemplate // nil for the usual names
	source    string                  // its identity
	marker    string                  // the account that bears it at the source; empty where source_id says it

	mu     sync.Mutex
	root   engine.Login
	groups map[string]string // of each role that was used here, by the role's name; MySQL only

	grouping sync.Mutex // held by who makes a group
	late     *engine.LateLooks[string]
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
	connector, err := newConnector(ctx, c, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{config: c, options: o, log: o.Logger, connector: connector, root: root, groups: map[string]string{}}
	e.late = engine.NewLateLooks(e.lookLate)
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithTimeout(ctx, c.OperationTimeout.Std())
	defer cancel()
	first, err := connector.connect(ctx, root)
	if err != nil {
		return nil, err
	}
	defer first.close()
	e.dialect = first.dialect
	if e.names, err = c.NameTemplate(e.dialect.maxName()); err != nil {
		return nil, misconfigured("read username_template: "+err.Error(), nil)
	}
	if err := e.identify(ctx, first); err != nil {
		return nil, plain(err)
	}
	e.pool = engine.NewPool(*c.MaxOpenConnections, c.ConnectTimeout.Std(), func(ctx context.Context) (*conn, error) {
		e.mu.Lock()
		as := e.root
		e.mu.Unlock()
		return connector.connect(ctx, as)
	})
	return e, nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.late.Close()
	e.pool.Close()
}

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

var (
	_ engine.Type         = Type{}
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Renewer      = (*Engine)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Settler      = (*Engine)(nil)
	_ engine.BatchRevoker = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)
