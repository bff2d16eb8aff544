package lease

import (
	"sync/atomic"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// noSkew is how far two clocks may be apart and still count as one: less than what a question and
// its answer take on a slow network, and far less than any life.
const noSkew = 250 * time.Millisecond

// clock is the store's, which decides about the lives of leases: in the shared store the
// database's, which may differ from this node's. What is said to an engine, or waited for, is in
// this node's time; engines know how far their source's clock is from that.
type clock struct {
	ahead atomic.Int64 // of the store before this node, in nanoseconds
}

// set learns from a look at the store's clock that was begun at a moment of this node's.
func (c *clock) set(stores, begun time.Time) {
	ahead := stores.Sub(begun.Add(time.Since(begun) / 2))
	if ahead.Abs() < noSkew {
		ahead = 0
	}
	c.ahead.Store(int64(ahead))
}

// now is the store's time.
func (c *clock) now() time.Time {
	return time.Now().UTC().Truncate(time.Microsecond).Add(time.Duration(c.ahead.Load()))
}

// node is a moment of the store's in this node's time.
func (c *clock) node(t time.Time) time.Time { return t.Add(-time.Duration(c.ahead.Load())) }

// readClock compares the clocks. Where the store does not answer, the former comparison holds.
func (m *Manager) readClock() {
	begun := time.Now()
	if err := m.store.Read(m.ctx, func(r store.Reader) error {
		m.clock.set(r.Now(), begun)
		return nil
	}); err != nil && m.ctx.Err() == nil {
		m.log.Error("the store's clock could not be read", "error", err)
	}
}
