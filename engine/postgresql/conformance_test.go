package postgresql_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestConformance runs the suite for every way to set up a root and both forms
// of a role, on both sides of the change of CREATEROLE in 16.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		major int
		way   way
		form  string
	}{
		{15, createRole, readItems},
		{15, createRole, statements},
		{15, definer, readItems},
		{17, createRole, statements},
		{17, definer, readItems},
		{18, createRole, readItems},
		{16, makers, readItems},
	} {
		form := "privileges"
		if v.form == statements {
			form = "statements"
		}
		t.Run(fmt.Sprintf("%d/%s/%s", v.major, v.way, form), func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, func(t *testing.T) *enginetest.Target {
				return newSource(t, pgtest.Shared(t, v.major), v.way).target(t, v.form)
			})
		})
	}
}

func (s *source) target(t *testing.T, form string) *enginetest.Target {
	return &enginetest.Target{
		Open:      s.openForSuite,
		Elsewhere: func(t *testing.T) engine.Engine { return s.open(t, map[string]any{"source_id": "elsewhere"}) },
		Address:   s.server.Addr(),
		Role:      parseRole(t, form),
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			conn, err := pgx.Connect(ctx, s.server.URL(data["username"].Reveal(), data["password"].Reveal(), s.db))
			if err != nil {
				return nil, err
			}
			return session{conn}, nil
		},
		Sessions: s.sessions(form),
		Exists:   func(t *testing.T, name string) bool { return s.roles(t, name) == 1 },
		Plant: func(t *testing.T, name string) {
			s.server.Exec(t, "CREATE ROLE "+statement.QuoteIdent(name)+" LOGIN PASSWORD 'theirs'")
			t.Cleanup(func() { s.server.Exec(t, "DROP ROLE IF EXISTS "+statement.QuoteIdent(name)) })
		},
		End: func(t *testing.T, name string) time.Time {
			var end time.Time
			if err := s.server.Superuser(t).QueryRow(t.Context(), "SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1", name).Scan(&end); err != nil {
				t.Fatal(err)
			}
			return end
		},
		Exceptions: map[string]string{"SecretsStayOutOfTheLog": "the shared server logs little; TestNothingSecretInTheLog runs this case on one that logs all"},
	}
}

func (s *source) openForSuite(t *testing.T, o enginetest.Opening) engine.Engine {
	t.Helper()
	through := &source{db: s.db, root: s.root, password: s.password, namer: s.namer, addr: s.addr}
	if o.Address != "" {
		through.addr = o.Address
	}
	extra := map[string]any{"scram_iterations": 1} // 4096 are tested elsewhere, and cost 3 ms each time
	if o.OperationTimeout != 0 {
		extra["operation_timeout"], extra["connect_timeout"] = o.OperationTimeout.String(), "1s"
	}
	options := through.options(extra)
	options.Node, options.Epoch = enginetest.Node, o.Epoch
	if o.Root != nil {
		options.Root = o.Root
	}
	e, err := postgresql.Type{}.Open(t.Context(), options)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return e
}

type session struct{ *pgx.Conn }

func (s session) Works(ctx context.Context) bool {
	var name string
	err := s.QueryRow(ctx, "SELECT name FROM public.items WHERE id = 1").Scan(&name)
	return err == nil && name == "one"
}

func (s session) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.Conn.Close(ctx) // it may have been ended
}

// running is a session in the middle of a statement.
type running struct {
	session
	ended <-chan struct{}
}

func (r running) Works(ctx context.Context) bool {
	select {
	case <-r.ended:
		return r.session.Works(ctx)
	case <-ctx.Done():
		return true
	}
}

// sessions are the states in which a session must die.
func (s *source) sessions(form string) map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session {
	after := func(sql ...string) func(*testing.T, map[string]statement.Secret) enginetest.Session {
		return func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			conn := s.server.Connect(t, data["username"].Reveal(), data["password"].Reveal(), s.db)
			for _, statement := range sql {
				if _, err := conn.Exec(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			return session{conn}
		}
	}
	during := func(sql string) func(*testing.T, map[string]statement.Secret) enginetest.Session {
		return func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
			conn := s.server.Connect(t, data["username"].Reveal(), data["password"].Reveal(), s.db)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_, _ = conn.PgConn().Exec(context.Background(), sql).ReadAll() // it is to fail
			}()
			return running{session{conn}, ended}
		}
	}
	all := map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
		"idle":                           after(),
		"in a transaction with a lock":   after("CREATE TEMP TABLE own (id int)", "BEGIN", "LOCK TABLE own IN ACCESS EXCLUSIVE MODE"),
		"in a transaction that has read": after("BEGIN", "SELECT * FROM public.items"),
		"in pg_sleep":                    during("SELECT pg_sleep(600)"),
		"in COPY":                        during("COPY (SELECT i, pg_sleep(0.01) FROM generate_series(1, 100000) i) TO STDOUT"),
	}
	if form == readItems {
		all["after SET ROLE"] = after(`DO $$ BEGIN EXECUTE (SELECT 'SET ROLE ' || quote_ident(g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = session_user); END $$`)
	}
	return all
}
