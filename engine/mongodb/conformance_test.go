package mongodb_test

import (
	"context"
	"slices"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestConformance runs the suite.
func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T) *enginetest.Target { return newSource(t).target(t) })
}

func (s *source) target(t *testing.T) *enginetest.Target {
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				extra["connection_url"] = "mongodb://{{username}}:{{password}}@" + o.Address
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
		Address:   s.server.Addr(),
		Role:      parseRole(t, readApp),
		Public:    []string{"database"},
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			opened, err := s.login(ctx, s.server.Addr(), data)
			if err != nil {
				return nil, err
			}
			return opened, nil
		},
		Sessions: s.sessions(),
		Exists:   func(t *testing.T, name string) bool { return slices.Contains(s.server.Users(t), name) },
		Plant: func(t *testing.T, name string) {
			s.server.Do(t, appDB, bson.D{{Key: "createUser", Value: name}, {Key: "pwd", Value: "theirs"}, {Key: "roles", Value: bson.A{"read"}},
				{Key: "customData", Value: bson.D{{Key: "scaivault", Value: "of another kind"}, {Key: "installation", Value: "installation-1"}}}})
			t.Cleanup(func() { s.server.Do(t, appDB, bson.D{{Key: "dropUser", Value: name}}) })
		},
		Exceptions: map[string]string{
			"Renew":                  "MongoDB knows no end of a user that could be moved",
			"SecretsStayOutOfTheLog": "what a mongod writes to its log is its own to redact, and cannot be seen on the server of these tests",
		},
	}
}

// waiting is a session in the middle of a command that would go on for a minute.
type waiting struct {
	session
	ended <-chan error
}

func (w waiting) Works(ctx context.Context) bool {
	select {
	case err := <-w.ended:
		return err == nil || w.session.Works(ctx)
	case <-ctx.Done():
		return true
	}
}

// sessions are the states in which a session must die.
func (s *source) sessions() map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session {
	login := func(t *testing.T, data map[string]statement.Secret) session {
		opened, err := s.login(t.Context(), s.server.Addr(), data)
		if err != nil {
			t.Fatalf("log in: %v", err)
		}
		return opened
	}
	return map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
		"idle": func(t *testing.T, data map[string]statement.Secret) enginetest.Session { return login(t, data) },
		"in a command": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			opened := login(t, data)
			ended := make(chan error, 1)
			go func() {
				ended <- opened.client.Database(appDB).RunCommand(bg, bson.D{{Key: "find", Value: "things"}, {Key: "filter", Value: bson.D{{Key: "$where", Value: "sleep(60000) || true"}}}}).Err()
			}()
			eventually(t, "the command is under way", func() bool { return s.underWay(t, data["username"].Reveal()) })
			return waiting{opened, ended}
		},
	}
}

// underWay asks the source whether it executes something for a user.
func (s *source) underWay(t *testing.T, name string) bool {
	t.Helper()
	answer := s.server.Do(t, "admin", bson.D{{Key: "aggregate", Value: 1}, {Key: "cursor", Value: bson.D{}}, {Key: "pipeline", Value: bson.A{
		bson.D{{Key: "$currentOp", Value: bson.D{{Key: "allUsers", Value: true}}}},
		bson.D{{Key: "$match", Value: bson.D{{Key: "effectiveUsers.user", Value: bson.D{{Key: "$in", Value: bson.A{name}}}}}}},
	}}})
	batch, _ := answer.Lookup("cursor", "firstBatch").ArrayOK()
	values, _ := batch.Values()
	return len(values) > 0
}
