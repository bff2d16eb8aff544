package ssh

import (
	"context"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// PrepareRole implements engine.RolePreparer: it refuses what the engine's mode cannot give.
func (e *Engine) PrepareRole(_ context.Context, _ string, parsed engine.Role) ([]string, error) {
	r, err := e.role(parsed)
	if err != nil {
		return nil, err
	}
	if err := r.fits(e.config.Mode); err != nil {
		return nil, misconfigured(fault.From(err).Message, nil)
	}
	return r.warnings(e.config.Mode), nil
}

// warnings are what people find out when they log in.
func (r *role) warnings(mode string) []string {
	if mode != modeCA || r.host() {
		return nil
	}
	if _, pty := r.Extensions["permit-pty"]; pty || r.CriticalOptions[optionCommand] != "" {
		return nil
	}
	return []string{`extensions lack permit-pty: certificates run commands, and open no terminal; add "extensions": {"permit-pty": ""} for logins of people`}
}

// role is the role of a request, if it is one of this engine's.
func (e *Engine) role(parsed engine.Role) (*role, error) {
	r, ok := parsed.(*role)
	if !ok {
		return nil, misconfigured("use a role: it is not one of this engine", nil)
	}
	return r, nil
}
