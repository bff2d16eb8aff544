// Package crash_test kills, pauses and cuts off real servers at random moments
// while many callers work, and compares afterwards what everybody knows: the
// callers, the store, the source and the audit chains.
//
// The short form runs with the other tests; `make crash` takes the full one:
//
//	SCAIVAULT_CRASH_SECONDS  how long each store is treated so
//	-seed N                  the schedule of a former run
package crash_test

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the schedule; random when 0")

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// plan is how long the servers are treated, and how long they have afterwards to
// finish what was cut off. In the full form promises about time are held to: it
// has the machine for itself.
type plan struct {
	seed           uint64
	lasts, settles time.Duration
	odds           []odds        // of the steps
	rest           time.Duration // of a caller after a call, at most
	full           bool
}

func planned(t *testing.T) plan {
	t.Helper()
	p := plan{seed: *seedFlag, settles: 3 * time.Minute, rest: 60 * time.Millisecond}
	if p.seed == 0 {
		p.seed = rand.Uint64()>>1 + 1
	}
	if text := os.Getenv("SCAIVAULT_CRASH_SECONDS"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds <= 0 {
			t.Fatalf("SCAIVAULT_CRASH_SECONDS is %q: give a number", text)
		}
		p.lasts, p.full = time.Duration(seconds)*time.Second, true
	}
	t.Logf("seed %d", p.seed)
	return p
}

// Laws L1 to L5, L7 and L9 under kill -9, SIGSTOP and broken networks: no
// account without a lease, no credential that was answered and is not known,
// each of them usable or ended for a reason that is written down, none alive
// long after its end.
func TestChaos(t *testing.T) {
	s, p := newSummary(t), planned(t)
	run := func(name string, short time.Duration, odds []odds, begin func(t *testing.T) *world) {
		t.Run(name, func(t *testing.T) {
			p := p
			p.lasts, p.odds = cmp.Or(p.lasts, short), odds
			w := begin(t)
			w.treat(t, p)
			s.add(t, w.compare(t, p))
		})
	}
	run("embedded store", 5*time.Second, oddsOfOne, func(t *testing.T) *world {
		t.Helper()
		return newEmbedded(t, vaulttest.Start(t))
	})
	run("three nodes", 7*time.Second, oddsOfThree, func(t *testing.T) *world {
		t.Helper()
		return newShared(t, 3)
	})
	if p.full { // the short form is beside the packages that the faults are planted in
		t.Run("planted faults", func(t *testing.T) { plantFaults(t, s) })
	}
}

// treat lets the callers work while the servers are killed, paused and cut off,
// and then lets everything come to rest.
func (w *world) treat(t *testing.T, p plan) {
	t.Helper()
	rest := w.employ(t, p)
	seen := w.watch(t)
	w.disturb(t, p)
	rest()
	w.settle(t, p)
	seen()
}
