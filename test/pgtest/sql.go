package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sqlTimeout bounds what a helper asks of the server.
const sqlTimeout = 30 * time.Second

// Connect opens a connection as any user and closes it at the test's end.
func (s *Server) Connect(t TB, user, password, db string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), sqlTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.URL(user, password, db))
	if err != nil {
		t.Fatalf("connect to postgresql as %s: %v", user, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // the test may have ended the session
	})
	return conn
}

// Superuser opens a superuser's connection to the database postgres.
func (s *Server) Superuser(t TB) *pgx.Conn {
	t.Helper()
	return s.Connect(t, Superuser, s.password, "postgres")
}

// Exec runs SQL as superuser in the database postgres. Without arguments it
// may be several statements.
func (s *Server) Exec(t TB, sql string, args ...any) {
	t.Helper()
	s.ExecIn(t, "postgres", sql, args...)
}

// ExecIn is Exec in another database.
func (s *Server) ExecIn(t TB, db, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), sqlTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.SuperURL(db))
	if err != nil {
		t.Fatalf("connect to postgresql: %v", err)
	}
	defer conn.Close(ctx)
	if len(args) == 0 {
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	} else {
		_, err = conn.Exec(ctx, sql, args...)
	}
	if err != nil {
		t.Fatalf("execute %s: %v", sql, err)
	}
}

// CreateDB makes an empty database with a name of its own.
func (s *Server) CreateDB(t TB) (name string) {
	t.Helper()
	name = uniqueName("db")
	s.Exec(t, "CREATE DATABASE "+name)
	return name
}

// RootKind is what the root of an engine may do, as options of CREATE ROLE.
type RootKind string

// The kinds of root that the PostgreSQL engine knows.
const (
	// CreateRole makes users itself.
	CreateRole RootKind = "CREATEROLE NOSUPERUSER INHERIT"
	// Plain only calls functions that an administrator installed.
	Plain RootKind = "NOCREATEROLE NOSUPERUSER INHERIT"
	// Super is what nobody should use and many do.
	Super RootKind = "SUPERUSER"
)

// NewRoot makes a login role of the kind, with no grants.
func (s *Server) NewRoot(t TB, kind RootKind) (name, password string) {
	t.Helper()
	name, password = uniqueName("root"), rand.Text()
	s.Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN %s PASSWORD '%s'", name, kind, password))
	return name, password
}

// uniqueName needs no quoting in SQL.
func uniqueName(prefix string) string {
	return prefix + "_" + strings.ToLower(rand.Text()[:12])
}
