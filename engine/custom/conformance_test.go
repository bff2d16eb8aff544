package custom_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestConformance runs the suite with a program that keeps its accounts in PostgreSQL: logins and
// sessions are real.
func TestConformance(t *testing.T) {
	t.Parallel()
	enginetest.Run(t, func(t *testing.T) *enginetest.Target {
		server := pgtest.Shared(t, 15)
		db := server.CreateDB(t)
		server.ExecIn(t, db, `CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one')`)
		member := "readers_of_" + db
		server.ExecIn(t, db, "CREATE ROLE "+member+"; GRANT SELECT ON items TO "+member)
		h := host(t, nil)
		addKeeper(t, h)
		opening := func(t *testing.T, o enginetest.Opening, extra map[string]any) engine.Engine {
			address := server.Addr()
			if o.Address != "" {
				address = o.Address
			}
			all := map[string]any{"parameters": map[string]string{"address": address, "database": db}}
			if o.OperationTimeout != 0 {
				all["operation_timeout"], all["connect_timeout"] = o.OperationTimeout.String(), "1s"
			}
			for k, v := range extra {
				all[k] = v
			}
			options := options(t, keeper, all)
			options.Root = map[string]statement.Secret{"username": pgtest.Superuser, "password": statement.Secret(server.SuperPassword())}
			options.Node, options.Epoch = enginetest.Node, o.Epoch
			return open(t, h, options)
		}
		return &enginetest.Target{
			Open: func(t *testing.T, o enginetest.Opening) engine.Engine { return opening(t, o, nil) },
			Elsewhere: func(t *testing.T) engine.Engine {
				return opening(t, enginetest.Opening{}, map[string]any{"source_id": "elsewhere"})
			},
			Address: server.Addr(),
			Role:    parseRole(t, `{"parameters": {"member": "`+member+`"}}`),
			Public:  []string{"address"},
			Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
				conn, err := pgx.Connect(ctx, server.URL(data["username"].Reveal(), data["password"].Reveal(), db))
				if err != nil {
					return nil, err
				}
				return session{conn}, nil
			},
			Sessions: map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
				"in a transaction": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
					conn := server.Connect(t, data["username"].Reveal(), data["password"].Reveal(), db)
					if _, err := conn.Exec(t.Context(), "BEGIN; SELECT * FROM items"); err != nil {
						t.Fatal(err)
					}
					return session{conn}
				},
			},
			Exists: func(t *testing.T, name string) (there bool) {
				row := server.Superuser(t).QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name)
				if err := row.Scan(&there); err != nil {
					t.Fatal(err)
				}
				return there
			},
			Plant: func(t *testing.T, name string) {
				server.Exec(t, "CREATE ROLE "+statement.QuoteIdent(name)+" LOGIN PASSWORD 'theirs'")
				t.Cleanup(func() { server.Exec(t, "DROP ROLE IF EXISTS "+statement.QuoteIdent(name)) })
			},
			End: func(t *testing.T, name string) (end time.Time) {
				row := server.Superuser(t).QueryRow(t.Context(), "SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1", name)
				if err := row.Scan(&end); err != nil {
					t.Fatal(err)
				}
				return end
			},
			Exceptions: map[string]string{
				"RevokeBatch":            "a program revokes one by one",
				"PrepareTwice":           "what a program does with a role's parameters is its own affair",
				"RotateRoot":             "a root that only a program knows how to use is rotated by hand",
				"Clock":                  "a program is asked for no time",
				"SecretsStayOutOfTheLog": "what a program tells its source is its own affair",
			},
		}
	})
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
