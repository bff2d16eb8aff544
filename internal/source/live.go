package source

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	// rootCheckEvery bounds how long a new version of a root secret stays unseen.
	rootCheckEvery = time.Second
	// reopenAfter is how long a failure to open a source is answered from memory, so that a dead
	// source costs one connection attempt and not one per request.
	reopenAfter = time.Second
	// rootRetryEvery is how often a root secret that did not work is tried again: the source may
	// only not have been there.
	rootRetryEvery = 15 * time.Second
)

// Handle is a source in use. Release it when done; the connection lives on.
type Handle struct {
	engine.Engine
	root    int // version of the root secret that it was opened with
	release func()
}

// Release gives the handle back. Call it once.
func (h *Handle) Release() { h.release() }

// live is the open connection of one engine. What was opened stays in use until something newer
// has worked, and is closed when its last user has released it.
type live struct {
	opening chan struct{} // holds one token: who has it may open

	mu          sync.Mutex
	now         *opened
	rootChecked time.Time
	rootTried   int       // the version that was tried last
	rootTriedAt time.Time // when it did not work
	problem     string    // why the newest root secret is not in use
	tried       rootState // what there was to try at the last opening
	triedAt     time.Time
	failed      error // why the last opening failed
	suspect     bool  // a rotation's end is unknown: the root is proved anew before the next use
	down        bool  // the last operation did not reach the source
	dropped     bool  // nobody finds it any more: what is opened yet ends with its use
}

type opened struct {
	engine  engine.Engine
	version int64 // of the engine's configuration
	root    int   // version of the root secret
	users   int
	closed  bool // to be closed by the last user
}

// Acquire gives the open source of an engine, opening it when its configuration or its root secret
// changed. The error is an *engine.Error or a *fault.Error.
func (s *Service) Acquire(ctx context.Context, e *Engine) (*Handle, error) {
	l := s.liveOf(e)
	if h := l.use(e.Version, s.rootStale(l)); h != nil {
		return h, nil
	}
	select {
	case <-l.opening:
	default:
		if h := l.use(e.Version, false); h != nil { // somebody tries a newer root secret: until it works, this one does
			return h, nil
		}
		var err error
		if l, err = s.turn(ctx, e); err != nil {
			return nil, err
		}
	}
	defer l.done()
	if h := l.use(e.Version, s.rootStale(l)); h != nil {
		return h, nil
	}
	return s.refresh(ctx, l, e, false)
}

// turn waits until the caller may open the engine's source. It calls done afterwards.
func (s *Service) turn(ctx context.Context, e *Engine) (*live, error) {
	for {
		l := s.liveOf(e)
		select {
		case <-l.opening:
		case <-ctx.Done():
			return nil, &engine.Error{Kind: engine.Unreachable, Reason: "the source was still being connected to", Err: ctx.Err()}
		}
		l.mu.Lock()
		dropped := l.dropped
		l.mu.Unlock()
		if !dropped {
			return l, nil
		}
		l.done() // what the source is opened with from now on is in another place
	}
}

// done lets the next one open.
func (l *live) done() { l.opening <- struct{}{} }

// refresh opens the source again where that is needed, or in doubt; what is open stays in use where
// nothing newer works. The caller holds l.opening.
func (s *Service) refresh(ctx context.Context, l *live, e *Engine, doubt bool) (*Handle, error) {
	l.mu.Lock()
	current, wrong := l.now, l.rootTried
	doubt, l.suspect = doubt || l.suspect, false
	if time.Since(l.rootTriedAt) >= rootRetryEvery {
		wrong = 0
	}
	failed := l.failed
	if time.Since(l.triedAt) >= reopenAfter {
		failed = nil
	}
	l.mu.Unlock()

	usable := current != nil && current.version >= e.Version
	if !usable && failed != nil {
		if engine.KindOf(failed) != engine.Misconfigured {
			return nil, failed
		}
		state, err := s.rootState(ctx, e)
		if err != nil {
			return nil, err
		}
		if known, _ := l.known(state); known {
			return nil, failed
		}
	}
	if usable && !doubt {
		version, err := s.rootVersion(ctx, e)
		l.mu.Lock()
		l.rootChecked = time.Now()
		if err == nil && version == current.root {
			l.problem = ""
		}
		l.mu.Unlock()
		if err != nil || version == current.root || version == wrong || current.version > e.Version {
			if h := l.use(e.Version, false); h != nil {
				return h, nil
			}
		}
	}
	h, newest, err := s.connect(ctx, l, e, usable)
	if err != nil && usable {
		l.keeps(newest, err)
		if h := l.use(e.Version, false); h != nil {
			return h, nil
		}
	}
	return h, err
}

// connect opens the source with a root that it accepts and puts it in the place of what is open. It
// tells the newest version of the root secret. The caller holds l.opening.
func (s *Service) connect(ctx context.Context, l *live, e *Engine, usable bool) (h *Handle, newest int, err error) {
	found, err := s.reopen(ctx, e, usable)
	if err == nil || ctx.Err() == nil && aboutSource(err) {
		l.mu.Lock()
		l.tried, l.triedAt, l.failed = found.state, time.Now(), err
		l.mu.Unlock()
	}
	if err != nil {
		return nil, found.newest, err
	}
	s.noteRoot(ctx, e, found.version)
	h = l.replace(found.engine, e.Version, found.version)
	if found.version < found.newest {
		l.keeps(found.newest, found.refused)
	}
	return h, found.newest, nil
}

// aboutSource tells whether an opening would fail in the same way for another caller in the same second:
// not if it was the store that could not be read.
func aboutSource(err error) bool {
	var e *engine.Error
	return errors.As(err, &e) || fault.CodeOf(err) == fault.InvalidConfig
}

// keeps notes that what is open stays in use because the newest root does not work, and why.
func (l *live) keeps(newest int, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rootTried, l.rootTriedAt = newest, time.Now()
	l.problem = "the newest version of the root secret does not work: " + Reason(why)
}

// open connects to the source of e with a root secret. Where a store that cannot be read keeps another
// secret from the engine, that is the error, whatever the engine makes of it.
func (s *Service) open(ctx context.Context, e *Engine, root map[string]statement.Secret) (engine.Engine, error) {
	ctx, cancel := context.WithTimeout(ctx, e.Config.ConnectTimeout+e.Config.OperationTimeout)
	defer cancel()
	var unread error
	opened, err := e.kind.Open(ctx, engine.Options{
		Installation: s.store.Installation(), Tenant: e.Tenant, EngineID: e.ID, EngineName: e.Name,
		Node: s.store.Node(), Epoch: s.store.Epoch(), Accepted: e.doc.Accepted,
		Config: e.doc.Config, Root: root,
		Secret: func(ctx context.Context, path string) (map[string]statement.Secret, error) {
			data, _, err := s.secrets.ReadAs(ctx, identity(e), path)
			if fault.CodeOf(err) == fault.ServiceUnavailable {
				unread = err
			}
			return data, err
		},
		Roots: func(ctx context.Context, since time.Time) ([]engine.RootVersion, error) {
			versions, err := s.rootVersions(ctx, e, since)
			if fault.CodeOf(err) == fault.ServiceUnavailable {
				unread = err
			}
			return versions, err
		},
		MaxTTL: e.MaxTTL(), KeyTerms: e.doc.KeyTerms,
		Namer: s.namer, Dial: s.dial, Logger: s.log.With("engine", e.Name),
	})
	if err != nil && unread != nil {
		return nil, unread
	}
	return opened, err
}

// identity is the engine's own: only it reads the root secret.
func identity(e *Engine) *access.Caller {
	return access.System(e.Tenant, "dynamic:"+e.Name, "system:dynamic-engines")
}

// openNow gives the source open with the root secret's newest version, whenever that was looked at
// last. In doubt it is opened again whatever is open, so that a root that the source no longer accepts
// is found out. What is open stays in use where nothing newer works.
func (s *Service) openNow(ctx context.Context, e *Engine, doubt bool) (*Handle, error) {
	l, err := s.turn(ctx, e)
	if err != nil {
		return nil, err
	}
	defer l.done()
	return s.refresh(ctx, l, e, doubt)
}

// suspect has the root proved anew before the next use.
func (s *Service) suspect(e *Engine) {
	l := s.liveOf(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect, l.rootChecked = true, time.Time{}
}

// rootStale tells whether the root secret must be looked at again.
func (s *Service) rootStale(l *live) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.rootChecked) >= rootCheckEvery
}

// SecretChanged makes every engine look at its root secret before its next use.
func (s *Service) SecretChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lives {
		l.mu.Lock()
		l.rootChecked = time.Time{}
		l.mu.Unlock()
	}
}

func (s *Service) liveOf(e *Engine) *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[e.ID]
	if l == nil {
		l = &live{opening: make(chan struct{}, 1)}
		l.opening <- struct{}{}
		s.lives[e.ID] = l
	}
	return l
}

// use hands out what is open, if it is of that configuration, or of a newer one than the caller has
// seen, and need not be looked at again.
func (l *live) use(version int64, stale bool) *Handle {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.now
	if o == nil || o.version < version || stale {
		return nil
	}
	return l.handle(o)
}

func (l *live) handle(o *opened) *Handle {
	o.users++
	return &Handle{Engine: o.engine, root: o.root, release: func() {
		l.mu.Lock()
		o.users--
		last := o.closed && o.users == 0
		l.mu.Unlock()
		if last {
			o.engine.Close()
		}
	}}
}

// replace puts a newly opened source in the place of the present one.
func (l *live) replace(e engine.Engine, version int64, root int) *Handle {
	l.mu.Lock()
	old := l.now
	l.now = &opened{engine: e, version: version, root: root, closed: l.dropped}
	l.failed, l.problem, l.rootTried = nil, "", root
	l.rootChecked = time.Now()
	h := l.handle(l.now)
	idle := old != nil && old.users == 0
	if old != nil {
		old.closed = true
	}
	l.mu.Unlock()
	if idle {
		old.engine.Close()
	}
	return h
}

// promoted notes that what is open has changed its own root, which is this version now: it need not
// be opened again.
func (l *live) promoted(e engine.Engine, version int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now != nil && l.now.engine == e {
		l.now.root, l.rootTried, l.problem, l.rootChecked = version, version, "", time.Now()
	}
}

// Reopen makes the next use of an engine connect anew: the server behind it is not the one that it
// was opened on.
func (s *Service) Reopen(engineID string) { s.drop(engineID) }

// drop closes the engine's connection for good.
func (s *Service) drop(engineID string) {
	s.configs.Delete(engineID)
	s.mu.Lock()
	l := s.lives[engineID]
	delete(s.lives, engineID)
	s.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	old := l.now
	l.now, l.dropped = nil, true
	idle := old != nil && old.users == 0
	if old != nil {
		old.closed = true
	}
	l.mu.Unlock()
	if idle {
		old.engine.Close()
	}
}

// Close ends every connection that is not in use; the others end with their last use.
func (s *Service) Close() {
	s.mu.Lock()
	ids := make([]string, 0, len(s.lives))
	for id := range s.lives {
		ids = append(ids, id)
	}
	s.mu.Unlock()
	for _, id := range ids {
		s.drop(id)
	}
}

// Reason is what may be shown of an error from a source.
func Reason(err error) string {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return fault.From(err).Message
}

// Fault is an error from a source as the caller sees it: engine_unavailable when trying again may
// help, engine_error when the source refused.
func Fault(engineName string, err error) *fault.Error {
	var e *engine.Error
	if !errors.As(err, &e) {
		return fault.From(err)
	}
	code := fault.EngineError
	what := "the source of engine %s refused: %s"
	switch {
	case e.Kind == engine.Uncertain && e.Code != "":
		what = "the source of engine %s failed: %s"
	case e.Kind == engine.Unreachable, e.Kind == engine.Uncertain, e.Kind == engine.Busy:
		code, what = fault.EngineUnavailable, "the source of engine %s cannot be used now: %s"
	case e.Kind == engine.WrongServer:
		what = "engine %s reaches another server than before: %s"
	}
	f := fault.New(code, what, engineName, e.Reason).With("engine", engineName).With("reason", e.Reason).Because(e)
	if e.Code != "" {
		f = f.With("code", e.Code)
	}
	if code == fault.EngineUnavailable {
		f = f.After(5 * time.Second)
	}
	return f
}
