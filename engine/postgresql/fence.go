package postgresql

import (
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// A fence is a statement ahead of a message that fails, and so undoes all of
// it, unless something holds at the moment at which the source executes it. A
// source that was frozen, or a proxy that kept a message back, executes late;
// no time-out on our side or theirs prevents that (facts of the measurements,
// A5), but a fence does.
type fence struct {
	condition string
	failed    func(attempt string) error // what to answer when it does not hold
}

// beforeDeadline holds while the source's clock is before a moment of ours.
func beforeDeadline(c *conn, deadline time.Time) fence {
	return fence{
		condition: "clock_timestamp() < " + timestamp(c.deadline(deadline)),
		failed: func(attempt string) error {
			return refused(attempt+": the deadline had passed when the source came to it", nil)
		},
	}
}

// sameServer holds on the server of this engine, while that takes changes:
// with a pooler or a floating address in between, a connection may have moved.
func (e *Engine) sameServer() fence {
	condition := "NOT pg_is_in_recovery()"
	if e.config.SourceID == "" {
		condition += " AND (SELECT system_identifier FROM pg_control_system())::text = " + statement.QuoteLiteral(e.source)
	}
	return fence{
		condition: condition,
		failed: func(attempt string) error {
			return wrongServer(attempt+": the source is a standby, or another server than the one the engine was opened on", nil)
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
			return nil, rawError{sentError(attempt, err, secrets...), err}
		}
		return answers, nil
	}
	conditions := make([]string, len(fences))
	for i, f := range fences {
		conditions[i] = "(" + f.condition + ")"
	}
	answers, err := c.run(ctx, "SELECT 1/("+strings.Join(conditions, " AND ")+")::int;\n"+sql)
	switch {
	case err == nil:
		return answers[1:], nil
	case len(answers) == 0 && code(err) == codeDivisionByZero:
		return nil, c.whichFence(ctx, attempt, fences, conditions)
	}
	return nil, rawError{sentError(attempt, err, secrets...), err}
}

// whichFence tells why a message was refused. What did not hold a moment ago
// does not hold now: deadlines stay passed.
func (c *conn) whichFence(ctx context.Context, attempt string, fences []fence, conditions []string) error {
	answer, err := c.run(ctx, "SELECT "+strings.Join(conditions, ", "))
	if err != nil {
		return refused(attempt+": a condition for it did not hold at the source", err)
	}
	for i, held := range answer.last()[0] {
		if held != "t" {
			return fences[i].failed(attempt)
		}
	}
	return refused(attempt+": a condition for it did not hold at the source", nil)
}

// rawError is an *engine.Error that still tells the driver's error to this
// package.
type rawError struct {
	mapped error
	raw    error
}

func (e rawError) Error() string   { return e.mapped.Error() }
func (e rawError) Unwrap() []error { return []error{e.mapped, e.raw} }
