package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/scaivault/scaivault/internal/fault"
)

// pragmas of every connection. The WAL is folded back each 200 pages: fewer, longer checkpoints
// gain throughput and cost latency (facts measured: 200 halves the p99 of 1,000).
var pragmas = []string{
	"busy_timeout(5000)",
	"journal_mode(WAL)",
	"synchronous(FULL)",
	"fullfsync(1)", // macOS: fsync alone does not reach the disk
	"wal_autocheckpoint(200)",
	"journal_size_limit(16777216)",
	"foreign_keys(1)",
	"temp_store(MEMORY)",
	"trusted_schema(0)",
}

// connect makes a pool of one connection to the database file, and takes it.
func (s *Store) connect(ctx context.Context, more ...string) (*conn, error) {
	q := url.Values{"vfs": {s.vfs.Name()}, "_pragma": append(append([]string{}, pragmas...), more...)}
	connector, err := driver.NewConnector((&url.URL{Scheme: "file", Path: s.folder.Path(dataFile), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &conn{db: db, c: c, stmts: map[string]*sql.Stmt{}}, nil
}

// conn is one connection with its prepared statements, used by one goroutine at a time. It never
// hands the context of a caller down: a statement is not interrupted half-way.
type conn struct {
	db    *sql.DB
	c     *sql.Conn
	stmts map[string]*sql.Stmt

	// lost is the first failure of the database itself. SQLite may have rolled the transaction
	// back by then: nothing of it counts, and a further statement would stand alone and be
	// committed at once. So there is none, until the owner has begun anew.
	lost error
}

// close ends the statements first: SQLite keeps a connection, and its files, as long as it has any.
func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.c.Close(), c.db.Close())...)
}

// rollback ends the transaction, whatever became of it, and lets the connection begin anew. It
// fails where SQLite has rolled back by itself, which is as good.
func (c *conn) rollback() {
	c.lost = nil
	_, _ = c.exec("ROLLBACK")
	c.lost = nil
}

func (c *conn) prepare(query string) (*sql.Stmt, error) {
	if c.lost != nil {
		return nil, c.lost
	}
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	s, err := c.c.PrepareContext(context.Background(), query)
	if err == nil {
		c.stmts[query] = s
	}
	return s, err
}

// exec runs a statement that is prepared once, and tells how many rows it changed. A violated
// uniqueness comes back as it is, for unique to judge.
func (c *conn) exec(query string, args ...any) (int64, error) {
	s, err := c.prepare(query) //nolint:sqlclosecheck // it is kept for the next call: close ends it
	if err != nil {
		return 0, c.fail(err)
	}
	r, err := s.ExecContext(context.Background(), args...)
	if err != nil {
		if _, ok := unique(err); ok {
			return 0, err
		}
		return 0, c.fail(err)
	}
	n, err := r.RowsAffected()
	if err != nil {
		return 0, c.fail(err)
	}
	return n, nil
}

// one reads at most one row of a statement that is prepared once, and tells whether there was one.
func (c *conn) one(query string, args []any, dest ...any) (bool, error) {
	found := false
	err := c.each(query, args, func(scan scanFunc) error {
		found = true
		return scan(dest...)
	})
	return found, err
}

type scanFunc func(dest ...any) error

// errStop ends each early.
var errStop = errors.New("enough rows")

// each calls fn for every row of a statement that is prepared once.
func (c *conn) each(query string, args []any, fn func(scan scanFunc) error) error {
	s, err := c.prepare(query) //nolint:sqlclosecheck // it is kept for the next call: close ends it
	if err != nil {
		return c.fail(err)
	}
	rows, err := s.QueryContext(context.Background(), args...)
	if err != nil {
		return c.fail(err)
	}
	return c.drain(rows, fn)
}

// eachOnce is each for statements of too many forms to keep.
func (c *conn) eachOnce(query string, args []any, fn func(scan scanFunc) error) error {
	if c.lost != nil {
		return unavailable(c.lost)
	}
	rows, err := c.c.QueryContext(context.Background(), query, args...)
	if err != nil {
		return c.fail(err)
	}
	return c.drain(rows, fn)
}

func (c *conn) drain(rows *sql.Rows, fn func(scan scanFunc) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			var known *fault.Error
			if errors.As(err, &known) {
				return err
			}
			return c.fail(err)
		}
	}
	if err := rows.Err(); err != nil {
		return c.fail(err)
	}
	return nil
}

// fail maps a failure of the database: the caller learns that the store is lost, the log why.
func (c *conn) fail(err error) error {
	if c.lost == nil {
		c.lost = err
	}
	return unavailable(err)
}

func unavailable(err error) *fault.Error {
	return fault.New(fault.ServiceUnavailable,
		"the server's own store cannot be used; see its log, and the disk under the data folder").Because(err)
}

// unique tells whether err is a violated uniqueness, and of which columns ("leases.username").
func unique(err error) (columns string, ok bool) {
	var e *driver.Error
	if !errors.As(err, &e) {
		return "", false
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		_, columns, _ = strings.Cut(e.Error(), "UNIQUE constraint failed: ")
		return columns, true
	default:
		return "", false
	}
}

// damaged tells of a row that does not decode.
func damaged(what string, err error) error {
	return fault.New(fault.InternalError, "a stored row is damaged; see the log of the server").
		Because(fmt.Errorf("decode %s: %w", what, err))
}

// Times are stored as microseconds since 1970.

func micros(t time.Time) int64 { return t.UnixMicro() }

func moment(us int64) time.Time { return time.UnixMicro(us).UTC() }

func microsOrNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}

func momentOrNil(us sql.NullInt64) *time.Time {
	if !us.Valid {
		return nil
	}
	t := moment(us.Int64)
	return &t
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// after is the first text that comes after all that have the prefix; none when there is none such.
func after(prefix string) (string, bool) {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1]), true
		}
	}
	return "", false
}
