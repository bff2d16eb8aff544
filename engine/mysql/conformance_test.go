package mysql_test

import (
	"context"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// statements are a role's in the form that people know from other products.
func (s *source) statements() map[string]any {
	return map[string]any{"creation_statements": []string{
		"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'",
		"GRANT SELECT ON " + s.app + ".* TO '{{name}}'@'%'",
	}}
}

// TestConformance runs the suite against both kinds of servers, with both forms of
// roles, and with the source's own end.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		for _, form := range []string{"privileges", "statements"} {
			t.Run(kind+"/"+form, func(t *testing.T) {
				t.Parallel()
				enginetest.Run(t, func(t *testing.T) *enginetest.Target {
					s := shared(t, kind)
					if form == "statements" {
						return s.target(t, parseRole(t, s.statements()))
					}
					return s.target(t, s.reader(t))
				})
			})
		}
	}
}

func (s *source) target(t *testing.T, role engine.Role) *enginetest.Target {
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				extra["connection_url"] = "mysql://{{username}}:{{password}}@" + o.Address + "/"
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
		Role:      role,
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			return s.login(ctx, data)
		},
		Sessions: s.sessions(),
		Exists:   func(t *testing.T, name string) bool { return s.server.Exists(t, name) },
		Plant: func(t *testing.T, name string) {
			s.server.Exec(t, "CREATE USER '"+name+"'@'%' IDENTIFIED BY 'theirs'")
			t.Cleanup(func() { s.server.Exec(t, "DROP USER '"+name+"'@'%'") })
		},
		Log: func(t *testing.T) string {
			general, binary := s.server.Log(t)
			for _, name := range []string{"general", "binary"} {
				if log := map[string]string{"general": general, "binary": binary}[name]; !strings.Contains(log, control) {
					t.Errorf("the %s log does not hold what it must: this test looks at the wrong place", name)
				}
			}
			return general + binary
		},
		Say: func(t *testing.T, text string) {
			s.server.Exec(t, "CREATE TABLE IF NOT EXISTS "+s.app+".said (t TEXT)", "INSERT INTO "+s.app+".said VALUES ('"+text+"')", control)
		},
		Exceptions: map[string]string{"Renew": "without expiry_events the source enforces no end that could be moved; TestExpiryEvents moves one"},
	}
}

// control is a statement that both logs must show.
const control = "CREATE DATABASE IF NOT EXISTS seen_by_both_logs"

// session is an open session of a credential.
type session struct {
	*mysqltest.Session
	app string
}

func (s session) read(ctx context.Context) error {
	var n int
	return s.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+s.app+".orders").Scan(&n)
}

func (s session) Works(ctx context.Context) bool { return s.read(ctx) == nil }

func (s *source) login(ctx context.Context, data map[string]statement.Secret) (session, error) {
	opened, err := s.server.Login(ctx, data["username"].Reveal(), data["password"].Reveal(), "")
	if err != nil {
		return session{}, err
	}
	logged := session{opened, s.app}
	if err := logged.read(ctx); err != nil {
		opened.Close()
		return session{}, err
	}
	return logged, nil
}

// waiting is a session that is in the middle of a statement.
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
	after := func(statements ...string) func(*testing.T, map[string]statement.Secret) enginetest.Session {
		return func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			opened, err := s.login(t.Context(), data)
			if err != nil {
				t.Fatal(err)
			}
			for _, sql := range statements {
				if _, err := opened.ExecContext(t.Context(), sql); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
			}
			return opened
		}
	}
	during := func(before []string, sql, state string) func(*testing.T, map[string]statement.Secret) enginetest.Session {
		return func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			opened := after(before...)(t, data).(session)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				rows, err := opened.QueryContext(t.Context(), sql) // it is to fail
				if err == nil {
					rows.Close()
				}
			}()
			eventually(t, "the session is in the middle of a statement", func() bool {
				return len(s.server.Query(t, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = '"+data["username"].Reveal()+"' AND INFO LIKE '"+state+"%'")) > 0
			})
			return waiting{opened, ended}
		}
	}
	locks := func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
		holder, err := s.server.Login(t.Context(), s.root, rootPassword, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(holder.Close)
		name := "held by " + data["username"].Reveal()
		if _, err := holder.ExecContext(t.Context(), "DO GET_LOCK('"+name+"', 0)"); err != nil {
			t.Fatal(err)
		}
		return during(nil, "SELECT GET_LOCK('"+name+"', 600)", "SELECT GET_LOCK")(t, data)
	}
	return map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
		"idle":              after(),
		"in a transaction":  after("START TRANSACTION", "SELECT * FROM "+s.app+".orders"),
		"with a statement":  after("PREPARE s FROM 'SELECT 1'"),
		"asleep":            during(nil, "SELECT SLEEP(600)", "SELECT SLEEP"),
		"waiting for locks": locks,
	}
}
