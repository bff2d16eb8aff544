// Package lease is the life of a credential: issued, renewed, revoked, expired, and found again
// after a crash. It keeps the laws L1 to L5: the lease row is durable before the source is touched,
// a revocation is tried until it is done, and nothing outlives its end.
//
// A row is the job: its due_at says when somebody must next look at it. There is no timer and no
// memory per lease; one scheduler sleeps until the next due moment and wakes a worker per engine,
// so that a dead source delays nobody else's leases.
package lease

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/clock"
	"github.com/scaivault/scaivault/internal/metrics"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	// grace is added to an issuance's deadline before anybody else looks at its row: what the
	// issuer itself still has to write down after the source answered at the last moment.
	grace = 2 * time.Second
	// lateLooks at a name whose issuance was uncertain, after it was found absent: belt and braces
	// for a source that executes late what Settle could not see.
	firstLateLook  = time.Minute
	secondLateLook = 10 * time.Minute
	// residueRetry is how often the drop of a powerless account is tried again.
	residueRetry = time.Hour
	// maxBackoff of one lease's revocation; an engine that is down is probed every maxProbe.
	maxBackoff = 5 * time.Minute
	maxProbe   = 5 * time.Second
	// storeRetry is the pause after the store failed.
	storeRetry = time.Second
	// claimRows is how many due rows a worker takes at once, in batches of batchRows. A claim is one
	// transaction, which the node's other writes wait for: twice as many made issuing beside a storm
	// half as slow again.
	claimRows = 200
	batchRows = 100
	// slowClocks is how long a credential stands in the list of what is revoked beyond its end: who
	// checks it may have a clock that is behind.
	slowClocks = time.Minute
	// batchesAtOnce at one source.
	batchesAtOnce = 2
)

// awake is what sleeping holds while the scheduler looks: it may have read the due moments already,
// so every new one makes it look again.
const awake = math.MaxInt64

// Identity is the lease manager's own, in the audit trail.
const Identity = "system:lease"

// Config of a Manager.
type Config struct {
	Store   store.Store
	Clock   *clock.Guard // of Store, which is it or goes by it
	Door    *access.Door
	Sources *source.Service
	Metrics *metrics.Metrics
	Logger  *slog.Logger
}

// Manager runs the leases of one node. Safe for concurrent use.
type Manager struct {
	store   store.Store
	door    *access.Door
	sources *source.Service
	metrics *metrics.Metrics
	log     *slog.Logger

	clock    *clock.Guard
	claimNo  atomic.Int64
	wake     chan struct{}
	sleeping atomic.Int64 // until when the scheduler sleeps, in Unix microseconds; awake while it looks

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	workers map[string]*worker
	waiting map[string][]chan struct{} // by lease id
	renews  map[string]bool            // leases being renewed on this node
	lists   map[string]*revocations    // of what is revoked, by engine id
}

// New makes a manager; Start sets it to work.
func New(c Config) *Manager {
	m := &Manager{store: c.Store, clock: c.Clock, door: c.Door, sources: c.Sources, metrics: c.Metrics, log: c.Logger,
		wake: make(chan struct{}, 1), workers: map[string]*worker{}, waiting: map[string][]chan struct{}{},
		renews: map[string]bool{}, lists: map[string]*revocations{}}
	m.sleeping.Store(awake)
	m.ctx, m.stop = context.WithCancel(context.Background())
	return m
}

// Start takes up what is due, whoever left it: expiries, retries, issuances that a crash cut off,
// fences not marked to their end. It does not read the leases that are not due. Call it once.
func (m *Manager) Start() {
	m.wg.Go(m.schedule)
	m.wg.Go(m.reconciles)
}

// Stop ends the work and waits for what is being done; rows keep their due moment. Safe twice.
func (m *Manager) Stop() {
	m.mu.Lock()
	m.stop() // under the lock, so that no worker starts after the wait began
	m.mu.Unlock()
	m.wg.Wait()
}

// Kick makes the scheduler look now.
func (m *Manager) Kick() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// due tells the scheduler of a moment that may be earlier than the one it sleeps until.
func (m *Manager) due(t time.Time) {
	if m.clock.Local(t).UnixMicro() < m.sleeping.Load() {
		m.Kick()
	}
}

// schedule wakes the engines' workers when something is due.
func (m *Manager) schedule() {
	for {
		next := m.look()
		m.sleeping.Store(next.UnixMicro())
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
		case <-m.wake:
			timer.Stop()
		case <-m.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// look starts the workers of what is due and tells when to look again.
func (m *Manager) look() time.Time {
	next := time.Now().Add(time.Minute)
	m.sleeping.Store(awake)
	if quarantine.Active(m.store.Config()) {
		return next // whoever ends the quarantine kicks
	}
	if err := m.markFences(m.ctx); err != nil && m.ctx.Err() == nil {
		m.log.Error("fences could not be marked, trying again", "error", err)
		next = time.Now().Add(time.Second)
	}
	if err := m.sources.DrainedAll(m.ctx); err != nil && m.ctx.Err() == nil {
		m.log.Error("engines that wait for their last lease could not be looked at, trying again", "error", err)
	}
	if m.clock.Doubtful() {
		m.hearSources()
		next = time.Now().Add(time.Second)
	}
	var due map[string]time.Time
	var now time.Time
	err := m.store.Read(m.ctx, func(r store.Reader) (err error) {
		now = r.Now()
		due, err = r.NextDue(now)
		return err
	})
	if err != nil {
		if m.ctx.Err() == nil {
			m.log.Error("due leases could not be read, trying again", "error", err)
		}
		return time.Now().Add(time.Second)
	}
	read := time.Now()
	for engineID, t := range due {
		// The wait is by the clock that says what is due, so that its end is never before that moment.
		if wait := t.Sub(now); wait <= 0 {
			m.work(engineID)
		} else if t = read.Add(wait); t.Before(next) {
			next = t
		}
	}
	return next
}

// wait registers for the end of a lease; cancel forgets it.
func (m *Manager) wait(id string) (done <-chan struct{}, cancel func()) {
	ch := make(chan struct{})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting[id] = append(m.waiting[id], ch)
	return ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		rest := m.waiting[id][:0]
		for _, c := range m.waiting[id] {
			if c != ch {
				rest = append(rest, c)
			}
		}
		if len(rest) == 0 {
			delete(m.waiting, id)
		} else {
			m.waiting[id] = rest
		}
	}
}

// ended wakes those who wait for a lease's end, or to know when that is.
func (m *Manager) ended(id string) {
	m.mu.Lock()
	chs := m.waiting[id]
	delete(m.waiting, id)
	m.mu.Unlock()
	for _, ch := range chs {
		close(ch)
	}
}
