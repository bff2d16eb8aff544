package redis_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/redistest"
)

// TestConformance runs the suite against Redis and Valkey.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(t *testing.T) *enginetest.Target {
				return newSource(t, redistest.Start(t, kind, talkative())).target(t)
			})
		})
	}
}

// TestConformanceWithoutACLFile runs what differs where users are kept in the
// configuration file: all that saves them.
func TestConformanceWithoutACLFile(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		for _, name := range []string{"Issue", "RevokeTwice", "RevokeBatch", "RotateRoot", "Concurrency", "SecretsStayOutOfTheLog", "Unreachable"} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				s := newSource(t, redistest.Start(t, kind, talkative(), redistest.WithoutACLFile()), "+config|rewrite")
				enginetest.RunCase(t, name, s.target(t))
			})
		}
	}
}

// talkative makes a server keep every command in its SLOWLOG.
func talkative() redistest.Option {
	return redistest.WithLines("slowlog-log-slower-than 0", "slowlog-max-len 100000")
}

func (s *source) target(t *testing.T) *enginetest.Target {
	server := s.servers[0]
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				extra["connection_url"] = "redis://{{username}}:{{password}}@" + o.Address
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
		Address:   server.Addr(),
		Role:      parseRole(t, readApp),
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			client := server.Client(data["username"].Reveal(), data["password"].Reveal())
			if err := client.Get(ctx, "app:one").Err(); err != nil {
				client.Close()
				return nil, err
			}
			return session{client}, nil
		},
		Sessions: s.sessions(),
		Exists:   func(t *testing.T, name string) bool { return slices.Contains(server.Users(t), name) },
		Plant: func(t *testing.T, name string) {
			server.Do(t, "ACL", "SETUSER", name, "on", ">theirs", "~*", "+@read")
			t.Cleanup(func() { server.Do(t, "ACL", "DELUSER", name) })
		},
		Log: func(t *testing.T) string {
			var said strings.Builder
			said.WriteString(server.Log(t) + server.Files(t))
			for _, command := range [][]any{{"SLOWLOG", "GET", "-1"}, {"ACL", "LOG"}, {"ACL", "LIST"}} {
				said.WriteString(strings.ToLower(flat(server.Do(t, command...))))
				said.WriteString(flat(server.Do(t, command...)))
			}
			return said.String()
		},
		Say: func(t *testing.T, text string) { server.Do(t, "ECHO", text) },
	}
}

// flat is an answer as one text.
func flat(answer any) string {
	switch a := answer.(type) {
	case []any:
		var all strings.Builder
		for _, item := range a {
			all.WriteString(flat(item) + "\n")
		}
		return all.String()
	case string:
		return a
	}
	return ""
}

// session is an open connection of a credential. The client makes no second one:
// its pool has one, and the user is gone.
type session struct{ client *driver.Client }

func (s session) Works(ctx context.Context) bool { return s.client.Get(ctx, "app:one").Err() == nil }
func (s session) Close()                         { s.client.Close() }

// waiting is a session that is in the middle of a command.
type waiting struct {
	session
	ended <-chan struct{}
}

func (w waiting) Works(ctx context.Context) bool {
	select {
	case <-w.ended:
		return w.session.Works(ctx)
	case <-ctx.Done():
		return true
	}
}

// sessions are the states in which a session must die.
func (s *source) sessions() map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session {
	login := func(data map[string]statement.Secret) *driver.Client {
		return s.servers[0].Client(data["username"].Reveal(), data["password"].Reveal())
	}
	after := func(commands ...[]any) func(*testing.T, map[string]statement.Secret) enginetest.Session {
		return func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			client := login(data)
			for _, command := range commands {
				if err := client.Do(t.Context(), command...).Err(); err != nil {
					t.Fatalf("%v: %v", command, err)
				}
			}
			return session{client}
		}
	}
	return map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
		"idle":              after([]any{"GET", "app:one"}),
		"in a transaction":  after([]any{"MULTI"}, []any{"GET", "app:one"}),
		"watching":          after([]any{"WATCH", "app:one"}),
		"with another name": after([]any{"CLIENT", "SETNAME", "somebody"}),
		"protected":         after([]any{"CLIENT", "NO-EVICT", "ON"}),
		"subscribed": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			client := login(data)
			subscription := client.Subscribe(t.Context(), "app:news")
			if _, err := subscription.Receive(t.Context()); err != nil {
				t.Fatalf("subscribe: %v", err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					if _, err := subscription.ReceiveTimeout(context.Background(), time.Minute); err != nil {
						subscription.Close()
						return
					}
				}
			}()
			return waiting{session{client}, ended}
		},
		"in a blocking read": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			client := login(data)
			if err := client.Get(t.Context(), "app:one").Err(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = client.Do(context.Background(), "XREAD", "BLOCK", 60000, "STREAMS", "app:stream", "$").Err() // it is to fail
			}()
			return waiting{session{client}, ended}
		},
	}
}
