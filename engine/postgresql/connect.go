package postgresql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// lockTimeout bounds the wait for a lock at the source, of whoever holds it.
const lockTimeout = 5 * time.Second

// checkInterval is how often the source looks whether we are still there while
// it works for us; a statement nobody waits for is then given up.
const checkInterval = time.Second

// maxIdle is how long a connection may rest before it is tried out, and its
// clock compared, ahead of use.
const maxIdle = time.Second

// connector makes connections to one source as one root.
type connector struct {
	base     *pgconn.Config // everything but the database
	settings map[string]string
	patience time.Duration // to make a connection
}

// newConnector translates a configuration into pgconn's. pgconn would take
// missing values from the environment and the home directory, so every value
// is set here, after it has parsed a text in which nothing is missing.
func newConnector(c *config, o engine.Options, root engine.Login, certs *tls.Config) (*connector, error) {
	base, err := pgconn.ParseConfig("host=localhost port=5432 user=x password=x database=x sslmode=disable passfile='' sslcert='' sslkey='' sslrootcert='' sslcertmode=allow sslnegotiation=postgres " +
		"target_session_attrs=any min_protocol_version=3.0 max_protocol_version=3.0 channel_binding=prefer require_auth='' connect_timeout=0 krbspn='' krbsrvname=''")
	if err != nil {
		return nil, misconfigured("prepare connections: an environment variable of libpq (PG...) stands in the way: unset it", err)
	}
	base.User, base.Password = root.Username, root.Password.Reveal()
	base.ConnectTimeout = c.ConnectTimeout.Std()
	base.DialFunc = o.Dial
	base.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // Dial resolves, and checks what it resolved
	base.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite

	places, verified := c.target.fallbacks(certs)
	base.Host, base.Port, base.TLSConfig, base.Fallbacks = places[0].Host, places[0].Port, places[0].TLSConfig, places[1:]
	if !verified {
		// Who has not proven who he is gets neither the password nor a hash of
		// it that can be used again, and must himself prove that he knows it.
		base.RequireAuth = "scram-sha-256"
	}

	milliseconds := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	return &connector{
		base:     base,
		patience: c.ConnectTimeout.Std(),
		settings: map[string]string{
			"application_name":                    applicationName(o.Installation, o.Node, o.Epoch),
			"client_encoding":                     "UTF8",
			"standard_conforming_strings":         "on",
			"search_path":                         "pg_catalog, pg_temp",
			"DateStyle":                           "ISO",
			"TimeZone":                            "UTC",
			"statement_timeout":                   milliseconds(c.OperationTimeout.Std()),
			"idle_in_transaction_session_timeout": milliseconds(c.OperationTimeout.Std()),
			"lock_timeout":                        milliseconds(min(lockTimeout, c.OperationTimeout.Std())),
			"client_connection_check_interval":    milliseconds(checkInterval),
		},
	}, nil
}

// limitTransactions uses what 17 added to bound a transaction as a whole.
func (c *connector) limitTransactions(version int) {
	if version >= 170000 {
		c.settings["transaction_timeout"] = c.settings["statement_timeout"]
	}
}

// connect opens a connection and compares the clocks.
func (c *connector) connect(ctx context.Context, at place) (*conn, error) {
	cfg := c.base.Copy()
	cfg.Database = at.database
	cfg.RuntimeParams = maps.Clone(c.settings)
	if at.maker != "" {
		cfg.RuntimeParams["role"] = at.maker // as an option: SET ROLE would look through all of root's memberships
	}
	opened := &conn{place: at, as: c}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { opened.notices = append(opened.notices, n) }
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	opened.pg = pg
	if err := opened.compareClocks(ctx); err != nil {
		opened.close()
		return nil, unreachable("connect to the source: it does not answer", err)
	}
	return opened, nil
}

// fallbacks are the ways to try, in order, and whether all of them verify who
// answers.
func (t target) fallbacks(certs *tls.Config) (ways []*pgconn.FallbackConfig, verified bool) {
	verified = t.sslmode == sslVerifyCA || t.sslmode == sslVerifyFull
	for _, h := range t.hosts {
		way := &pgconn.FallbackConfig{Host: h.host, Port: h.port}
		if t.sslmode != sslDisable {
			way.TLSConfig = tlsConfig(certs, t.sslmode, h.host)
		}
		ways = append(ways, way)
		if t.sslmode == sslDefault && engine.Loopback(h.host) {
			ways = append(ways, &pgconn.FallbackConfig{Host: h.host, Port: h.port})
		}
	}
	return ways, verified
}

// applicationName marks the connections of one node in one epoch.
func applicationName(installation, node string, epoch int64) string {
	return engine.ConnectionPrefix(installation, node) + strconv.FormatInt(epoch, 10)
}

// conn is one connection. It is used by one goroutine at a time.
type conn struct {
	place
	as      *connector // that made it
	pg      *pgconn.PgConn
	theirs  time.Time // the source's clock when ours, which has a monotonic reading, was at ours
	ours    time.Time
	usedAt  time.Time
	notices []*pgconn.Notice // of the present message
}

// compareClocks takes the time of the source. Measured against the moment the
// answer came, it is behind by the way back: a deadline told in it is early,
// never late.
func (c *conn) compareClocks(ctx context.Context) error {
	results, err := c.run(ctx, "SELECT extract(epoch FROM clock_timestamp())::text")
	if err != nil {
		return err
	}
	now := time.Now()
	seconds, err := strconv.ParseFloat(results.one(), 64)
	if err != nil {
		return errors.New("the source's clock cannot be read")
	}
	c.theirs, c.ours = time.UnixMicro(int64(seconds*1e6)), now
	return nil
}

// offset is the source's clock minus ours.
func (c *conn) offset() time.Duration { return c.theirs.Sub(c.ours) }

// deadline is a moment of ours on the source's clock, or a little earlier. That
// our clock was set since does not matter to moments with a monotonic reading.
func (c *conn) deadline(t time.Time) time.Time { return c.theirs.Add(t.Sub(c.ours)) }

// sourceTime is a moment of ours on the source's clock. Differences that are
// but the way of a message are left out.
func (c *conn) sourceTime(t time.Time) time.Time {
	offset := c.offset()
	return c.deadline(t).Add(offset.Round(time.Second) - offset)
}

// run sends SQL as one message, which is one transaction if it holds several
// statements and no transaction is open. With an error come the results of the
// statements before the one that failed; errNotSent says that the source never
// saw the message.
func (c *conn) run(ctx context.Context, sql string) (results, error) {
	c.notices = c.notices[:0]
	if c.pg.IsClosed() || ctx.Err() != nil {
		return nil, errNotSent
	}
	sent := c.pg.Exec(ctx, sql)
	failpoint.Sent(ctx)
	answers, err := sent.ReadAll()
	c.usedAt = time.Now()
	if n := len(answers); err != nil && n > 0 && answers[n-1].Err != nil {
		answers = answers[:n-1]
	}
	return answers, err
}

// errNotSent is told by ourselves: pgconn.SafeToRetry also holds for a
// connection that broke while the answer was read.
var errNotSent = errors.New("the connection was closed, or the time was over, before anything was sent")

// close ends the connection without waiting for the source.
func (c *conn) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = c.pg.Close(ctx) // it is closed either way
}

// protection tells how the connection is protected, for health.
func (c *conn) protection(mode string) string {
	if _, ok := c.pg.Conn().(*tls.Conn); !ok {
		return "none"
	}
	if mode == sslVerifyCA || mode == sslVerifyFull {
		return "verified"
	}
	return "unverified"
}

// results are the answers to the statements of one message.
type results []*pgconn.Result

// rows are the rows of a statement as texts; NULL is empty.
func (r results) rows(statement int) [][]string {
	var rows [][]string
	for _, values := range r[statement].Rows {
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = string(v)
		}
		rows = append(rows, row)
	}
	return rows
}

// last are the rows of the last statement.
func (r results) last() [][]string { return r.rows(len(r) - 1) }

// one is the first value of the last statement's first row; empty without one.
func (r results) one() string {
	if rows := r.last(); len(rows) > 0 && len(rows[0]) > 0 {
		return rows[0][0]
	}
	return ""
}

// message joins statements to one message.
func message(statements ...string) string {
	return strings.Join(statements, ";\n")
}

// timestamp is a moment as SQL.
func timestamp(t time.Time) string {
	return fmt.Sprintf("'%s'::timestamptz", t.UTC().Format("2006-01-02 15:04:05.999999Z07:00"))
}

// as is the same connector for other credentials.
func (c *connector) as(login engine.Login) *connector {
	other := *c
	other.base = c.base.Copy()
	other.base.User, other.base.Password = login.Username, login.Password.Reveal()
	return &other
}
