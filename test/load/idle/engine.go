package main

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// sourceID is the one source that there is.
const sourceID = "idle"

// idle is an engine whose source does nothing, and that at once: every account that was asked for
// exists, and is dead when its death was asked for. What is left is what ScaiVault itself costs.
type idle struct{}

var _ engine.Type = idle{}

// Name is the engine's name in documents.
func (idle) Name() string { return "idle" }

// config is all that the engine is told: where the root secret lies, which every engine has.
type config struct {
	Root string `json:"root_credentials_path"`
}

// ParseConfig reads {"root_credentials_path"}.
func (idle) ParseConfig(raw json.RawMessage) (engine.Config, error) {
	var c config
	if err := json.Unmarshal(raw, &c); err != nil {
		return engine.Config{}, fault.New(fault.InvalidConfig, "read the configuration: it is not that of an idle engine")
	}
	return engine.Config{RootCredentialsPath: c.Root, Endpoint: sourceID, OperationTimeout: 15 * time.Second,
		ConnectTimeout: 5 * time.Second, MaxOpenConnections: 4}, nil
}

// ParseRole accepts everything: there is nothing to say.
func (idle) ParseRole(json.RawMessage) (engine.Role, error) { return struct{}{}, nil }

// Open has nothing to connect to.
func (idle) Open(_ context.Context, o engine.Options) (engine.Engine, error) {
	return &source{namer: o.Namer}, nil
}

type source struct{ namer *statement.Namer }

var (
	_ engine.Engine       = (*source)(nil)
	_ engine.Renewer      = (*source)(nil)
	_ engine.BatchRevoker = (*source)(nil)
	_ engine.Clock        = (*source)(nil)
)

// Plan draws a name and a password, as every database's engine does.
func (s *source) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	name := s.namer.New(r.RoleName, 63)
	recipe, err := json.Marshal(map[string]string{"username": name})
	if err != nil {
		return nil, &engine.Error{Kind: engine.Refused, Reason: "the recipe cannot be written", Err: err}
	}
	return &engine.Plan{LeaseID: r.LeaseID, Username: name, Role: r.Role, ExpiresAt: r.ExpiresAt, Recipe: recipe,
		Data: map[string]statement.Secret{"username": statement.Secret(name), "password": statement.Password(nil)}}, nil
}

// SourceID never changes.
func (*source) SourceID() string { return sourceID }

// Now is the machine's time: who measures with this engine stops the server for longer than a server
// that is off may be without asking a source what time it is.
func (*source) Now(context.Context) (time.Time, error) { return time.Now(), nil }

// Issue answers at once.
func (*source) Issue(_ context.Context, p *engine.Plan) (engine.Recipe, error) { return p.Recipe, nil }

// Revoke answers at once.
func (*source) Revoke(context.Context, engine.Recipe) (engine.Outcome, error) {
	return engine.Outcome{}, nil
}

// RevokeBatch answers at once.
func (*source) RevokeBatch(_ context.Context, rs []engine.Recipe) []engine.Result {
	return make([]engine.Result, len(rs))
}

// Renew answers at once.
func (*source) Renew(context.Context, engine.Recipe, time.Time) error { return nil }

// Lookup finds every account usable.
func (*source) Lookup(_ context.Context, r engine.Recipe) (engine.Presence, error) {
	return engine.Presence{State: engine.Usable, Recipe: r}, nil
}

// Check is always well.
func (*source) Check(context.Context) engine.Health {
	return engine.Health{Status: "healthy", TLS: "none"}
}

// Close has nothing to close.
func (*source) Close() {}
