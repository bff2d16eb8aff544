// Package server speaks HTTP: it turns requests into calls of the services, and their results and
// faults into answers. It decides nothing: who may do what is asked at the one door
// (internal/access), inside the services.
//
// A request comes in by the front (front.go), which refuses what two readers could understand in
// two ways; the mux finds the resource (resource.go) and its route (route.go); the area's handler
// makes one service call. To add an operation, add a line to its area's table.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/scaivault/scaivault/internal/access"
)

// Time-outs and sizes of the HTTP layer; handlers that take longer move their own.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 60 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 32 << 10
	maxStreams        = 100
)

// Config is what a Server is made of.
type Config struct {
	Services
	Door    Door
	Metrics Recorder
	Logger  *slog.Logger
	Limits  Limits
	System  System
}

// Door finds the caller of a bearer token: access.Door.
type Door interface {
	Authenticate(ctx context.Context, bearer, tenant string, o access.Origin) (*access.Caller, error)
}

// Recorder counts answers: metrics.Metrics.
type Recorder interface {
	Request(method, category string, status int, took time.Duration)
}

// Limits bound what callers may hold of the server at once. Zero fields take the default.
type Limits struct {
	InFlight   int // requests that are being worked on: 512
	Conns      int // connections: 4096
	PerAddress int // connections of one address: 512
}

// Server answers HTTP requests.
type Server struct {
	Services
	door    Door
	metrics Recorder
	logger  *slog.Logger
	system  System
	started time.Time
	// document and page are made once: whoever asks for them need not be known.
	document, page func() ([]byte, error)
	limits         Limits
	ready          readiness
	handler        http.Handler
	http           *http.Server

	mu       sync.Mutex
	inFlight int
	waiting  int // of these, who asked to wait long
	stopping bool
	idle     chan struct{} // closed when stopping and nothing is in flight
}

// New makes a server; Serve starts it.
func New(c Config) *Server {
	s := &Server{
		Services: c.Services,
		door:     c.Door,
		metrics:  c.Metrics,
		logger:   c.Logger,
		system:   c.System,
		started:  time.Now(),
		limits:   c.Limits.withDefaults(),
		idle:     make(chan struct{}),
	}
	s.document = sync.OnceValues(OpenAPI)
	s.page = sync.OnceValues(func() ([]byte, error) { return docsPage(s.routes()), nil })
	mux := http.NewServeMux()
	s.mount(mux, s.routes())
	s.handler = &front{server: s, next: mux}
	s.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		// A stranger's connection can cause net/http's own lines at will.
		ErrorLog:    slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		ConnContext: withWire,
		// OPTIONS * is answered by us, like every other path that is none of ours.
		DisableGeneralOptionsHandler: true,
	}
	return s
}

func (l Limits) withDefaults() Limits {
	if l.InFlight == 0 {
		l.InFlight = 512
	}
	if l.Conns == 0 {
		l.Conns = 4096
	}
	if l.PerAddress == 0 {
		l.PerAddress = 512
	}
	return l
}

// routes is every operation of the contract.
func (s *Server) routes() []route {
	return slices.Concat(
		s.secretRoutes(),
		s.rotationRoutes(),
		s.secretPolicyRoutes(),
		s.dynamicRoutes(),
		s.policyRoutes(),
		s.authRoutes(),
		s.auditRoutes(),
		s.systemRoutes(),
	)
}

// Handler is the server without a network, for tests.
func (s *Server) Handler() http.Handler { return s.handler }

// Serve answers requests on l until Shutdown, over TLS when config is given.
func (s *Server) Serve(l net.Listener, config *tls.Config) error {
	l = limitConns(l, s.limits)
	if config == nil {
		l = &strictListener{l}
	} else {
		l = tls.NewListener(l, config)
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// enter takes a place among the requests in flight; false when none is left or the server stops.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || s.inFlight >= s.limits.InFlight {
		return false
	}
	s.inFlight++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	if s.stopping && s.inFlight == 0 {
		close(s.idle)
	}
}

// beginWait takes one of the places for long waits, a quarter of those in flight; false when none is
// left.
func (s *Server) beginWait() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting >= max(s.limits.InFlight/4, 1) {
		return false
	}
	s.waiting++
	return true
}

func (s *Server) endWait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
}

// Drain refuses new work with 503 and waits until what is in flight has been answered, or ctx
// ends. Health is still answered, so that a balancer sees the node go. Safe to call twice.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		s.stopping = true
		if s.inFlight == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown drains the server and closes it. What is still in flight when ctx ends is cut off.
// Safe to call twice.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.Drain(ctx)
	if closing := s.http.Shutdown(ctx); closing != nil {
		err = errors.Join(err, s.http.Close())
	}
	return err
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}
