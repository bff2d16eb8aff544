package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/scaivault/scaivault/internal/server"
)

// serve answers requests and metrics.
func (n *Node) serve(p *parts, metricsListener net.Listener) error {
	var transport *tls.Config
	if n.config.TLSCertFile != "" {
		var err error
		if transport, err = server.TLS(n.config.TLSCertFile, n.config.TLSKeyFile, n.log); err != nil {
			return err
		}
	}
	if metricsListener != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", p.metrics.Handler())
		n.serveSide("metrics", metricsListener, mux)
	}
	n.onClose(p.server.Shutdown)
	go func() { n.fail("requests", p.server.Serve(n.listener, transport)) }()
	return nil
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	var c net.ListenConfig
	return c.Listen(ctx, network, address)
}

func (n *Node) listenMetrics(ctx context.Context) (net.Listener, error) {
	if n.config.MetricsAddress == "" {
		return nil, nil
	}
	l, err := listen(ctx, "tcp", n.config.MetricsAddress)
	if err != nil {
		return nil, fmt.Errorf("listen for metrics (METRICS_ADDRESS, off for none): %w", err)
	}
	n.onClose(func(context.Context) error { return ignoreClosed(l.Close()) })
	return l, nil
}

// serveSide serves what is not for callers. A shutdown cuts it off.
func (n *Node) serveSide(what string, l net.Listener, h http.Handler) {
	ctx, stop := context.WithCancel(context.Background())
	s := &http.Server{BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	s.RegisterOnShutdown(stop)
	n.onClose(s.Shutdown)
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			n.fail(what, err)
		}
	}()
}

// controlFile is a socket in the data folder, by which commands on the host reach the running
// server: who can open it could read the store's files as well.
const controlFile = "control.sock"

const bootstrapTarget = "/bootstrap"

func (n *Node) serveControl(ctx context.Context, p *parts, release string) error {
	path := filepath.Join(n.config.DataDir, controlFile)
	// The data folder is locked by this process: a socket that is there is a dead one.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the old control socket: %w", err)
	}
	l, err := listen(ctx, "unix", path)
	if err != nil {
		// A path that is too long for a socket takes a command away, not the server.
		n.log.Warn("no control socket: scaivault bootstrap and backup work only while the server is stopped", "error", err)
		return nil
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("protect the control socket: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+bootstrapTarget, func(w http.ResponseWriter, r *http.Request) {
		if err := p.newBootstrapToken(r.Context()); err != nil {
			n.log.Error("control: make a bootstrap token", "error", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST "+backupTarget, n.serveBackup(p, release))
	n.serveSide("control", l, mux)
	return nil
}

// newBootstrapToken makes another administrator's token and puts it into the file.
func (p *parts) newBootstrapToken(ctx context.Context) error {
	token, err := p.identity.NewAdminToken(ctx, "bootstrap", false)
	if err != nil {
		return err
	}
	return p.tokenFile.write(token)
}
