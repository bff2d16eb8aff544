package clock

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// Identity is the guard's own, in the audit trail.
const Identity = "system:clock"

const (
	id      = "clock"
	timeKey = "clock/time"
)

// state is the shift, as a configuration object; its version tells of every decision.
type state struct {
	Shift time.Duration `json:"shift"` // of the agreed time before the store's clock, in nanoseconds
}

func (g *Guard) shift() (time.Duration, int64) {
	o := g.Config().Object(store.DefaultTenant, store.KindSystem, id)
	if o == nil {
		return 0, 0
	}
	s, err := store.Decode[state](o)
	if err != nil {
		return 0, o.Version
	}
	return s.Shift, o.Version
}

// check compares the clocks, decides what needs no evidence, and records the time.
func (g *Guard) check(ctx context.Context) error {
	due, witness := false, false
	raw, err := g.sample(ctx, func(r store.Reader) (err error) {
		if due, err = anyDue(r); err == nil && g.Doubtful() {
			witness, err = g.anyDistance(r)
		}
		return err
	})
	if err != nil {
		return err
	}
	shift, version := g.shift()
	g.mu.Lock()
	now, said := g.now(), raw.Add(shift)
	d, rest := said.Sub(now), now.Sub(raw)
	most := step
	if g.unsure {
		most = gap // as at the start
	}
	right := version == g.version && shift != 0 && (rest.Abs() <= drift || shift.Abs() > step && rest.Abs() <= step)
	switch {
	case version > g.version:
		g.learn(version, said)
		d = 0
	case right:
		// What has begun to live by a time that lagged would die early by a time that does not: the rest
		// stays. Nothing has where the time is not known.
		if rest.Abs() <= drift || g.unsure {
			rest = 0
		}
		g.unsure = false
	case d >= -step && d <= most:
		g.set(said)
		g.ahead, g.unsure, d = 0, false, 0
	default:
		g.ahead = max(d, 0)
		g.unsure = g.unsure && (d > 0 || witness || !due)
	}
	unsure := g.unsure
	record := time.Since(g.saved) >= checkEvery
	g.mu.Unlock()
	switch {
	case right:
		return g.follow(ctx, rest, "the store's clock is right again")
	case d != 0 && !due && (shift == 0 || unsure): // nothing waits for a moment that could come too early, or too late
		return g.move(ctx, said, true)
	case d < 0 && !unsure:
		return g.follow(ctx, rest, "the store's clock went back: the agreed time goes on without it")
	}
	g.alarm(d)
	if record {
		return g.record(ctx, g.Now())
	}
	return nil
}

// errBusy is why an idle move did not happen.
var errBusy = errors.New("a row waits for a moment of the former time")

// move lets the agreed time jump. It is recorded before anything lives by it, so that no start finds
// moments that are years away from a time that it takes for the present. An idle move happens only
// where nothing is due: that is asked, and the time is set, inside the transaction, so that what is
// written before it is seen, and what is written after it goes by the new time. How far the sources'
// clocks are from that is not known.
func (g *Guard) move(ctx context.Context, to time.Time, idle bool) error {
	at := time.Now()
	g.mu.Lock()
	agreed, when, ahead, unsure := g.agreed, g.at, g.ahead, g.unsure
	g.mu.Unlock()
	err := g.Store.Write(ctx, func(tx store.Tx) error {
		if due, err := anyDue(tx); err != nil || idle && due {
			return cmp.Or(err, errBusy)
		}
		now := to.Add(time.Since(at))
		if err := putTime(tx, now); err != nil {
			return err
		}
		if idle {
			if err := g.dropDistances(tx); err != nil {
				return err
			}
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.set(now)
		g.ahead, g.unsure, g.saved = 0, false, time.Now()
		if idle {
			clear(g.heard)
		}
		return nil
	})
	if err != nil {
		g.mu.Lock()
		g.agreed, g.at, g.ahead, g.unsure = agreed, when, ahead, unsure
		g.mu.Unlock()
		if errors.Is(err, errBusy) {
			g.kick()
			return nil
		}
		return err
	}
	g.alarm(0)
	return nil
}

// alarm tells once of a jump that nobody has judged, and calls whoever goes by the time.
func (g *Guard) alarm(d time.Duration) {
	g.mu.Lock()
	held := g.doubtful()
	first := held && !g.alarmed
	changed := held != g.alarmed
	g.alarmed = held
	g.mu.Unlock()
	switch {
	case first && d > 0:
		g.log.Error("the store's clock went forward: what ends by it is held back, and nothing is issued, until a source's clock or an administrator confirms it", "by", d.Round(time.Second))
	case first:
		g.log.Error("the store's clock went back while the server was off: nothing is issued until a source's clock tells how much time passed", "by", -d.Round(time.Second))
	}
	if changed && g.changed != nil {
		g.changed()
	}
}

// follow makes all nodes go by another shift, unless one of them was faster.
func (g *Guard) follow(ctx context.Context, shift time.Duration, why string) error {
	moved, known := false, int64(-1)
	err := g.Store.Write(ctx, func(tx store.Tx) error {
		g.forget(&known) // of a run before
		moved = false
		before, version := g.shift()
		if g.known() != version || before == shift {
			return nil
		}
		moved = true
		if err := putShift(tx, shift, version); err != nil {
			return err
		}
		// Known before it is committed: a transaction that finds the shift, and does not know it, takes
		// all doubts for settled.
		known = version
		g.mu.Lock()
		g.version = version + 1
		g.mu.Unlock()
		return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "system_clock", IdentityType: "system", IdentityID: Identity, SecretPath: Path,
			Success: true, ExtraData: map[string]any{"shift_seconds": int64(shift / time.Second), "why": why}})
	})
	if err != nil {
		g.forget(&known)
		return err
	}
	if moved {
		g.log.Error("the time by which leases live stands otherwise to the store's clock than before", "why", why, "shift", shift.Round(time.Second))
		g.mu.Lock()
		g.ahead = 0
		g.mu.Unlock()
	}
	return nil
}

// forget takes a version back that was not committed: the one after known, -1 for none.
func (g *Guard) forget(known *int64) {
	if *known < 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.version, *known = *known, -1
}

func (g *Guard) known() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.version
}

// putShift writes a shift down, unless another was written meanwhile.
func putShift(tx store.Tx, shift time.Duration, version int64) error {
	doc, err := json.Marshal(state{shift})
	if err != nil {
		return err
	}
	return tx.PutObject(&store.Object{Tenant: store.DefaultTenant, Kind: store.KindSystem, ID: id, Key: id, Doc: doc}, version)
}

// record keeps the agreed time, for the next start.
func (g *Guard) record(ctx context.Context, now time.Time) error {
	err := g.Store.WriteRelaxed(ctx, func(tx store.Tx) error { return putTime(tx, now) })
	if err == nil {
		g.mu.Lock()
		g.saved = time.Now()
		g.mu.Unlock()
	}
	return err
}

func putTime(tx store.Tx, now time.Time) error {
	doc, err := now.MarshalText()
	if err != nil {
		return err
	}
	return tx.PutMeta(timeKey, doc)
}

func recorded(r store.Reader) (last time.Time, err error) {
	doc, err := r.Meta(timeKey)
	if err == nil && len(doc) > 0 {
		err = last.UnmarshalText(doc)
	}
	return last, err
}

// anyDue tells whether any row leads to somebody's next look: every living lease does.
func anyDue(r store.Reader) (bool, error) {
	due, err := r.NextDue(r.Now())
	return len(due) > 0, err
}

func anyLiving(r store.Reader) (bool, error) {
	counts, err := r.LeaseCounts("")
	for _, c := range counts {
		if c.Status != api.LeaseRevoked && c.N > 0 {
			return true, err
		}
	}
	return false, err
}
