package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/engine"
)

var _ engine.Clock = (*Engine)(nil)

// Now implements engine.Clock: the time at the first node that tells it. It is asked anew, since
// what is known of the nodes may be some seconds old.
func (e *Engine) Now(ctx context.Context) (now time.Time, err error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return time.Time{}, plain(err)
	}
	err = unreachable("read the source's clock: no node answers", nil)
	for _, m := range members {
		if m.err != nil {
			continue
		}
		if now, err = m.clock(ctx); err == nil {
			return now, nil
		}
	}
	return time.Time{}, plain(err)
}

// clock asks one node. INFO has the time since 6.2, and is what root may call anyway.
func (n *node) clock(ctx context.Context) (now time.Time, err error) {
	err = n.pool.With(ctx, engine.Revoking, func(c *conn) error {
		replies, err := c.send(ctx, command{"INFO", "server"})
		if err != nil {
			return asked("read the clock of "+n.address, err)
		}
		if replies[0].err != nil {
			return connectError(ctx, replies[0].err)
		}
		us, err := strconv.ParseInt(information(replies[0].value)["server_time_usec"], 10, 64)
		if err != nil {
			return misconfigured("read the clock of "+n.address+": INFO does not tell the time", nil)
		}
		now = time.UnixMicro(us)
		return nil
	})
	return now, err
}
