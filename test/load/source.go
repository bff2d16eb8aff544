package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The one database of a source, its root, and how many tables there are to read.
const (
	database = "app"
	rootName = "scaivault_root"
	tables   = 10
)

// source is a private PostgreSQL with a root that was set up by exactly the
// statements that the product prints for it.
type source struct {
	server   *pgtest.Server
	way      string
	password string // of root
	admin    *pgconn.PgConn
}

func newSource(ctx context.Context, major int, way string) (*source, error) {
	server, err := pgtest.Launch(ctx, pgtest.LaunchOptions{Major: major, Fsync: true})
	if err != nil {
		return nil, err
	}
	s := &source{server: server, way: way, password: rand.Text()}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *source) prepare(ctx context.Context) error {
	first, err := pgconn.Connect(ctx, s.server.SuperURL("postgres"))
	if err != nil {
		return err
	}
	defer first.Close(ctx)
	if err := send(ctx, first, "CREATE DATABASE "+database); err != nil {
		return err
	}
	if s.admin, err = pgconn.Connect(ctx, s.server.SuperURL(database)); err != nil {
		return err
	}
	for i := range tables {
		if err := send(ctx, s.admin, fmt.Sprintf("CREATE TABLE items_%d (id int PRIMARY KEY, name text)", i)); err != nil {
			return err
		}
	}
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: rootName, Database: database, Owner: pgtest.Superuser, Way: s.way})
	if err != nil {
		return err
	}
	return send(ctx, s.admin, setup+";ALTER ROLE "+rootName+" PASSWORD "+statement.QuoteLiteral(s.password))
}

func (s *source) close() error {
	if s.admin != nil {
		_ = s.admin.Close(context.Background()) // the server goes anyway
	}
	return s.server.Close()
}

// title names the source in the report.
func (s *source) title() string {
	root := map[string]string{
		postgresql.SetupCreateRole: "root with CREATEROLE",
		postgresql.SetupDefiner:    "definer functions",
		postgresql.SetupMakers:     "makers",
	}[s.way]
	return s.server.Version + ", " + root
}

// asRoot opens connections as the root that the server uses, too; where it has
// makers, as one of them each.
func (s *source) asRoot(ctx context.Context, n int) ([]*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(s.server.URL(rootName, s.password, database))
	if err != nil {
		return nil, err
	}
	var conns []*pgconn.PgConn
	for i := range n {
		if s.way == postgresql.SetupMakers {
			config.RuntimeParams["role"] = fmt.Sprintf("sv_maker_%d", i+1)
		}
		c, err := pgconn.ConnectConfig(ctx, config)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// group is the role that holds the rights of a role's credentials.
func (s *source) group(ctx context.Context, role string) (string, error) {
	return s.ask(ctx, "SELECT rolname FROM pg_roles WHERE starts_with(rolname, 'sv_') AND rolname LIKE '%_"+role+"_%' ORDER BY oid LIMIT 1")
}

// accounts counts the users that ScaiVault or the direct client made.
func (s *source) accounts(ctx context.Context) (int, error) {
	text, err := s.ask(ctx, "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'v_')")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// aclSize is the length of every access list that a credential could lengthen.
func (s *source) aclSize(ctx context.Context) (string, error) {
	return s.ask(ctx, `SELECT sum(length(acl::text)) FROM (SELECT relacl FROM pg_class UNION ALL SELECT nspacl FROM pg_namespace UNION ALL SELECT datacl FROM pg_database) a(acl)`)
}

func (s *source) ask(ctx context.Context, sql string) (string, error) {
	answers, err := s.admin.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	if len(answers[0].Rows) == 0 {
		return "", fmt.Errorf("no answer to %s", sql)
	}
	return string(answers[0].Rows[0][0]), nil
}

// sweep drops what the direct client left, so that each turn finds the same.
func (s *source) sweep(ctx context.Context) error {
	for {
		names, err := s.ask(ctx, "SELECT coalesce(string_agg(n, ', '), '') FROM (SELECT quote_ident(rolname) FROM pg_roles WHERE starts_with(rolname, '"+directPrefix+"') LIMIT 500) r(n)")
		if err != nil || names == "" {
			return err
		}
		if err := send(ctx, s.admin, "DROP OWNED BY "+names+"; DROP ROLE "+names); err != nil {
			return err
		}
	}
}

// send sends statements as one message, which is one transaction.
func send(ctx context.Context, c *pgconn.PgConn, statements ...string) error {
	_, err := c.Exec(ctx, strings.Join(statements, ";\n")).ReadAll()
	return err
}
