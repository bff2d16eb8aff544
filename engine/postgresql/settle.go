package postgresql

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// settlePatience is how long the sessions that settling ends get to be gone.
const settlePatience = 10 * time.Second

// Settle implements engine.Settler. The fence in every message keeps what
// arrives late from being executed. What remains is what the source began in
// time and has not finished, such as a commit that waits for a standby, of
// which nothing can be seen from outside. So these sessions are ended and seen
// gone:
//   - those of the node's earlier epochs, if the node is this one;
//   - those that this engine gave up while they were busy;
//   - those of the node that are now busy with one of the recipes' names.
//
// Sessions that work for other leases go on. Root may always end sessions of
// its own name.
func (e *Engine) Settle(ctx context.Context, node string, raws []engine.Recipe) error {
	var names []string
	for _, raw := range raws {
		r, err := e.readRecipe(raw)
		if err != nil {
			return err
		}
		names = append(names, statement.QuoteLiteral(r.Username))
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	given := e.pool.givenUp()
	err := e.inMain(ctx, e.main(), func(c *conn) error {
		return e.endOwnSessions(ctx, c, e.lateSessions(node, names, given))
	})
	if err != nil {
		return plain(err)
	}
	e.pool.forget(given)
	return nil
}

// lateSessions is a condition on pg_stat_activity.
func (e *Engine) lateSessions(node string, names []string, given map[uint32]time.Time) string {
	prefix := statement.QuoteLiteral(engine.ConnectionPrefix(e.options.Installation, node))
	conditions := []string{"false"}
	if len(names) > 0 {
		conditions = append(conditions, fmt.Sprintf("starts_with(application_name, %s) AND state <> 'idle' AND EXISTS (SELECT FROM unnest(ARRAY[%s]) n WHERE strpos(query, n) > 0)",
			prefix, strings.Join(names, ",")))
	}
	if node == e.options.Node {
		present := statement.QuoteLiteral(applicationName(e.options.Installation, node, e.options.Epoch))
		conditions = append(conditions, fmt.Sprintf("starts_with(application_name, %s) AND application_name <> %s", prefix, present))
		var pids []string
		for pid := range given {
			pids = append(pids, strconv.FormatUint(uint64(pid), 10))
		}
		if len(pids) > 0 {
			conditions = append(conditions, fmt.Sprintf("application_name = %s AND pid IN (%s)", present, strings.Join(pids, ",")))
		}
	}
	return "usename = current_user AND pid <> pg_backend_pid() AND ((" + strings.Join(conditions, ") OR (") + "))"
}

// endOwnSessions ends root's own sessions that meet a condition, and waits
// until they are gone.
func (e *Engine) endOwnSessions(ctx context.Context, c *conn, condition string) error {
	const attempt = "end late sessions"
	answer, err := c.guarded(ctx, attempt, []fence{e.sameServer()},
		"SELECT pid, extract(epoch FROM backend_start), pg_terminate_backend(pid) FROM pg_stat_activity WHERE "+condition)
	if err != nil {
		return err
	}
	var ended []string
	for _, row := range answer.last() {
		ended = append(ended, "("+row[0]+","+row[1]+")")
	}
	if len(ended) == 0 {
		return nil
	}
	// The same backend is told by its start: pids are used again.
	gone := "SELECT count(*) FROM pg_stat_activity WHERE (pid, extract(epoch FROM backend_start)) IN (" + strings.Join(ended, ",") + ")"
	deadline := time.Now().Add(settlePatience)
	for {
		answer, err := c.guarded(ctx, attempt, nil, gone)
		switch {
		case err != nil:
			return err
		case answer.one() == "0":
			return nil
		case time.Now().After(deadline):
			return busy(attempt+": they were told to end and are still there", nil)
		}
		select {
		case <-ctx.Done():
			return busy(attempt+": they were told to end and are still there", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
