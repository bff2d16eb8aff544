// Package crash_test kills the real server at random moments while many callers
// work, and compares afterwards what everybody knows: the callers, the store,
// the source and the audit chain.
//
// The short form runs with the other tests; `make crash` takes the full one:
//
//	SCAIVAULT_CRASH_KILLS    how often the server is killed (20)
//	SCAIVAULT_CRASH_ANSWERS  how many credentials must have been answered (5,000)
//	SCAIVAULT_CRASH_SECONDS  how long it goes on at least (0)
package crash_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// plan is how hard the server is treated.
type plan struct {
	kills, answers int
	atLeast        time.Duration
}

func planned(t *testing.T) plan {
	t.Helper()
	p := plan{kills: 4, answers: 400}
	for name, into := range map[string]*int{"SCAIVAULT_CRASH_KILLS": &p.kills, "SCAIVAULT_CRASH_ANSWERS": &p.answers} {
		*into = number(t, name, *into)
	}
	p.atLeast = time.Duration(number(t, "SCAIVAULT_CRASH_SECONDS", 0)) * time.Second
	return p
}

func number(t *testing.T, name string, absent int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return absent
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s is %q: give a number", name, text)
	}
	return n
}

// callers work at the same time.
const callers = 32

// Laws L1 and L7 under kill -9: no account without a lease, no credential that
// was answered and is not known, each of them usable or ended for a reason that
// is written down.
func TestKilledUnderLoad(t *testing.T) {
	for _, setup := range []struct {
		major int
		way   string
		form  string
	}{{17, functions, privileges}, {15, createRole, statements}} {
		t.Run(fmt.Sprintf("PostgreSQL %d %s %s", setup.major, setup.way, setup.form), func(t *testing.T) {
			p := planned(t) // one after the other: the machine is under load as it is
			w := newWorld(t, setup.major, setup.way, setup.form)
			w.work(t, p)
			w.settle(t)
			w.compare(t)
		})
	}
}

// work lets the callers work and kills the server again and again, at a random
// moment after some answers.
func (w *world) work(t *testing.T, p plan) {
	t.Helper()
	start := time.Now()
	stop := w.employ(t)
	for w.kills < p.kills || w.answered() < p.answers || time.Since(start) < p.atLeast {
		w.awaitAnswers(t, p.answers/max(p.kills, 1))
		within := 50 * time.Millisecond
		if w.kills%2 == 1 {
			w.awaitRotation()
			within *= 3 // before its end, or soon after
		}
		time.Sleep(rand.N(within))
		w.vault.Kill(t)
		w.kills++
		w.vault.Run(t)
	}
	stop()
}

// awaitRotation waits until the root is being rotated, so that some kills come in
// the midst of that.
func (w *world) awaitRotation() {
	for deadline := time.Now().Add(3 * rotateEvery); !w.rotating.Load() && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
}

// awaitAnswers waits for n more.
func (w *world) awaitAnswers(t *testing.T, n int) {
	t.Helper()
	for wanted, deadline := w.answered()+n, time.Now().Add(2*time.Minute); w.answered() < wanted; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("callers get no answers any more; the server's output: %s", tail(w.vault.Output()))
		}
	}
}

func tail(text string) string { return text[max(0, len(text)-4000):] }
