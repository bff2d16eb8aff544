package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// connector makes connections to any node of one source.
type connector struct {
	config   *config
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	tls      *tls.Config  // nil: in clear
	name     string       // of every connection of this node in this epoch, before its number
	sentinel engine.Login // empty where the Sentinels ask for none
	numbered atomic.Int64
}

func newConnector(ctx context.Context, c *config, o engine.Options) (*connector, error) {
	made := &connector{config: c, dial: o.Dial, name: connectionName(o.Installation, o.Node, o.Epoch)}
	var err error
	if c.target.tls {
		if made.tls, err = c.TLS.Load(ctx, o); err != nil {
			return nil, err
		}
	}
	if c.SentinelCredentialsPath == "" {
		return made, nil
	}
	fields, err := o.Secret(ctx, c.SentinelCredentialsPath)
	if err != nil {
		return nil, misconfigured("read the secret of sentinel_credentials_path", err)
	}
	made.sentinel = engine.Login{Username: fields["username"].Reveal(), Password: fields["password"]}
	if made.sentinel.Password == "" {
		return nil, misconfigured("the secret of sentinel_credentials_path lacks its field password", nil)
	}
	return made, nil
}

// connectionName begins the names of the connections of one node in one epoch.
func connectionName(installation, node string, epoch int64) string {
	return engine.ConnectionPrefix(installation, node) + strconv.FormatInt(epoch, 10) + "/"
}

// connect opens one connection, logs in and names it. Nothing that changes the
// source is sent before it has a name.
func (c *connector) connect(ctx context.Context, address string, as engine.Login) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.ConnectTimeout.Std())
	defer cancel()
	socket, err := c.socket(ctx, address)
	if err != nil {
		return nil, connectError(ctx, err)
	}
	opened := &conn{wire: &wire{Conn: socket}, name: c.name + strconv.FormatInt(c.numbered.Add(1), 10)}
	opened.client = redis.NewClient(&redis.Options{
		Addr: address, Dialer: opened.wire.once,
		Protocol: 2, DisableIdentity: true, // nothing is sent that root needs a further right for
		PoolSize: 1, MaxRetries: -1, DialerRetries: 1, ConnMaxIdleTime: -1,
		ContextTimeoutEnabled: true, ReadTimeout: engine.MaxOperationTimeout, WriteTimeout: engine.MaxOperationTimeout,
	})
	if err := opened.introduce(ctx, as); err != nil {
		opened.close()
		return nil, connectError(ctx, err)
	}
	return opened, nil
}

// introduce logs in and names the connection. The driver would do both by
// itself, and lose the reason when it fails.
func (c *conn) introduce(ctx context.Context, as engine.Login) error {
	if as.Password != "" {
		auth := command{"AUTH", as.Username, as.Password.Reveal()}
		if as.Username == "" {
			auth = command{"AUTH", as.Password.Reveal()}
		}
		if _, err := c.do(ctx, auth...); err != nil {
			return err
		}
	}
	_, err := c.do(ctx, "CLIENT", "SETNAME", c.name)
	return err
}

func (c *connector) socket(ctx context.Context, address string) (net.Conn, error) {
	if err := c.config.mayDial(address); err != nil {
		return nil, misconfigured("connect to the source: "+err.Error(), nil)
	}
	socket, err := c.dial(ctx, "tcp", address)
	if err != nil || c.tls == nil {
		return socket, err
	}
	cfg := c.tls.Clone()
	if cfg.ServerName, _, err = net.SplitHostPort(address); err != nil {
		return nil, err
	}
	secured := tls.Client(socket, cfg)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf(handshaking+"%w", err)
	}
	return secured, nil
}

// wire is the one socket of a connection. The driver would silently make
// another when this one fails; here a connection that failed is over, because
// what was sent on it must be known (settle.go).
type wire struct {
	net.Conn
	used   atomic.Bool
	closed atomic.Bool
	sent   atomic.Pointer[context.Context] // of the present command
}

func (w *wire) once(context.Context, string, string) (net.Conn, error) {
	if w.used.Swap(true) || w.closed.Load() {
		return nil, errNotSent
	}
	return w, nil
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
	client  *redis.Client
	wire    *wire
	name    string
	usedAt  time.Time
	watches bool // a WATCH is open
	closing sync.Once
}

func (c *conn) broken() bool { return c.wire.closed.Load() }

// Of an [engine.Conn].
func (c *conn) Session() string   { return c.name }
func (c *conn) UsedAt() time.Time { return c.usedAt }
func (c *conn) Broken() bool      { return c.broken() }
func (c *conn) Spent() bool       { return c.watches }
func (c *conn) Close()            { c.close() }

func (c *conn) Probe(ctx context.Context) error {
	_, err := c.do(ctx, "CLIENT", "SETNAME", c.name)
	return err
}

func (c *conn) close() {
	c.closing.Do(func() {
		_ = c.client.Close() // it is over either way
		_ = c.wire.Close()
	})
}

// command is a command with its arguments, each of them sent as it is.
type command []any

// reply is what the source answered to one command.
type reply struct {
	value any
	err   error
}

// do sends one command.
func (c *conn) do(ctx context.Context, arguments ...any) (any, error) {
	replies, err := c.send(ctx, command(arguments))
	if err != nil {
		return nil, err
	}
	return replies[0].value, replies[0].err
}

// send sends commands in one go. An error is of the way there and back: nobody
// knows which of them were executed, but with errNotSent none was. What the
// source refuses is in its reply.
func (c *conn) send(ctx context.Context, commands ...command) ([]reply, error) {
	return c.carry(ctx, c.client.Pipeline(), commands)
}

// transact sends commands as a transaction. done is false where the source did
// none of them because of an open WATCH; the replies of a transaction that was
// refused as a whole all hold the same error.
func (c *conn) transact(ctx context.Context, commands ...command) (replies []reply, done bool, err error) {
	c.watches = false
	replies, err = c.carry(ctx, c.client.TxPipeline(), commands)
	if err == nil && errors.Is(replies[0].err, redis.TxFailedErr) {
		return nil, false, nil
	}
	return replies, true, err
}

func (c *conn) carry(ctx context.Context, pipe redis.Pipeliner, commands []command) ([]reply, error) {
	if c.broken() || ctx.Err() != nil {
		return nil, errNotSent
	}
	c.wire.sent.Store(&ctx)
	defer c.wire.sent.Store(nil)
	sent := make([]*redis.Cmd, len(commands))
	for i, arguments := range commands {
		sent[i] = pipe.Do(ctx, arguments...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	c.usedAt = time.Now()
	replies := make([]reply, len(sent))
	for i, cmd := range sent {
		value, err := cmd.Result()
		if errors.Is(err, redis.Nil) {
			value, err = nil, nil
		}
		if _, answered := said(err); err != nil && !answered {
			return nil, err
		}
		replies[i] = reply{value, err}
	}
	return replies, nil
}

// list reads an array of texts.
func list(value any) []string {
	items, _ := value.([]any)
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i], _ = item.(string)
	}
	return texts
}

// text reads one text.
func text(value any) string {
	s, _ := value.(string)
	return s
}
