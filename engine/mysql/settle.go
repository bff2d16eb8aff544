package mysql

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const settling = "end late sessions"

// settlePatience is how long the sessions that settling ends get to be gone.
const settlePatience = 10 * time.Second

// Settle implements engine.Settler. The fence before every statement keeps what
// arrives late from being executed. What remains is what the source began in time
// and has not finished, because it was frozen or waits for a lock. So these sessions
// are ended and seen gone:
//   - those that this engine gave up;
//   - those of root that are now busy with one of the recipes' names, whichever node
//     or epoch they are of: a name is worked for by one node at a time.
//
// A session between two statements of a message shows neither; it is waited for,
// until it shows what it does or has ended. Sessions that work for others go on.
// Root may always end sessions of its own name.
func (e *Engine) Settle(ctx context.Context, _ string, raws []engine.Recipe) error {
	var names []string
	for _, raw := range raws {
		r, err := e.readRecipe(raw)
		if err != nil {
			return err
		}
		names = append(names, r.Username)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	given := e.pool.GivenUp()
	err := e.pool.With(ctx, engine.Revoking, func(c *conn) error { return e.endOwnSessions(ctx, c, names, given) })
	if err != nil {
		return asked(settling, err)
	}
	e.pool.Forget(given)
	return nil
}

func (e *Engine) endOwnSessions(ctx context.Context, c *conn, names []string, given map[string]time.Time) error {
	started, err := c.serverStart(ctx)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(settlePatience)
	told := map[string]bool{}
	for {
		sessions, err := e.ownSessions(ctx, c)
		if err != nil {
			return err
		}
		waiting := false
		for _, s := range sessions {
			at, abandoned := given[s.id]
			late := abandoned && !at.Before(started) || slices.ContainsFunc(names, func(name string) bool { return strings.Contains(s.statement, name) })
			waiting = waiting || late || s.between()
			if !late || told[s.id] {
				continue
			}
			told[s.id] = true
			if err := c.kill(ctx, s.id); err != nil {
				return err
			}
		}
		if !waiting {
			return nil
		}
		if time.Now().After(deadline) {
			return busy(settling+": they were told to end and are still there", nil)
		}
		select {
		case <-ctx.Done():
			return busy(settling+": they were told to end and are still there", ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// session is one of root's own, as the source shows it.
type session struct{ id, command, statement string }

// between tells whether it executes something that it does not show yet, or no more.
func (s session) between() bool { return s.command == "Query" && s.statement == "" }

// ownSessions are the sessions of root but the one that asks.
func (e *Engine) ownSessions(ctx context.Context, c *conn) ([]session, error) {
	e.mu.Lock()
	root := e.root.Username
	e.mu.Unlock()
	answer, err := c.guarded(ctx, settling, []fence{e.sameServer()},
		"SELECT ID, COMMAND, INFO FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND USER = "+statement.QuoteMySQLText(root))
	if err != nil {
		return nil, err
	}
	var sessions []session
	for _, row := range answer.last() {
		sessions = append(sessions, session{row[0], row[1], row[2]})
	}
	return sessions, nil
}

// serverStart is when the server was started, on our clock: ids of sessions are
// given anew from then on.
func (c *conn) serverStart(ctx context.Context) (time.Time, error) {
	answer, err := c.guarded(ctx, settling, nil, "SHOW GLOBAL STATUS LIKE 'Uptime'")
	if err != nil {
		return time.Time{}, err
	}
	if rows := answer.last(); len(rows) == 1 {
		if seconds, err := strconv.Atoi(rows[0][1]); err == nil {
			return time.Now().Add(-time.Duration(seconds+1) * time.Second), nil
		}
	}
	return time.Time{}, refused(settling+": the source does not tell when it was started", nil)
}
