package custom

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// What keeps failing and costs much is not begun again for a hundred times its cost, at most five minutes;
// only that function of that role, and never what ends a credential.
func TestPause(t *testing.T) {
	t.Parallel()
	const role = "reader"
	for name, tt := range map[string]struct {
		costs []time.Duration // of failures
		want  time.Duration
	}{
		"one that costs little": {[]time.Duration{freeWaste}, 0},
		"many that cost little": {[]time.Duration{freeWaste / 2, freeWaste / 2, 20 * time.Millisecond}, 2 * time.Second},
		"a fork bomb":           {[]time.Duration{freeWaste, 300 * time.Millisecond}, 30 * time.Second},
		"a loop":                {[]time.Duration{15 * time.Second}, maxPause},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var p pauses
				issue := &request{Function: functionIssue, Role: role}
				for _, cost := range tt.costs {
					p.ended(issue, cost, false)
					p.ended(&request{Function: functionRevoke, Role: role}, cost, false)
				}
				if tt.want > 0 {
					time.Sleep(tt.want - time.Nanosecond)
					if err := p.ready(issue); engine.KindOf(err) != engine.Busy {
						t.Errorf("in its pause: %v", err)
					}
					for _, other := range []*request{{Function: functionIssue, Role: "other"}, {Function: functionRenew, Role: role}, {Function: functionRevoke, Role: role}} {
						if err := p.ready(other); err != nil {
							t.Errorf("%s for %s: %v", other.Function, other.Role, err)
						}
					}
					time.Sleep(time.Nanosecond)
				}
				if err := p.ready(issue); err != nil {
					t.Errorf("not in a pause: %v", err)
				}
				p.ended(issue, time.Millisecond, true)
				p.ended(issue, freeWaste/2, false)
				if err := p.ready(issue); err != nil {
					t.Errorf("a success did not end the row of failures: %v", err)
				}
			})
		})
	}
}
