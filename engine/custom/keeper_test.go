package custom_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/internal/statement"
)

// keeper is the name by which this very binary is a program of the protocol: it keeps accounts in a
// PostgreSQL server.
const keeper = "keeper"

// mark is the comment of the accounts that it made.
const mark = "made by keeper"

type asked struct {
	Function   string
	Deadline   time.Time
	ExpiresAt  time.Time `json:"expires_at"`
	Name       string
	Root       map[string]string
	Parameters struct {
		Engine struct {
			Address, Database string
		}
		Role struct {
			Member string
		}
	}
}

type answer map[string]any

func failing(kind, message string) answer {
	return answer{"error": answer{"kind": kind, "message": message}}
}

// runKeeper answers one request.
func runKeeper() int {
	var q asked
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		return 1
	}
	ctx, cancel := context.WithDeadline(context.Background(), q.Deadline.Add(-100*time.Millisecond))
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable&default_query_exec_mode=simple_protocol",
		q.Root["username"], q.Root["password"], q.Parameters.Engine.Address, q.Parameters.Engine.Database))
	var a answer
	if err == nil {
		a, err = q.do(ctx, conn)
	}
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused) && refused.Code == "42710":
		a = failing("name_taken", "it is there")
	case errors.As(err, &refused):
		a = failing("refused", refused.Message)
	case err != nil && conn != nil && q.Function == "issue":
		a = failing("uncertain", "no answer")
	case err != nil:
		a = failing("unreachable", "no answer")
	}
	if json.NewEncoder(os.Stdout).Encode(a) != nil {
		return 1
	}
	return 0
}

func (q *asked) do(ctx context.Context, c *pgx.Conn) (answer, error) {
	name := statement.QuoteIdent(q.Name)
	until := func() string {
		return " VALID UNTIL " + statement.QuoteLiteral(q.ExpiresAt.Format(time.RFC3339Nano))
	}
	switch q.Function {
	case "check":
		var id string
		err := c.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&id)
		return answer{"ok": true, "source_id": id, "functions": []string{"renew", "lookup", "list"}}, err
	case "issue":
		password := statement.Password(nil)
		_, err := c.Exec(ctx, fmt.Sprintf(`BEGIN; SET LOCAL statement_timeout = '2s'; DO $$ BEGIN IF clock_timestamp() > %s THEN RAISE 'too late'; END IF; END $$;
			CREATE ROLE %s LOGIN PASSWORD %s %s IN ROLE %s; COMMENT ON ROLE %s IS '%s'; COMMIT`,
			statement.QuoteLiteral(q.Deadline.Format(time.RFC3339Nano)), name,
			statement.QuoteLiteral(statement.ScramSHA256(password, 1, nil)), until(), statement.QuoteIdent(q.Parameters.Role.Member), name, mark))
		return answer{"data": answer{"username": q.Name, "password": password.Reveal(), "address": q.Parameters.Engine.Address},
			"public": []string{"address"}, "ref": answer{"role": q.Name}}, err
	case "renew":
		_, err := c.Exec(ctx, "ALTER ROLE "+name+until())
		return answer{}, err
	case "revoke":
		if found, err := q.find(ctx, c); found != "usable" {
			return answer{}, err
		}
		_, err := c.Exec(ctx, "ALTER ROLE "+name+" NOLOGIN; "+end(q.Name)+`; DROP OWNED BY `+name+`; DROP ROLE `+name+"; "+end(q.Name))
		return answer{}, err
	case "lookup":
		state, err := q.find(ctx, c)
		return answer{"state": state, "ref": answer{"role": q.Name}}, err
	case "list":
		rows, err := c.Query(ctx, "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') = $1", mark)
		if err != nil {
			return nil, err
		}
		names, err := pgx.CollectRows(rows, pgx.RowTo[string])
		accounts := []answer{}
		for _, name := range names {
			accounts = append(accounts, answer{"name": name})
		}
		return answer{"accounts": accounts}, err
	}
	return failing("refused", "no such function"), nil
}

// end ends the sessions of a name and waits until they are gone: one that logs in meanwhile included.
func end(name string) string {
	return strings.ReplaceAll(`DO $$ BEGIN FOR i IN 1..500 LOOP
		PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = NAME;
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE usename = NAME);
		PERFORM pg_sleep(0.01);
	END LOOP; END $$`, "NAME", statement.QuoteLiteral(name))
}

// find is the state of the account.
func (q *asked) find(ctx context.Context, c *pgx.Conn) (string, error) {
	var ours bool
	err := c.QueryRow(ctx, "SELECT coalesce(shobj_description(oid, 'pg_authid') = $1, false) FROM pg_roles WHERE rolname = $2", mark, q.Name).Scan(&ours)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "absent", nil
	case err != nil:
		return "", err
	case !ours:
		return "foreign", nil
	}
	return "usable", nil
}
