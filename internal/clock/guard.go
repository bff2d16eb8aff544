// Package clock guards the time by which credentials live and die (law L4). A clock that jumps, the
// machine's or the database's, forward or back, by minutes or by years, must revoke nothing early,
// nothing late, and bring nothing back.
//
// A [Guard] is a store whose Now is the agreed time: the store's clock, moved by a shift that is
// kept as a configuration object, so that all nodes go by the same one. While a process runs, its
// monotonic clock tells how much time passed; between two runs there is the last time recorded, and
// there are the clocks of the sources, whose distance was recorded while all was well. From these:
//
//   - Back is certain: a monotonic clock never runs ahead, and recorded time has been. The agreed
//     time goes on, by a shift. Between two runs, only a source knows how much time passed since it was
//     recorded: until one has told, nothing is issued, for it would lose of its life what is told then.
//   - Forward may be true: the machine may have slept, or the server been off. The agreed time goes
//     on by the monotonic clock, nothing is issued, and a source's clock is asked. If it went forward
//     as well, the store's clock is right; if not, the agreed time goes on by a shift.
//   - A clock that came right again ends the shift. So does an administrator's word.
package clock

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	// step is the least that counts as a jump while a process runs, and back.
	step = time.Minute
	// gap is how far after the last time recorded a start may find the clock and ask nobody, and how
	// far a source's clock may be, after a start, from what is expected of it.
	gap = 5 * time.Minute
	// drift is how far a transaction's time may be from what this process takes for the agreed time
	// before the clocks are compared out of turn, and how far the store's clock may be from it and count
	// as right, or a source's judgement be done without a shift.
	drift = time.Second
	// checkEvery is how often the clocks are compared without a cause, and the time is recorded.
	checkEvery = time.Minute
	// readTime bounds a comparison: an answer that took longer tells too little.
	readTime = 5 * time.Second
	// noSkew is how far two clocks may be apart and still count as one: less than what a question and
	// its answer take on a slow network, and far less than any life.
	noSkew = 250 * time.Millisecond
)

// Config of a Guard.
type Config struct {
	Store  store.Store
	Logger *slog.Logger
}

// Guard is a store that goes by the agreed time. Safe for concurrent use.
type Guard struct {
	store.Store
	door    *access.Door
	changed func()
	log     *slog.Logger
	wake    chan struct{}

	mu      sync.Mutex
	agreed  time.Time // at the moment at, which has a monotonic reading
	at      time.Time
	version int64         // of the shift that is gone by
	ahead   time.Duration // of the store's clock, shifted, before the agreed time, where nobody has judged yet
	unsure  bool          // the time that passed before the start is not known, and may be told
	alarmed bool
	saved   time.Time            // when the time was recorded
	heard   map[string]time.Time // when a source's clock was recorded

	judging sync.Mutex // one source at a time: the next finds what the first decided
}

// New makes the guard of a store. It knows the time from its Open on.
func New(c Config) *Guard {
	return &Guard{Store: c.Store, log: c.Logger, wake: make(chan struct{}, 1), heard: map[string]time.Time{}}
}

// Join completes the guard with what is built on it: the door, and who is to look again when the
// agreed time has jumped. It comes before Run.
func (g *Guard) Join(door *access.Door, changed func()) { g.door, g.changed = door, changed }

// Open compares the store's clock with the last time recorded. It comes before any use.
func (g *Guard) Open(ctx context.Context) error {
	var last time.Time
	raw, err := g.sample(ctx, func(r store.Reader) (err error) { last, err = recorded(r); return err })
	if err != nil {
		return err
	}
	shift, version := g.shift()
	said := raw.Add(shift)
	g.mu.Lock()
	g.version = version
	g.set(said)
	if said.Before(last.Add(-step)) || !last.IsZero() && said.After(last.Add(gap)) {
		g.set(last)
		g.ahead, g.unsure = said.Sub(last), true
	}
	g.mu.Unlock()
	return g.check(ctx)
}

// Run compares the clocks until ctx ends.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-g.wake:
		case <-ctx.Done():
			return
		}
		if err := g.check(ctx); err != nil && ctx.Err() == nil {
			g.log.Error("the store's clock could not be compared, trying again", "error", err)
		}
	}
}

// Now is the agreed time, as this node knows it without asking the store.
func (g *Guard) Now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now()
}

func (g *Guard) now() time.Time {
	return g.agreed.Add(time.Since(g.at)).Truncate(time.Microsecond)
}

func (g *Guard) set(now time.Time) { g.agreed, g.at = now.UTC(), time.Now() }

// Local is a moment of the agreed time in this process's time, for timers, contexts and engines. It
// carries a monotonic reading, so that a jump of the machine's clock does not move it.
func (g *Guard) Local(t time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	away := now.Sub(g.at) + g.agreed.Sub(now) // of the agreed time before the machine's clock
	if away.Abs() < noSkew {
		return now.Add(t.Sub(now.Round(0)))
	}
	return now.Add(t.Sub(g.agreed) - now.Sub(g.at))
}

// Settled is nil when the time is known, else why nothing may be given a life now.
func (g *Guard) Settled() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.doubtful() {
		return nil
	}
	if g.ahead <= step {
		return fault.New(fault.ServiceUnavailable,
			"the store's clock went back while the server was off, and no source's clock has told yet how much time passed: nothing is issued or renewed until one does, or the clock is set right").After(time.Second)
	}
	return fault.New(fault.ServiceUnavailable,
		"the store's clock went forward by %s and no source's clock has confirmed that yet: nothing is issued, renewed or ended by time until one does, the clock is set right, or an administrator runs: scaivault clock confirm",
		g.ahead.Round(time.Second)).After(time.Second)
}

// Doubtful tells whether sources are to be asked what time it is.
func (g *Guard) Doubtful() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.doubtful()
}

func (g *Guard) doubtful() bool { return g.unsure || g.ahead > step }

// agree is the agreed time of a transaction that has read the store's clock.
func (g *Guard) agree(raw time.Time) time.Time {
	shift, version := g.shift()
	said := raw.Add(shift)
	g.mu.Lock()
	defer g.mu.Unlock()
	if version > g.version { // decided by evidence or by an administrator, on this node or another
		g.learn(version, said)
		g.kick()
		return said
	}
	now := g.now()
	d := said.Sub(now)
	if d.Abs() > drift {
		g.kick()
	}
	if d.Abs() <= step {
		return said
	}
	g.ahead = max(d, 0)
	return now
}

// learn takes over what was decided elsewhere. What was recorded of the sources' clocks may have been
// given up by it.
func (g *Guard) learn(version int64, now time.Time) {
	g.version, g.ahead, g.unsure = version, 0, false
	g.set(now)
	clear(g.heard)
}

func (g *Guard) kick() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// sample reads the store's clock as it is at the return.
func (g *Guard) sample(ctx context.Context, more func(r store.Reader) error) (raw time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	var begun time.Time
	err = g.Store.Read(ctx, func(r store.Reader) error {
		raw, begun = r.Now(), time.Now()
		return more(r)
	})
	return raw.Add(time.Since(begun)), err
}
