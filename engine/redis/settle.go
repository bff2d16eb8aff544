package redis

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// settleRest is how long a connection must have been silent to be ended, where
// nobody here knows whether it is in use.
const settleRest = time.Second

// Settle implements engine.Settler. The fence keeps most of what arrives late
// from being executed; the rest can only come on a connection that was given up.
// Redis executes one command at a time and forgets what it has not read of a
// connection when that is ended, so ending these connections excludes it:
//   - those of the node's earlier epochs, if the node is this one;
//   - those that this engine gave up;
//   - those of another node that are silent. One that is not has been answered
//     since, and a connection is never used again after an answer that did not
//     come.
//
// What was made in time may have been cut off before it was saved. It is saved
// here: what is looked up next must outlive a restart of the node.
//
// A node that cannot be reached is no obstacle: what it may still execute is
// ended when it is back, as all that the other nodes do not have (repair.go).
func (e *Engine) Settle(ctx context.Context, node string, raws []engine.Recipe) error {
	for _, raw := range raws {
		if _, err := e.readRecipe(raw); err != nil {
			return err
		}
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return plain(err)
	}
	err = firstError(onEach(members, func(m member) error {
		if err := e.settleOn(ctx, m, node); err != nil {
			return err
		}
		return m.persist(ctx)
	}))
	if err != nil {
		return plain(err)
	}
	return nil
}

func (e *Engine) settleOn(ctx context.Context, m member, node string) error {
	if node == e.options.Node {
		return e.settleOwn(ctx, m)
	}
	return e.settleOther(ctx, m, engine.ConnectionPrefix(e.options.Installation, node))
}

func (e *Engine) settleOwn(ctx context.Context, m member) error {
	given := m.pool.GivenUp()
	prefix, present := engine.ConnectionPrefix(e.options.Installation, e.options.Node), connectionName(e.options.Installation, e.options.Node, e.options.Epoch)
	err := m.endConnections(ctx, func(c client) bool {
		_, abandoned := given[c.name]
		return abandoned || strings.HasPrefix(c.name, prefix) && !strings.HasPrefix(c.name, present)
	})
	if err == nil {
		m.pool.Forget(given)
	}
	return err
}

// settleOther ends what is silent at once, and what becomes silent while we
// watch.
func (e *Engine) settleOther(ctx context.Context, m member, prefix string) error {
	for begun := time.Now(); ; {
		busyOnes := 0
		err := m.endConnections(ctx, func(c client) bool {
			if !strings.HasPrefix(c.name, prefix) {
				return false
			}
			if c.idle < settleRest {
				busyOnes++
			}
			return c.idle >= settleRest
		})
		if err != nil || busyOnes == 0 || time.Since(begun) > settleRest+settleRest/2 {
			return err
		}
		select {
		case <-ctx.Done():
			return unreachable("end late connections: the source did not answer in time", ctx.Err())
		case <-time.After(settleRest / 4):
		}
	}
}

// client is a connection as the source lists it.
type client struct {
	id   string
	name string
	idle time.Duration // in whole seconds
}

// endConnections ends the connections that are unwanted.
func (m member) endConnections(ctx context.Context, unwanted func(client) bool) error {
	const attempt = "end late connections"
	return m.pool.With(ctx, engine.Revoking, func(c *conn) error {
		answer, err := c.do(ctx, "CLIENT", "LIST")
		if err != nil {
			return asked(attempt, err)
		}
		var commands []command
		for _, other := range readClients(text(answer)) {
			if other.name != c.name && unwanted(other) {
				commands = append(commands, command{"CLIENT", "KILL", "ID", other.id})
			}
		}
		if len(commands) == 0 {
			return nil
		}
		replies, err := c.send(ctx, commands...)
		if err != nil {
			return asked(attempt, err)
		}
		for _, r := range replies {
			if r.err != nil {
				return sentError(attempt, r.err)
			}
		}
		return nil
	})
}

func readClients(answer string) []client {
	var all []client
	for line := range strings.SplitSeq(answer, "\n") {
		var c client
		for field := range strings.FieldsSeq(line) {
			name, value, _ := strings.Cut(field, "=")
			switch name {
			case "id":
				c.id = value
			case "name":
				c.name = value
			case "idle":
				seconds, _ := strconv.Atoi(value)
				c.idle = time.Duration(seconds) * time.Second
			}
		}
		if c.id != "" {
			all = append(all, c)
		}
	}
	return all
}
