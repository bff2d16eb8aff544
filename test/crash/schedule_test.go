package crash_test

import (
	"math/rand/v2"
	"time"
)

// The kinds of trouble.
const (
	killNode     = "node killed (kill -9)"
	shortPause   = "node paused for less than a claim holds (SIGSTOP)"
	longPause    = "node paused for longer than a claim holds (SIGSTOP)"
	loseStore    = "node cut off from the store"
	loseSource   = "node cut off from the source"
	loseSources  = "source cut off from all nodes"
	killDatabase = "store's server killed (kill -9)"
)

// claimLimit is how long a node may be silent before its claims are void.
const claimLimit = 5 * time.Second

// step is one entry of a schedule.
type step struct {
	after  time.Duration // the step before
	kind   string
	victim int // of those that are not spared
	lasts  time.Duration
	fault  int // of a network
	bytes  int // after which a connection breaks
}

// schedule draws one step after the other from a seed: always the same number
// of values for each, so that a seed gives the same steps whatever comes of them.
type schedule struct {
	random *rand.Rand
	odds   []odds
}

// odds are the share of a kind of step among all, and how long it lasts.
type odds struct {
	kind     string
	share    int // of a hundred
	from, to time.Duration
}

// oddsOfOne and oddsOfThree are how often what happens to one node and to three,
// of a hundred steps.
var (
	oddsOfOne = []odds{
		{killNode, 70, 0, 400 * time.Millisecond},
		{shortPause, 8, 100 * time.Millisecond, claimLimit - 2*time.Second},
		{longPause, 2, claimLimit + time.Second, claimLimit + 3*time.Second},
		{loseSource, 20, 200 * time.Millisecond, 4 * time.Second},
	}
	oddsOfThree = []odds{
		{killNode, 55, 0, 2 * time.Second},
		{shortPause, 9, 100 * time.Millisecond, claimLimit - time.Second},
		{longPause, 5, claimLimit + time.Second, claimLimit + 4*time.Second},
		{loseStore, 10, 200 * time.Millisecond, claimLimit + 3*time.Second},
		{loseSource, 13, 200 * time.Millisecond, claimLimit + 3*time.Second},
		{loseSources, 4, 200 * time.Millisecond, 4 * time.Second},
		{killDatabase, 4, 0, 2 * time.Second},
	}
)

func (s *schedule) next() step {
	drawn := step{
		after:  200*time.Millisecond + time.Duration(s.random.Int64N(int64(1400*time.Millisecond))),
		victim: s.random.IntN(2),
		fault:  s.random.IntN(len(faults)),
		bytes:  1 + s.random.IntN(4000),
	}
	share, part := s.random.IntN(100), s.random.Float64()
	for _, o := range s.odds {
		if share -= o.share; share < 0 {
			drawn.kind, drawn.lasts = o.kind, o.from+time.Duration(part*float64(o.to-o.from))
			break
		}
	}
	return drawn
}
