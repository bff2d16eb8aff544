package enginetest

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// NewNamer is of an installation of its own: sources are shared by tests.
func NewNamer() *statement.Namer {
	return statement.NewNamer("inst_"+ident.New("tnt"), []byte("key of the test"), nil)
}

// Options are those of one engine of an installation, with a configuration that can be written as JSON. secrets
// are those that it may read besides its root.
func Options(config map[string]any, root map[string]statement.Secret, namer *statement.Namer, secrets map[string]map[string]statement.Secret) engine.Options {
	raw, err := json.Marshal(config)
	if err != nil {
		panic(err) // the test wrote it
	}
	var dialer net.Dialer
	return engine.Options{
		Installation: "installation-1", EngineID: ident.New(ident.Engine), EngineName: "db", Node: "node-1", Epoch: 1,
		Config: raw, Root: root,
		Secret: func(_ context.Context, path string) (map[string]statement.Secret, error) { return secrets[path], nil },
		Namer:  namer, Dial: dialer.DialContext, Logger: slog.New(slog.DiscardHandler),
	}
}
