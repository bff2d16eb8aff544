package server

import (
	"context"
	"maps"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
)

// System is what the server tells about itself and the node it runs on.
type System struct {
	Version, Commit string
	Node            string
	Epoch           int64
	// Checks are asked when readiness is: nil when well, else a constant text without a secret.
	Checks map[string]func(ctx context.Context) error
	// Inspect admits a caller to the detailed state, through the door.
	Inspect func(ctx context.Context, c *access.Caller) error
	// Engines are the states of all engines as last known; nil where there are none.
	Engines func(ctx context.Context, c *access.Caller) ([]api.EngineSummary, error)
	// Rotation tells how far the rotations are behind; nil where there are none.
	Rotation func(ctx context.Context) (api.RotationHealth, error)
}

const (
	// checkTimeout bounds all checks of readiness together.
	checkTimeout = 2 * time.Second
	// checkEvery is how long an answer of the checks is good: anybody may ask for readiness, and a
	// check writes to the store.
	checkEvery = time.Second
)

// readiness is the last answer of the checks.
type readiness struct {
	mu     sync.Mutex
	at     time.Time
	checks map[string]string
	ok     bool
}

func (s *Server) systemRoutes() []route {
	return []route{
		get("/health", "Tell that the process runs.", s.health).open().always(),
		get("/health/ready", "Tell whether requests can be served, check by check; 503 when not.", s.isReady).
			open().always().or(http.StatusServiceUnavailable),
		get("/health/detailed", "Tell the state of the node and of every engine.", s.detailed).needs(access.ScopeAdmin),
		op(http.MethodPost, "/sys/resume", http.StatusOK,
			"End the quarantine of a store that was restored or is an older copy.", s.resume).needs(access.ScopeAdmin),
		get("/sys/clock", "Tell the time by which leases live, beside the store's clock.", s.clock).needs(access.ScopeAdmin),
		act(http.MethodPost, "/sys/clock/confirm", http.StatusOK,
			"State that the store's clock, which jumped, is right.", s.confirmClock).needs(access.ScopeAdmin),
		get("/version", "Name the build.", s.version).open().always(),
		raw("/openapi.yaml", "application/yaml", "This contract in OpenAPI 3.1.", s.openapi),
		s.docsRoute(),
	}
}

func (s *Server) health(*call) (*api.Health, error) {
	return &api.Health{Status: "ok", Version: s.system.Version}, nil
}

func (s *Server) isReady(c *call) (*api.Readiness, error) {
	checks, ok := s.check(c.ctx)
	if !ok {
		c.status = http.StatusServiceUnavailable
	}
	return &api.Readiness{Status: s.status(ok), Checks: checks}, nil
}

// status sums the checks up. A store in quarantine is served from, so it is no failed check: who is
// to end the quarantine must get through.
func (s *Server) status(ok bool) string {
	q, err := s.quarantine()
	switch {
	case !ok || err != nil:
		return "not_ready"
	case q != nil && q.Active:
		return "quarantine"
	default:
		return "ready"
	}
}

func (s *Server) quarantine() (*api.Quarantine, error) {
	if s.Witness == nil {
		return nil, nil
	}
	return s.Witness.State()
}

func (s *Server) resume(c *call, req *api.ResumeRequest) (*api.Quarantine, error) {
	q, err := s.Witness.Resume(c.ctx, c.caller, req)
	if err == nil && q == nil {
		q = &api.Quarantine{} // it never was in any
	}
	return q, err
}

func (s *Server) clock(c *call) (*api.Clock, error) { return s.Clock.Show(c.ctx, c.caller) }

func (s *Server) confirmClock(c *call) (*api.Clock, error) { return s.Clock.Confirm(c.ctx, c.caller) }

// check is the state of every check of the node, at most a second old.
func (s *Server) check(ctx context.Context) (map[string]string, bool) {
	s.ready.mu.Lock()
	defer s.ready.mu.Unlock()
	if now := time.Now(); s.ready.checks == nil || now.Sub(s.ready.at) >= checkEvery {
		s.ready.checks, s.ready.ok = s.runChecks(ctx)
		s.ready.at = now
	}
	checks, ok := maps.Clone(s.ready.checks), s.ready.ok
	if s.isStopping() {
		checks["server"], ok = "stopping", false
	}
	return checks, ok
}

func (s *Server) runChecks(ctx context.Context) (map[string]string, bool) {
	// Its answer is for others, too: it does not end with the one who asked.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	checks, ok := make(map[string]string, len(s.system.Checks)), true
	for name, check := range s.system.Checks {
		checks[name] = "ok"
		if err := check(ctx); err != nil {
			s.logger.Warn("check failed", "check", name, "error", err)
			checks[name], ok = "failed: see the log of the server", false
		}
	}
	return checks, ok
}

func (s *Server) detailed(c *call) (*api.DetailedHealth, error) {
	if err := s.system.Inspect(c.ctx, c.caller); err != nil {
		return nil, err
	}
	checks, ok := s.check(c.ctx)
	quarantine, err := s.quarantine()
	if err != nil {
		return nil, err
	}
	engines := []api.EngineSummary{}
	if s.system.Engines != nil {
		if engines, err = s.system.Engines(c.ctx, c.caller); err != nil {
			return nil, err
		}
	}
	var rotation api.RotationHealth
	if s.system.Rotation != nil {
		if rotation, err = s.system.Rotation(c.ctx); err != nil {
			return nil, err
		}
	}
	var clock *api.Clock
	if s.Clock != nil {
		if clock, err = s.Clock.State(c.ctx); err != nil {
			return nil, err
		}
	}
	return &api.DetailedHealth{
		Status: s.status(ok), Version: s.system.Version, Node: s.system.Node, Epoch: s.system.Epoch,
		UptimeSeconds: int64(time.Since(s.started).Seconds()), Checks: checks, Engines: engines, Rotation: rotation,
		Clock: clock, Quarantine: quarantine,
	}, nil
}

func (s *Server) version(*call) (*api.Version, error) {
	return &api.Version{Version: s.system.Version, Commit: s.system.Commit, GoVersion: runtime.Version(), API: "v1"}, nil
}

func (s *Server) openapi(*call) ([]byte, error) { return s.document() }
