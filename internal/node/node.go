// Package node puts a server together and runs it: store, seal, door, services, HTTP. It holds no
// rule of its own but the order in which things are opened and closed.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/config"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/statement"
)

// Options is what a node is started with besides its configuration.
type Options struct {
	Logger          *slog.Logger
	Version, Commit string
	// Engines are kinds of sources besides the built-in ones.
	Engines []engine.Type
	// Dev makes an administrator's token at each start, which Token answers, and revokes the one
	// of the start before. No bootstrap token is written.
	Dev bool
}

// Node is a running server.
type Node struct {
	config   *config.Config
	log      *slog.Logger
	token    statement.Secret
	listener net.Listener
	failed   chan error

	loops     sync.WaitGroup
	loopsCtx  context.Context
	stopLoops context.CancelFunc
	closers   []func(ctx context.Context) error // in the order in which things were opened
	closing   sync.Once
	closed    error
}

// Start opens the store and serves; when it returns requests are answered. ctx bounds the start
// only: the node runs until Shutdown. When it fails, what was opened is closed again.
func Start(ctx context.Context, c *config.Config, o Options) (_ *Node, err error) {
	n := &Node{config: c, log: o.Logger, failed: make(chan error, 3)}
	n.loopsCtx, n.stopLoops = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Shutdown(context.WithoutCancel(ctx)))
		}
	}()
	// First, so that a taken port is found out before the store is touched.
	if n.listener, err = listen(ctx, "tcp", c.BindAddress); err != nil {
		return nil, fmt.Errorf("listen for requests: %w", err)
	}
	n.onClose(func(context.Context) error { return ignoreClosed(n.listener.Close()) })
	metricsListener, err := n.listenMetrics(ctx)
	if err != nil {
		return nil, err
	}
	parts, err := n.assemble(ctx, o, metricsListener)
	if err != nil {
		return nil, err
	}
	if err := n.firstToken(ctx, parts, o.Dev); err != nil {
		return nil, err
	}
	if err := n.serveControl(ctx, parts, o.Version); err != nil {
		return nil, err
	}
	if err := n.serve(parts, metricsListener); err != nil {
		return nil, err
	}
	n.log.Info("ready", "url", n.URL(), "version", o.Version, "node", parts.store.Node(), "epoch", parts.store.Epoch())
	return n, nil
}

// firstToken makes the first administrator of a new store, and the token that the start gives.
func (n *Node) firstToken(ctx context.Context, p *parts, dev bool) error {
	first, err := p.identity.Bootstrap(ctx)
	if err != nil {
		return fmt.Errorf("make the first administrator: %w", err)
	}
	if dev {
		var token *identity.AdminToken
		if token, err = p.identity.NewAdminToken(ctx, "dev", true); err != nil {
			return fmt.Errorf("make the token of this start: %w", err)
		}
		n.token = token.Text
		return nil
	}
	n.loop(p.tokenFile.run)
	if first == nil {
		return nil
	}
	return p.tokenFile.write(first)
}

// Addr is where requests are answered.
func (n *Node) Addr() net.Addr { return n.listener.Addr() }

// URL is how callers reach the server.
func (n *Node) URL() string {
	switch {
	case n.config.BaseURL != "":
		return n.config.BaseURL
	case n.config.TLSCertFile != "":
		return "https://" + n.Addr().String()
	default:
		return "http://" + n.Addr().String()
	}
}

// Token is the administrator's token of a start with Options.Dev.
func (n *Node) Token() statement.Secret { return n.token }

// Failed gives why the node can no longer serve, if that happens.
func (n *Node) Failed() <-chan error { return n.failed }

// Shutdown takes no new requests, lets those in flight finish, issuances above all, and closes
// everything. When ctx ends it cuts off what is left. Safe to call twice.
func (n *Node) Shutdown(ctx context.Context) error {
	n.closing.Do(func() {
		var errs []error
		for _, closer := range slices.Backward(n.closers) {
			errs = append(errs, closer(ctx))
		}
		n.stopLoops()
		n.closed = errors.Join(errs...)
	})
	return n.closed
}

// onClose says how what was opened just now is closed: the last opened first.
func (n *Node) onClose(f func(ctx context.Context) error) { n.closers = append(n.closers, f) }

// loop runs f until the loops are stopped.
func (n *Node) loop(f func(ctx context.Context)) {
	n.loops.Go(func() { f(n.loopsCtx) })
}

// fail reports a listener that broke.
func (n *Node) fail(what string, err error) {
	if err != nil {
		n.log.Error("serving failed", "listener", what, "error", err)
		n.failed <- fmt.Errorf("serve %s: %w", what, err)
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
