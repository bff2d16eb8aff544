package custom

import (
	"fmt"
	"sync"
	"time"
)

const (
	// freeWaste is the processor time that a function may cost in failures before it is paused.
	freeWaste = time.Second
	// wasteShare is how many times the cost of a failure the pause after it is: what keeps failing has a
	// hundredth of one processor.
	wasteShare = 100
	maxPause   = 5 * time.Minute
)

// pauses keep a program that works hard and fails, such as one that loops or forks without end, from
// taking the processors of the host from everything else for as long as somebody asks for it. What counts
// is the processor time of failures in a row; a success ends the row. A function is paused for one role,
// so that a role whose program is broken leaves the others alone. It is safe for concurrent use.
type pauses struct {
	mu   sync.Mutex
	rows map[work]row
}

// work is what is paused as one.
type work struct{ function, role string }

// row is that of the failures since the last success.
type row struct {
	spent time.Duration
	until time.Time // it does not begin before
}

// pausable tells whether a function waits at all. What ends a credential, or looks for one, never does:
// the lease manager spaces its tries itself.
func (q *request) pausable() bool {
	switch q.Function {
	case functionIssue, functionRenew, functionCheck:
		return true
	}
	return false
}

// ready refuses to begin a function during its pause. The error is busy: nothing of the program ran.
func (p *pauses) ready(q *request) error {
	p.mu.Lock()
	until := p.rows[work{q.Function, q.Role}].until
	p.mu.Unlock()
	if left := time.Until(until); q.pausable() && left > 0 {
		return busy(fmt.Sprintf("%s is paused for %s: it failed, at much processor time; mend the program, the log has what it said",
			q.Function, max(left.Round(time.Second), time.Second)), nil)
	}
	return nil
}

// ended takes down how a function ended that cost so much processor time.
func (p *pauses) ended(q *request, spent time.Duration, well bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	of := work{q.Function, q.Role}
	if well || !q.pausable() {
		delete(p.rows, of)
		return
	}
	r := p.rows[of]
	if r.spent += spent; r.spent > freeWaste {
		r.until = time.Now().Add(min(wasteShare*spent, maxPause))
	}
	if p.rows == nil {
		p.rows = map[work]row{}
	}
	p.rows[of] = r
}
