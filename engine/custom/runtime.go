package custom

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// runtime runs the functions of one program or script. It is safe for concurrent use.
type runtime interface {
	// call runs one function to its end: when it returns, nothing of it is left running. It ends
	// within ctx, which has a deadline. The reply is at most maxReply bytes; whether it is JSON is
	// for the engine to find out. spent is the processor time that it cost. An error is a *failure.
	call(ctx context.Context, q *request) (reply json.RawMessage, spent time.Duration, err error)
	// functions are the optional functions that there are, where the runtime knows it by itself;
	// nil where only the program does, which then tells in its reply to check.
	functions() []string
	// close ends the runtime. No call is under way that anybody waits for.
	close()
}

// maxReply bounds what one call answers.
const maxReply = 1 << 20

// runtime makes the one that the configuration names. The error is an *engine.Error.
func (t Type) runtime(ctx context.Context, c *config, o engine.Options, log *slog.Logger) (runtime, error) {
	if c.Runtime == runtimeStarlark {
		return newStarlark(ctx, t.Host, c, o, log)
	}
	return newExecutable(t.Host, c, log)
}

// call runs one function of the program with what every function gets, and reads its reply into
// into. Of the calls under way one is kept for what is no issuance.
func (e *Engine) call(ctx context.Context, q *request, into any) error {
	ctx, cancel := context.WithTimeout(ctx, e.config.OperationTimeout.Std())
	defer cancel()
	done, err := e.turn(ctx, q.Function == functionIssue)
	if err != nil {
		return err
	}
	defer done()
	if err := e.pauses.ready(q); err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	q.Protocol, q.Engine, q.Installation = protocolVersion, e.options.EngineName, e.options.Installation
	q.Deadline = deadline.UTC().Truncate(time.Millisecond)
	q.Parameters.Engine = e.config.Parameters
	q.Root = e.options.Root
	reply, spent, err := e.runtime.call(ctx, q)
	if err != nil {
		err = e.broken(q, err)
	} else {
		err = e.read(q, reply, into)
	}
	e.pauses.ended(q, spent, err == nil || complained(err))
	return err
}

// turn waits until a call may begin.
func (e *Engine) turn(ctx context.Context, issue bool) (done func(), err error) {
	lanes := []chan struct{}{e.all}
	if issue {
		lanes = []chan struct{}{e.issuing, e.all}
	}
	for i, lane := range lanes {
		select {
		case <-e.closed:
			err = unreachable("the engine is closed", nil)
		case <-ctx.Done():
			err = busy("as many programs as max_open_connections allows are running", ctx.Err())
		case lane <- struct{}{}:
			continue
		}
		for _, taken := range lanes[:i] {
			<-taken
		}
		return nil, err
	}
	select {
	case <-e.closed: // a free lane does not open it again
		err = unreachable("the engine is closed", nil)
	default:
	}
	done = func() {
		for _, lane := range lanes {
			<-lane
		}
	}
	if err != nil {
		done()
		return nil, err
	}
	return done, nil
}
