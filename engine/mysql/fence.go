package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// A fence is a statement ahead of others in a message that fails, so that none of
// these is executed, unless something holds at the moment at which the source
// comes to it. A source that was frozen, or a proxy that kept a message back,
// executes late; no time-out prevents that, but a fence does. What is made up of
// several statements has one before each.
type fence struct {
	condition string
	failed    func(attempt string) error // what to answer when it does not hold
	waits     bool                       // the others must be looked at after it
}

// stopUnless is the statement: a subquery of two rows is an error, and IF looks at
// it only where the condition does not hold.
func stopUnless(condition string) string {
	return "SELECT IF(" + condition + ", 1, (SELECT 1 UNION SELECT 2))"
}

// moment is a time of the source as its functions give it, in the session's zone.
func moment(t time.Time) string {
	return statement.QuoteMySQLText(t.UTC().Format("2006-01-02 15:04:05.000000"))
}

// beforeDeadline holds while the source's clock is before a moment of ours.
func beforeDeadline(c *conn, deadline time.Time) fence {
	return fence{
		condition: "SYSDATE(6) < " + moment(c.sourceTime(deadline)),
		failed: func(attempt string) error {
			return refused(attempt+": the deadline had passed when the source came to it", nil)
		},
	}
}

// takesChanges is a condition on the server: replicas are read_only, also where root
// could write on them.
const takesChanges = "CAST(@@GLOBAL.read_only AS CHAR) IN ('0', 'OFF')"

// sameServer holds on the server of this engine, and on what replaced it after a
// failover, while that takes changes. The account that bears the identity is
// replicated like all others.
func (e *Engine) sameServer() fence {
	condition := takesChanges
	if e.marker != "" {
		condition += " AND EXISTS (SELECT 1 FROM " + e.dialect.table() + " WHERE User = " + statement.QuoteMySQLText(e.marker) + " AND Host = '" + markerHost + "')"
	}
	return fence{
		condition: condition,
		failed: func(attempt string) error {
			return wrongServer(attempt+": the source takes no changes (read_only), or is another server than the one the engine was opened on", nil)
		},
	}
}

// inTime are the fences of what must not be executed after its time: it would take the place of what was set
// after it.
func (e *Engine) inTime(ctx context.Context, c *conn) []fence {
	fences := []fence{e.sameServer()}
	if deadline, ok := ctx.Deadline(); ok {
		fences = append(fences, beforeDeadline(c, deadline))
	}
	return fences
}

// guarded sends a message behind fences. The results are those of the message
// alone. The error is an *engine.Error; secrets are kept out of it.
func (c *conn) guarded(ctx context.Context, attempt string, fences []fence, sql string, secrets ...statement.Secret) (results, error) {
	if len(fences) == 0 {
		answers, err := c.run(ctx, sql)
		if err != nil {
			return nil, rawError{sentError(attempt, err, secrets...), err, true}
		}
		return answers, nil
	}
	stages := inStages(fences)
	var statements []string
	for _, stage := range stages {
		statements = append(statements, stopUnless(strings.Join(conditions(stage), " AND ")))
	}
	answers, err := c.run(ctx, message(append(statements, sql)...))
	switch stage := len(answers); {
	case err == nil:
		return answers[len(stages):], nil
	case stage < len(stages) && code(err) == codeManyRows:
		return nil, c.whichFence(ctx, attempt, stages[stage])
	}
	// Without an answer to a fence nobody knows how far it came.
	begun := len(answers) >= len(stages) || code(err) == 0
	return nil, rawError{sentError(attempt, err, secrets...), err, begun}
}

// inStages gives each fence that waits a statement of its own. Within one statement the
// source may look into tables before it waits.
func inStages(fences []fence) (stages [][]fence) {
	for i, f := range fences {
		if i == 0 || f.waits || fences[i-1].waits {
			stages = append(stages, nil)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], f)
	}
	return stages
}

func conditions(fences []fence) []string {
	texts := make([]string, len(fences))
	for i, f := range fences {
		texts[i] = "(" + f.condition + ")"
	}
	return texts
}

// whichFence tells why a message was refused. What did not hold a moment ago does
// not hold now: deadlines stay passed.
func (c *conn) whichFence(ctx context.Context, attempt string, fences []fence) error {
	if len(fences) == 1 {
		return fences[0].failed(attempt)
	}
	answer, err := c.run(ctx, "SELECT "+strings.Join(conditions(fences), ", "))
	if err != nil {
		return refused(attempt+": a condition for it did not hold at the source", err)
	}
	for i, held := range answer.last()[0] {
		if held != "1" {
			return fences[i].failed(attempt)
		}
	}
	return refused(attempt+": a condition for it did not hold at the source", nil)
}

// begun tells whether anything of a message that failed may have been executed.
func begun(err error) bool {
	var raw rawError
	return errors.As(err, &raw) && raw.begun
}

// A lock at the source is one that holds across engines, nodes and installations.
type lock string

func lockOf(what string) lock {
	const longest = 64
	name := "scaivault/" + what
	return lock(statement.QuoteMySQLText(name[:min(len(name), longest)]))
}

// taken is a condition that holds when the session has the lock, for which it waits
// some seconds. A session that ends gives it up.
func (l lock) taken(seconds int) fence {
	return fence{
		condition: fmt.Sprintf("GET_LOCK(%s, %d) = 1", l, seconds),
		failed: func(attempt string) error {
			return busy(attempt+": somebody else is at it", nil)
		},
		waits: true,
	}
}

func (l lock) release() string { return "DO RELEASE_LOCK(" + string(l) + ")" }

// exclusively runs f while the session has a lock.
func (e *Engine) exclusively(ctx context.Context, c *conn, attempt string, l lock, seconds int, f func() error) error {
	if _, err := c.guarded(ctx, attempt, []fence{l.taken(seconds)}, "SELECT 1"); err != nil {
		c.spent = true
		return err
	}
	err := f()
	if _, releaseErr := c.run(ctx, l.release()); releaseErr != nil {
		c.spent = true
	}
	return err
}
