package examples_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/tokentest"
)

// Tokens of a service that knows their ends and can be told until when a request is good.
func TestToken(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T) *enginetest.Target {
		installation := "inst_" + rand.Text()
		service := tokentest.New()
		server := httptest.NewServer(service)
		t.Cleanup(server.Close)
		address := server.Listener.Addr().String()
		root := map[string]statement.Secret{"token": statement.Secret(service.Root)}
		return &enginetest.Target{
			Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
				return open(t, "token.star", installation, o, address, root, nil)
			},
			Elsewhere: func(t *testing.T) engine.Engine {
				other := tokentest.New()
				server := httptest.NewServer(other)
				t.Cleanup(server.Close)
				return open(t, "token.star", installation, enginetest.Opening{}, server.Listener.Addr().String(),
					map[string]statement.Secret{"token": statement.Secret(other.Root)}, nil)
			},
			Address: address,
			Role:    role(t, `{"parameters": {"scopes": ["read"]}}`),
			Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
				s := use{address, data["token"].Reveal()}
				if !s.Works(ctx) {
					return nil, errors.New("the service refuses the token")
				}
				return s, nil
			},
			Exists: func(_ *testing.T, name string) bool { return slices.Contains(service.Names(), name) },
			Plant:  func(_ *testing.T, name string) { service.Add(name) },
			End:    func(_ *testing.T, name string) time.Time { return service.End(name) },
			Exceptions: map[string]string{
				"RevokeBatch":            "a script revokes one by one",
				"PrepareTwice":           "what a script does with a role's parameters is its own affair",
				"RotateRoot":             "a root that only a script knows how to use is rotated by hand",
				"Clock":                  "a script is asked for no time",
				"SecretsStayOutOfTheLog": "the service has no log",
			},
		}
	})
}

// use is who uses a token: there are no sessions.
type use struct{ address, token string }

func (u use) Works(ctx context.Context) bool { return tokentest.Works(ctx, u.address, u.token) }
func (u use) Close()                         {}
