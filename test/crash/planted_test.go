package crash_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/planted"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// plantedFor is how long the real program with a fault is treated.
const plantedFor = 20 * time.Second

// plantFaults wants every known-bad build caught, and tells by what: the tests
// that make the moment, and the crash test itself where chance finds it.
func plantFaults(t *testing.T, s *summary) {
	t.Helper()
	for _, f := range planted.Faults() {
		t.Run(f.Name, func(t *testing.T) {
			row := plantedFault{name: f.Name}
			if f.Caught(t) {
				row.checks = append(row.checks, fmt.Sprintf("%s of %s", f.Check(), f.Package))
			} else {
				t.Errorf("%s: not caught by %s", f.Name, f.Check())
			}
			if f.Live {
				row.checks = append(row.checks, caughtLive(t, f)...)
			}
			s.planted = append(s.planted, row)
		})
	}
}

// caughtLive treats the real program with the fault as any other. What the
// oracle finds is what catches it.
func caughtLive(t *testing.T, f planted.Fault) (checks []string) {
	t.Helper()
	p := plan{seed: 1, lasts: plantedFor, settles: 30 * time.Second, rest: time.Millisecond,
		odds: []odds{{killNode, 100, 0, 0}}} // some in the midst of an issuance
	w := newEmbedded(t, vaulttest.StartProgram(t, f.Program(t)))
	w.treat(t, p)
	found := w.compare(t, p).wrong
	if len(found) == 0 {
		t.Errorf("%s: not caught by the crash test", f.Name)
	}
	for _, what := range found {
		checks = append(checks, "crash test: "+what)
	}
	return checks
}
