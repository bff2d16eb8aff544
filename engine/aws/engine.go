// Package aws makes credentials in AWS: IAM users with access keys, and sessions of STS.
//
// A user is made with the key last, so that a half-made one can do nothing, and with a policy that
// denies everything after the lease's end, so that it dies at AWS whatever becomes of ScaiVault. A
// session ends by itself and cannot be ended before, but for sessions of roles where the operator
// lets them (session.go).
//
// IAM has neither transactions nor deadlines, and is consistent only after seconds: what is done
// instead stands in connect.go (fence) and revoke.go. The operator's guide is docs/engines/aws.md.
package aws

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/scaivault/scaivault/engine"
)

const typeName = "aws"

// Type is the kind of source "aws".
type Type struct {
	Host Host
}

// Name is "aws".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	known := c.Config(c.endpoint(), c.CAPath, c.CertPath)
	known.RootHome = typeName + ":" + c.IAMEndpoint // a key is a user's, whatever role the engine uses it for
	known.Bounds = c.bounds
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

// Engine is one open source: an account.
type Engine struct {
	config    *config
	options   engine.Options
	log       *slog.Logger
	connector *connector
	source    string // its identity
	account   string // its number
	ambient   string // the source of the host's identity; empty for a root of its own
	issuing   chan struct{}

	mu      sync.Mutex
	root    keys    // empty for the host's identity
	clients clients // with that root
	former  keys    // that a rotation replaced and has not deleted yet; empty for none
	closed  bool
}

// Open implements engine.Type.
func (t Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, failure(engine.Misconfigured, "read the configuration", err)
	}
	e := &Engine{config: c, options: o, log: o.Logger, issuing: make(chan struct{}, *c.MaxOpenConnections-1)}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if c.Ambient {
		err = e.useHost(t.Host)
	} else {
		e.root, err = readRoot("root secret", o.Root)
	}
	if err != nil {
		return nil, err
	}
	if e.connector, err = newConnector(ctx, c, o); err != nil {
		return nil, err
	}
	if c.Ambient {
		e.clients = e.connector.root(t.Host.ambient(e.connector, e.log))
	} else {
		e.clients = e.connector.root(static(e.root))
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	who, err := e.identify(ctx, e.clients)
	if err != nil {
		e.Close()
		return nil, err
	}
	e.account = who.account
	if e.source = c.SourceID; e.source == "" {
		e.source = who.source()
	}
	return e, nil
}

// useHost makes the engine one of the host's identity, which goes where the operator says.
func (e *Engine) useHost(h Host) error {
	if err := h.permit(e.options); err != nil {
		return err
	}
	e.ambient, e.config.IAMEndpoint, e.config.STSEndpoint = h.source, h.iamEndpoint, h.stsEndpoint
	return nil
}

// temporary tells whether requests are signed with keys of a session, which AWS lets do less.
func (e *Engine) temporary() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ambient != "" || e.config.RoleARN != "" || e.root.Token != ""
}

// identity is who AWS takes keys for.
type identity struct {
	arn     string
	account string
}

// identify asks AWS who the clients are: no right is needed for it.
func (e *Engine) identify(ctx context.Context, c clients) (identity, error) {
	const attempt = "connect to AWS"
	out, err := c.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return identity{}, asked(attempt, err)
	}
	if out.Account == nil || out.Arn == nil {
		return identity{}, failure(engine.Unreachable, attempt+": what answers is not STS", nil)
	}
	return identity{*out.Arn, *out.Account}, nil
}

// SourceID implements engine.Engine.
func (e *Engine) SourceID() string { return e.source }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.connector.http.CloseIdleConnections()
}

// reach gives the clients of the present root.
func (e *Engine) reach() (clients, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return clients{}, failure(engine.Unreachable, "use AWS: the engine is closed", nil)
	}
	return e.clients, nil
}

// operation bounds one operation by the engine's own time.
func (e *Engine) operation(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, e.config.OperationTimeout.Std())
}

var (
	_ engine.Type         = Type{}
	_ engine.Engine       = (*Engine)(nil)
	_ engine.Bounded      = (*role)(nil)
	_ engine.RolePreparer = (*Engine)(nil)
	_ engine.Renewer      = (*Engine)(nil)
	_ engine.Lister       = (*Engine)(nil)
	_ engine.RootRotator  = (*Engine)(nil)
	_ engine.Clock        = (*Engine)(nil)
)
