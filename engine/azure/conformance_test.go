package azure_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
)

// late is why what is sent and comes late is tested here and not by the suite.
const late = "Microsoft Graph executes a request however late it comes: see TestLate for what is left then, and who finds it"

// TestConformance runs the suite for each kind of credential.
func TestConformance(t *testing.T) {
	t.Parallel()
	t.Run("application", func(t *testing.T) {
		t.Parallel()
		enginetest.Run(t, func(t *testing.T) *enginetest.Target {
			s := newSource(t)
			target := s.target(t)
			target.Role = s.reader(t)
			target.Plant = func(t *testing.T, name string) { s.NewApplication(name) }
			return target
		})
	})
	t.Run("password", func(t *testing.T) {
		t.Parallel()
		enginetest.Run(t, func(t *testing.T) *enginetest.Target {
			s := newSource(t)
			target := s.target(t)
			objectID, clientID := s.NewApplication("somebody's", s.root.PrincipalID)
			s.Assign(t, s.Scope(), "Reader", s.PrincipalOf(clientID))
			target.Role = parseRole(t, `{"application_object_id": "`+objectID+`"}`)
			target.Plant = func(t *testing.T, name string) { s.PlantPassword(objectID, name) }
			target.Exceptions["RevokeBeatsReconnecting"] = "the application lives on with its rights, so a token that was given out works to its own end: see TestTokensLiveOn"
			return target
		})
	})
}

func (s *source) target(*testing.T) *enginetest.Target {
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				for _, endpoint := range []string{"login_endpoint", "graph_endpoint", "resource_manager_endpoint"} {
					extra[endpoint] = "https://" + o.Address
				}
			}
			if o.OperationTimeout != 0 {
				extra["operation_timeout"], extra["connect_timeout"] = o.OperationTimeout.String(), o.OperationTimeout.String()
			}
			options := s.options(extra)
			options.Node, options.Epoch = enginetest.Node, o.Epoch
			if o.Root != nil {
				options.Root = o.Root
			}
			return open(t, options)
		},
		Elsewhere: func(t *testing.T) engine.Engine { return s.open(t, map[string]any{"source_id": "elsewhere"}) },
		Address:   s.Addr(),
		Public:    []string{"client_id", "tenant_id"},
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			session, err := s.Login(ctx, data["client_id"].Reveal(), data["client_secret"].Reveal())
			if err != nil {
				return nil, err
			}
			return session, nil
		},
		Exists: func(_ *testing.T, name string) bool {
			return slices.ContainsFunc(s.Names(), func(n string) bool { return strings.HasPrefix(n, name) })
		},
		End: func(t *testing.T, name string) time.Time {
			t.Helper()
			return s.End(t, name).Add(-time.Minute) // the grace of the guide
		},
		Exceptions: map[string]string{
			"LateExecution":          late,
			"RevokeEndsSessions":     "an access token lives to its own end, and Outcome.EffectiveAt says when that is: see TestTokensLiveOn",
			"Renew":                  "a password of Azure keeps its end: leases are not renewable",
			"SecretsStayOutOfTheLog": "Microsoft makes the password, and writes no log that could be read",
		},
	}
}
