package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/scaivault/scaivault/internal/fault"
)

// limits bound what a session may wait for, at the server: what a node that froze in a transaction
// holds is free again after seconds, and a lock that nobody gives up is an error.
var limits = map[string]string{
	"statement_timeout":                   "20s",
	"lock_timeout":                        "5s",
	"idle_in_transaction_session_timeout": "5s",
	"application_name":                    "scaivault",
	// Every query here is meant for an index that gives its order, as in the embedded store; before
	// the first statistics of a table the planner would read all of it and sort it.
	"enable_seqscan":    "off",
	"enable_bitmapscan": "off",
	"jit":               "off", // it goes by the cost, which says nothing then
	// What is left to choose is an index of the living or the same one of all, and the former has the
	// fewer rows. It may have more pages, empty ones, where nearly all have died since.
	"random_page_cost": "0",
	"seq_page_cost":    "0",
}

const connectTimeout = 3 * time.Second

// poolConfig reads the URL. Errors never repeat it: it holds a password.
func poolConfig(text string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, errors.New("read DATABASE_URL: it is no URL such as postgres://user:password@host:5432/database?sslmode=verify-full, or a file that it names cannot be read")
	}
	c := cfg.ConnConfig
	for name, value := range limits {
		if _, set := c.RuntimeParams[name]; !set {
			c.RuntimeParams[name] = value
		}
	}
	if c.ConnectTimeout == 0 || c.ConnectTimeout > connectTimeout {
		c.ConnectTimeout = connectTimeout
	}
	if c.ValidateConnect == nil { // of several hosts the one that can be written
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	// What is answered must be durable, whatever the server's default is.
	c.AfterConnect = func(ctx context.Context, c *pgconn.PgConn) error {
		return c.Exec(ctx, "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'").Close()
	}
	cfg.MaxConns = readers + 2 // the committer's and the watcher's
	cfg.MinConns = 0
	return cfg, nil
}

// clearText tells whether the password and the data may cross a network unencrypted.
func clearText(c *pgx.ConnConfig) bool {
	open := func(host string, tls bool) bool {
		ip := net.ParseIP(host)
		local := strings.HasPrefix(host, "/") || host == "localhost" || ip != nil && ip.IsLoopback()
		return !local && !tls
	}
	if open(c.Host, c.TLSConfig != nil) {
		return true
	}
	for _, f := range c.Fallbacks {
		if open(f.Host, f.TLSConfig != nil) {
			return true
		}
	}
	return false
}

type scanFunc func(dest ...any) error

// errStop ends the reading of rows early.
var errStop = errors.New("enough rows")

// statement is one that is sent with others. Both functions may be nil; an error of one of them,
// where it is no *fault.Error, ends the transaction.
type statement struct {
	sql  string
	args []any
	row  func(scan scanFunc) error // for each row
	done func(rows int64) error    // with the number of rows changed or read
}

// session is the statements of one transaction, used by one goroutine at a time. What writes is
// queued and travels with the next that is read, or with the commit: each trip to the database
// costs more than what is done there.
type session struct {
	ctx     context.Context
	conn    *pgx.Conn
	pending []statement
	// failed is why nothing more can be done in this transaction: every further statement fails
	// the same, so that nothing of it is taken for done.
	failed error
}

// queue adds a statement that is sent later.
func (s *session) queue(st statement) error {
	if s.failed != nil {
		return unavailable(s.failed)
	}
	s.pending = append(s.pending, st)
	return nil
}

// send sends what is queued, and more, in one message and reads all answers.
func (s *session) send(more ...statement) error {
	if s.failed != nil {
		return unavailable(s.failed)
	}
	all := append(s.pending, more...)
	s.pending = nil
	if len(all) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, st := range all {
		batch.Queue(st.sql, st.args...)
	}
	results := s.conn.SendBatch(s.ctx, batch)
	var err error
	for _, st := range all {
		if err = st.read(results); err != nil {
			break
		}
	}
	var known *fault.Error
	if lost := results.Close(); lost != nil && (err == nil || errors.As(err, &known)) {
		return s.fail(lost)
	}
	if err == nil || errors.As(err, &known) {
		return err
	}
	return s.fail(err)
}

func (st statement) read(results pgx.BatchResults) error {
	rows, err := results.Query()
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if st.row == nil {
			continue
		}
		if err := st.row(rows.Scan); errors.Is(err, errStop) {
			break
		} else if err != nil {
			return err
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	if st.done == nil {
		return nil
	}
	return st.done(rows.CommandTag().RowsAffected())
}

// each calls fn for every row of a statement.
func (s *session) each(sql string, args []any, fn func(scan scanFunc) error) error {
	return s.send(statement{sql: sql, args: args, row: fn})
}

// one reads at most one row, and tells whether there was one.
func (s *session) one(sql string, args []any, dest ...any) (found bool, err error) {
	err = s.each(sql, args, func(scan scanFunc) error {
		found = true
		return scan(dest...)
	})
	return found, err
}

// fail ends the transaction: the caller learns that the store is lost, the log why.
func (s *session) fail(err error) error {
	if s.failed == nil {
		s.failed = err
	}
	return unavailable(err)
}

func unavailable(err error) *fault.Error {
	return fault.New(fault.ServiceUnavailable,
		"the server's database (DATABASE_URL) cannot be used; see the log of the server").Because(reason(err))
}

// reason is an error of the driver without what it may repeat: a URL, a parameter, a row.
func reason(err error) error {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return fmt.Errorf("postgresql: %s: %s", e.Code, e.Message)
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return errors.New("postgresql: no answer in time")
	}
	var connect *pgconn.ConnectError
	var parse *pgconn.ParseConfigError
	if errors.As(err, &connect) || errors.As(err, &parse) {
		var op *net.OpError
		if errors.As(err, &op) {
			return fmt.Errorf("postgresql: connect: %w", op.Err)
		}
		return errors.New("postgresql: the connection could not be made")
	}
	return err
}

// sqlState is the server's code for an error, "" if it is not the server's.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// damaged tells of a row that does not decode.
func damaged(what string, err error) error {
	return fault.New(fault.InternalError, "a stored row is damaged; see the log of the server").
		Because(fmt.Errorf("decode %s: %w", what, err))
}

// lockKey is the number of an advisory lock. Two things of one number wait for each other without
// need, which is all that happens.
func lockKey(what ...string) int64 {
	h := fnv.New64a()
	for _, w := range append([]string{"scaivault"}, what...) {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return int64(h.Sum64())
}

// Times are stored as microseconds since 1970.

func micros(t time.Time) int64 { return t.UnixMicro() }

func moment(us int64) time.Time { return time.UnixMicro(us).UTC() }

func microsOrNull(t *time.Time) *int64 {
	if t == nil {
		return nil
	}
	us := t.UnixMicro()
	return &us
}

func momentOrNil(us *int64) *time.Time {
	if us == nil {
		return nil
	}
	t := moment(*us)
	return &t
}

// after is the first text that comes after all that have the prefix; none when there is none such.
// It is valid UTF-8, as the database demands.
func after(prefix string) (string, bool) {
	r := []rune(prefix)
	for i := len(r) - 1; i >= 0; i-- {
		switch next := r[i] + 1; {
		case next == 0xD800: // no characters until here
			r[i] = 0xE000
		case next > 0x10FFFF:
			continue
		default:
			r[i] = next
		}
		return string(r[:i+1]), true
	}
	return "", false
}

// condition collects the parts of a WHERE; a "?" of a part is its argument.
type condition struct {
	parts []string
	args  []any
}

func (c *condition) and(part string, args ...any) {
	for _, a := range args {
		c.args = append(c.args, a)
		part = strings.Replace(part, "?", fmt.Sprintf("$%d", len(c.args)), 1)
	}
	c.parts = append(c.parts, part)
}

func (c *condition) text(part, value string) {
	if value != "" {
		c.and(part, value)
	}
}

// check is text for what no index is to be used for.
func (c *condition) check(part, value string) {
	if value != "" {
		c.and("("+part+") IS TRUE", value)
	}
}

func (c *condition) moment(part string, t *time.Time) {
	if t != nil {
		c.and(part, micros(*t))
	}
}

// limit is LIMIT's argument: none for 0.
func (c *condition) limit(n int) string {
	if n <= 0 {
		return ""
	}
	c.args = append(c.args, n)
	return fmt.Sprintf(" LIMIT $%d", len(c.args))
}

func (c *condition) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(c.parts, " AND ")
}
