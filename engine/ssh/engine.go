// Package ssh makes what opens SSH hosts: certificates of users and hosts, signed by a CA whose key
// ScaiVault holds, and passwords that are good for one login.
//
// There is no source to ask: a certificate is where its holder keeps it, and a host checks it against
// the CA's public keys and a list of what is revoked (krl.go); a one-time password is where its lease
// is, and the host has it checked by this server (otp.go). So the lease is all the state there is: a
// certificate whose lease is not known to live is in the list. The operator's guide is
// docs/engines/ssh.md.
package ssh

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/duration"
)

const typeName = "ssh"

// Type is the kind of source "ssh".
type Type struct{}

// Name is "ssh".
func (Type) Name() string { return typeName }

// ParseConfig implements engine.Type. The key of the CA is handed to nobody, so there is no endpoint.
func (Type) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return engine.Config{}, err
	}
	shown := c.Config("")
	shown.Listed = c.Mode == modeCA
	shown.KeyLead = c.lead()
	return shown, nil
}

// ParseRole implements engine.Type. Whether the role fits the engine's mode is seen when it is saved.
func (Type) ParseRole(raw json.RawMessage) (engine.Role, error) {
	r, err := parseRole(raw)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Engine is an open CA, or what makes one-time passwords.
type Engine struct {
	config  *config
	options engine.Options
	terms   []engine.KeyTerms // none in mode otp

	mu     sync.Mutex
	keys   []caKey // newest first; empty in mode otp
	closed bool
}

// Open implements engine.Type.
func (Type) Open(ctx context.Context, o engine.Options) (engine.Engine, error) {
	c, err := parseConfig(o.Config)
	if err != nil {
		return nil, misconfigured("read the configuration", err)
	}
	e := &Engine{config: c, options: o}
	if c.Mode == modeCA {
		e.terms = o.KeyTerms
		if len(e.terms) == 0 {
			e.terms = []engine.KeyTerms{{Lead: duration.Duration(c.lead()), MaxTTL: duration.Duration(o.MaxTTL)}}
		}
		if e.keys, err = e.readKeys(ctx); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// SourceID implements engine.Engine. Leases of one mode are not those of the other.
func (e *Engine) SourceID() string { return e.options.Installation + "/" + e.config.Mode }

// Close implements engine.Engine.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
}

// usable fails once the engine is closed.
func (e *Engine) usable() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return refused("use the engine: it is closed")
	}
	return nil
}

// Check implements engine.Engine.
func (e *Engine) Check(context.Context) engine.Health {
	h := engine.Health{Status: "healthy", TLS: "none", Details: map[string]string{"mode": e.config.Mode}}
	if e.config.Mode == modeCA {
		e.describeKeys(&h, time.Now())
	}
	return h
}

var (
	_ engine.Type             = Type{}
	_ engine.RootMaker        = Type{}
	_ engine.RevocationLister = Type{}
	_ engine.OneTime          = Type{}
	_ engine.Engine           = (*Engine)(nil)
	_ engine.RolePreparer     = (*Engine)(nil)
	_ engine.RootRotator      = (*Engine)(nil)
	_ engine.KeyPublisher     = (*Engine)(nil)
)
