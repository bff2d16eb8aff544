package rotation

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/metrics"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

// Need is what a secret needs that the scheduler has looked at.
type Need int

// The needs.
const (
	Nothing Need = iota // its moment was not come, or somebody else has taken it
	Value               // another value, now
	Person              // a person to write another value: its policy generates none
)

// Secrets is what the scheduler needs of the secrets: secret.Service.
type Secrets interface {
	// Take looks at a secret that is due; with [Value] it is the caller's alone for the time given.
	Take(ctx context.Context, tenant, path string, hold time.Duration) (Need, error)
	// RotateTaken rotates it, and writes a failure down to be tried again later; version_conflict
	// when somebody else was faster.
	RotateTaken(ctx context.Context, tenant, path string) error
}

const (
	// hold is how long a secret is left to who took it. One whose node died is taken again after it;
	// one that takes longer than that is rotated once all the same, by the version and the root's lock.
	hold = 30 * time.Second
	// lookEvery bounds how long what another node has scheduled stays unseen.
	lookEvery = 5 * time.Second
	// atOnce bounds the rotations of a node. It is large, since a source that hangs keeps its place
	// for the whole of its time-outs: it must not keep others from theirs.
	atOnce = 64
	// looked is how many secrets are looked at in one go.
	looked = 256
)

// Scheduler rotates what is due, on every node of a store. Each secret is rotated by one of them.
type Scheduler struct {
	store   store.Store
	secrets Secrets
	metrics *metrics.Metrics
	log     *slog.Logger

	wake chan struct{}
	room chan struct{} // a token for each rotation at work

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	busy map[string]bool // tenant and path of what this node works at
}

// NewScheduler makes a scheduler; Start sets it to work.
func NewScheduler(st store.Store, secrets Secrets, m *metrics.Metrics, log *slog.Logger) *Scheduler {
	s := &Scheduler{store: st, secrets: secrets, metrics: m, log: log, wake: make(chan struct{}, 1),
		room: make(chan struct{}, atOnce), busy: map[string]bool{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Start takes up what is due, also what was due while no node was there. Call it once.
func (s *Scheduler) Start() { s.wg.Go(s.run) }

// Stop takes nothing up any more and waits for what is at work. Safe twice.
func (s *Scheduler) Stop() {
	s.stop()
	s.wg.Wait()
}

// Health tells how far the rotations of all nodes are behind.
func (s *Scheduler) Health(ctx context.Context) (h api.RotationHealth, err error) {
	err = s.store.Read(ctx, func(r store.Reader) error {
		n, oldest, err := r.RotationsDue(r.Now())
		if h = (api.RotationHealth{Overdue: n}); n > 0 {
			h.OldestOverdueSeconds = int64(r.Now().Sub(oldest) / time.Second)
		}
		return err
	})
	return h, err
}

// Kick makes the scheduler look now.
func (s *Scheduler) Kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Scheduler) run() {
	for {
		timer := time.NewTimer(s.look(s.ctx))
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		case <-s.ctx.Done():
			timer.Stop()
			return
		}
	}
}

// look takes up what is due and tells how long there is nothing to do. What the store's clock says is
// due is due; only the pause is measured by this node's.
func (s *Scheduler) look(ctx context.Context) time.Duration {
	if quarantine.Check(s.store.Config()) != nil {
		return lookEvery
	}
	var secrets []*store.Secret
	var now time.Time
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		now = r.Now()
		secrets, err = r.SecretsToRotate(looked)
		return err
	})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("secrets to be rotated could not be read, trying again", "error", err)
		}
		return lookEvery
	}
	for _, sec := range secrets {
		if wait := sec.RotateDueAt.Sub(now); wait > 0 {
			return min(wait, lookEvery)
		}
		if !s.begin(ctx, sec.Tenant, sec.Path) {
			break
		}
	}
	if len(secrets) == looked {
		return time.Second // there is more; what was taken up has left the front by then
	}
	return lookEvery
}

// begin takes a secret up unless that is being done; false when ctx has ended.
func (s *Scheduler) begin(ctx context.Context, tenant, path string) bool {
	key := tenant + " " + path
	s.mu.Lock()
	busy := s.busy[key]
	s.busy[key] = true
	s.mu.Unlock()
	if busy {
		return true
	}
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	s.wg.Go(func() {
		s.work(ctx, tenant, path)
		s.mu.Lock()
		delete(s.busy, key)
		s.mu.Unlock()
		<-s.room
	})
	return true
}

// work looks at one secret and does what it needs.
func (s *Scheduler) work(ctx context.Context, tenant, path string) {
	need, err := s.secrets.Take(ctx, tenant, path, hold)
	switch {
	case err != nil:
		if ctx.Err() == nil {
			s.log.Error("a secret that is due could not be taken, trying again", "path", path, "error", err)
		}
		return
	case need == Person:
		s.log.Warn("a secret is to be rotated, and its policy generates no values: write a new version", "path", path)
		s.metrics.Rotation("warned")
		return
	case need == Nothing:
		return
	}
	switch err := s.secrets.RotateTaken(ctx, tenant, path); {
	case fault.CodeOf(err) == fault.VersionConflict:
	case err != nil:
		s.log.Warn("a secret could not be rotated, trying again later", "path", path, "error", fault.From(err).Message)
		s.metrics.Rotation("failed")
	default:
		s.metrics.Rotation("rotated")
		s.Kick()
	}
}
