package enginetest

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"testing"

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

// Open opens an engine, which is closed at the test's end.
func Open[E engine.Engine](t testing.TB, kind engine.Type, o engine.Options) E {
	t.Helper()
	e, err := kind.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(e.Close)
	return e.(E) //nolint:forcetypeassert // the type's own
}

// ParseRole is the role of a document, which is a text or can be written as JSON.
func ParseRole(t testing.TB, kind engine.Type, document any) engine.Role {
	t.Helper()
	raw, isText := document.(string)
	if !isText {
		text, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(text)
	}
	r, err := kind.ParseRole(json.RawMessage(raw))
	if err != nil {
		t.Fatalf("parse the role %s: %v", raw, err)
	}
	return r
}
