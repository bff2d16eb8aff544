package mysql

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// lockTimeout bounds the wait for a lock at the source, of whoever holds it.
const lockTimeout = 5 * time.Second

// connector makes connections to one source.
type connector struct {
	config  *config
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	certs   *tls.Config // nil: in clear
	program string      // how the connections of this node in this epoch are shown at the source
}

func newConnector(ctx context.Context, c *config, o engine.Options) (*connector, error) {
	made := &connector{config: c, dial: o.Dial, program: engine.ConnectionPrefix(o.Installation, o.Node) + strconv.FormatInt(o.Epoch, 10)}
	var err error
	if c.target.tls != tlsOff {
		made.certs, err = c.TLS.Load(ctx, o)
	}
	return made, err
}

// connect opens a connection to the first host that takes changes.
func (c *connector) connect(ctx context.Context, as engine.Login) (opened *conn, err error) {
	for _, address := range c.config.target.hosts {
		if opened, err = c.connectTo(ctx, address, as); err == nil {
			return opened, nil
		}
	}
	return nil, err
}

func (c *connector) connectTo(ctx context.Context, address string, as engine.Login) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.ConnectTimeout.Std())
	defer cancel()
	opened := &conn{}
	cfg, err := c.driverConfig(address, as, opened)
	if err != nil {
		return nil, misconfigured("prepare connections", err)
	}
	if cfg.TLS == nil && remote(address) {
		done, err := withholdPassword(cfg)
		if err != nil {
			return nil, misconfigured("prepare connections", err)
		}
		defer done()
	}
	dialer, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, misconfigured("prepare connections", errors.New("the driver refuses the configuration"))
	}
	if opened.driver, err = dialer.Connect(ctx); err != nil {
		return nil, connectError(ctx, err)
	}
	if err := c.prepare(ctx, opened); err != nil {
		opened.close()
		return nil, err
	}
	return opened, nil
}

// driverConfig gives the driver every value: it reads neither the environment nor
// a file. Several statements in one message are needed for fences (fence.go); the
// statements of operators are cut before they are sent.
func (c *connector) driverConfig(address string, as engine.Login, opened *conn) (*mysql.Config, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd = as.Username, as.Password.Reveal()
	cfg.Net, cfg.Addr, cfg.DBName = "tcp", address, c.config.target.database
	cfg.ConnectionAttributes = "program_name:" + c.program
	cfg.MultiStatements = true
	cfg.Logger = &mysql.NopLogger{}
	if c.certs != nil {
		cfg.TLS = tlsConfig(c.certs, c.config.target.tls, host)
	}
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		socket, err := c.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		opened.wire = &wire{Conn: socket}
		return opened.wire, nil
	}
	return cfg, nil
}

// prepare finds out who answers, and sets what a session of ours relies on: how
// texts are quoted, the time zone in which moments are told, and how long it
// waits.
func (c *connector) prepare(ctx context.Context, opened *conn) error {
	answer, err := opened.run(ctx, "SELECT VERSION(), CONNECTION_ID(), "+takesChanges)
	if err != nil {
		return connectError(ctx, err)
	}
	row := answer.last()[0]
	var supported bool
	if opened.dialect, supported = parseVersion(row[0]); !supported {
		return misconfigured("the source is "+opened.dialect.String()+" "+row[0]+"; MySQL "+oldestMySQL+" and MariaDB "+oldestMariaDB+" are the oldest that work", nil)
	}
	if row[2] != "1" {
		return wrongServer("connect to the source: it takes no changes (read_only)", nil)
	}
	opened.id = row[1]
	seconds := func(d time.Duration) string { return strconv.Itoa(max(1, int(d.Seconds()))) }
	wait, limit := min(lockTimeout, c.config.OperationTimeout.Std()), c.config.OperationTimeout.Std()
	settings := []string{
		"autocommit = 1", "time_zone = '+00:00'",
		"lock_wait_timeout = " + seconds(wait), "innodb_lock_wait_timeout = " + seconds(wait),
	}
	if opened.dialect == mariaDB {
		settings = append(settings, "sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_CREATE_USER'", "max_statement_time = "+seconds(limit))
	} else {
		settings = append(settings, "sql_mode = 'STRICT_ALL_TABLES'", "max_execution_time = "+strconv.FormatInt(limit.Milliseconds(), 10))
	}
	if _, err := opened.run(ctx, message("SET NAMES utf8mb4", "SET SESSION "+strings.Join(settings, ", SESSION "))); err != nil {
		return connectError(ctx, err)
	}
	if err := opened.compareClocks(ctx); err != nil {
		return connectError(ctx, err)
	}
	return nil
}

// wire is the socket of a connection.
type wire struct {
	net.Conn
	closed atomic.Bool
	sent   atomic.Pointer[context.Context] // of the present message
}

// SyscallConn lets the driver see, before it sends something, that the source has ended
// the connection.
func (w *wire) SyscallConn() (syscall.RawConn, error) {
	if socket, ok := w.Conn.(syscall.Conn); ok {
		return socket.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if ctx := w.sent.Load(); ctx != nil {
		failpoint.Sent(*ctx)
	}
	return n, err
}

func (w *wire) Close() error {
	w.closed.Store(true)
	return w.Conn.Close()
}

// conn is one connection. It is used by one goroutine at a time.
type conn struct {
	driver  driver.Conn
	wire    *wire
	dialect dialect
	id      string    // of the session at the source
	theirs  time.Time // the source's clock when ours, which has a monotonic reading, was at ours
	ours    time.Time
	usedAt  time.Time
	spent   bool // the statements of an operator may have changed the session
	closing sync.Once
}

func (c *conn) broken() bool { return c.wire.closed.Load() }

// Of an [engine.Conn].
func (c *conn) Session() string   { return c.id }
func (c *conn) UsedAt() time.Time { return c.usedAt }
func (c *conn) Broken() bool      { return c.broken() }
func (c *conn) Spent() bool       { return c.spent }
func (c *conn) Close()            { c.close() }

func (c *conn) Probe(ctx context.Context) error {
	return c.compareClocks(ctx)
}

// close ends the connection without waiting for the source.
func (c *conn) close() {
	c.closing.Do(func() {
		_ = c.wire.SetDeadline(time.Now().Add(100 * time.Millisecond)) // of the word that it ends
		_ = c.driver.Close()
		_ = c.wire.Close()
	})
}

// compareClocks takes the time of the source. Measured against the moment the
// answer came, it is behind by the way back: a deadline told in it is early,
// never late.
func (c *conn) compareClocks(ctx context.Context) error {
	answer, err := c.run(ctx, "SELECT UNIX_TIMESTAMP(SYSDATE(6))")
	if err != nil {
		return err
	}
	now := time.Now()
	seconds, err := strconv.ParseFloat(answer.one(), 64)
	if err != nil {
		return errors.New("the source's clock cannot be read")
	}
	c.theirs, c.ours = time.UnixMicro(int64(seconds*1e6)), now
	return nil
}

// offset is the source's clock minus ours.
func (c *conn) offset() time.Duration { return c.theirs.Sub(c.ours) }

// sourceTime is a moment of ours on the source's clock, or a little earlier. That
// our clock was set since does not matter to moments with a monotonic reading.
func (c *conn) sourceTime(t time.Time) time.Time { return c.theirs.Add(t.Sub(c.ours)) }

// run sends SQL as one message and answers the rows of those of its statements
// that give rows. The source stops at the first statement that fails; what those
// before it did is done.
func (c *conn) run(ctx context.Context, sql string) (results, error) {
	if c.driver.(driver.SessionResetter).ResetSession(ctx) != nil { //nolint:forcetypeassert // every connection of the driver is one
		_ = c.wire.Close() // the source has ended it
	}
	if c.broken() || ctx.Err() != nil {
		return nil, errNotSent
	}
	c.wire.sent.Store(&ctx)
	defer c.wire.sent.Store(nil)
	rows, err := c.driver.(driver.QueryerContext).QueryContext(ctx, sql, nil) //nolint:forcetypeassert // every connection of the driver is one
	c.usedAt = time.Now()
	if err != nil {
		return nil, err
	}
	answers, err := readAll(rows)
	return answers, errors.Join(err, rows.Close())
}

func readAll(rows driver.Rows) (results, error) {
	var answers results
	for {
		if columns := len(rows.Columns()); columns > 0 {
			answer, err := readOne(rows, columns)
			if err != nil {
				return answers, err
			}
			answers = append(answers, answer)
		}
		more, ok := rows.(driver.RowsNextResultSet)
		if !ok || !more.HasNextResultSet() {
			return answers, nil
		}
		if err := more.NextResultSet(); errors.Is(err, io.EOF) {
			return answers, nil
		} else if err != nil {
			return answers, err
		}
	}
}

func readOne(rows driver.Rows, columns int) (answer [][]string, err error) {
	values := make([]driver.Value, columns)
	for {
		if err := rows.Next(values); errors.Is(err, io.EOF) {
			return answer, nil
		} else if err != nil {
			return nil, err
		}
		row := make([]string, columns)
		for i, v := range values {
			switch v := v.(type) {
			case nil:
			case []byte:
				row[i] = string(v)
			default:
				row[i] = fmt.Sprint(v)
			}
		}
		answer = append(answer, row)
	}
}

// results are the rows of the statements of one message, as texts; NULL is empty.
type results [][][]string

// last are the rows of the last statement that gives rows.
func (r results) last() [][]string {
	if len(r) == 0 {
		return nil
	}
	return r[len(r)-1]
}

// one is the first value of the last statement's first row; empty without one.
func (r results) one() string {
	if rows := r.last(); len(rows) > 0 && len(rows[0]) > 0 {
		return rows[0][0]
	}
	return ""
}

// message joins statements to one message.
func message(statements ...string) string { return strings.Join(statements, ";\n") }
