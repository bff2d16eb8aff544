package redis

import (
	"context"
	"time"
)

// Redis executes whatever arrives, however late, and a script may not call ACL.
// But a transaction fails if a key that it watches has expired, and the node
// compares with its own clock when it executes EXEC. So a user is made in a
// transaction behind a key that expires before the deadline: a node that was
// frozen, or a network that kept the message back, makes no user any more.
//
// A replica takes no key, and root may lack the right to set one. What comes
// late there is excluded by Settle alone, which ends the connection it would come
// on.
const fencePrefix = "scaivault:fence:"

// fenceKey is one that this node serves; empty if there is none.
func (m member) fenceKey(name string) string {
	switch {
	case m.replica:
		return ""
	case m.id == "":
		return fencePrefix + name
	}
	tag := tagFor(m.slots)
	if tag == "" {
		return ""
	}
	return fencePrefix + "{" + tag + "}:" + name
}

// raise sets a fence on the connection, and looks the name up. The key lives for
// half of the time that is left, counted from when the node set it; an answer
// that takes the other half is too late to go on. Without a fence the user is
// made all the same: a node that is out of memory, or whose root has fewer
// rights, still gives credentials.
func (m member) raise(ctx context.Context, c *conn, name string, deadline time.Time) (fenced bool, there reply, err error) {
	const attempt = "issue a credential"
	begun := time.Now()
	life := deadline.Sub(begun) / 2
	if life < time.Millisecond {
		return false, there, refused(attempt + ": the deadline has passed")
	}
	commands := []command{{"ACL", "GETUSER", name}}
	if key := m.fenceKey(name); key != "" {
		c.watches = true
		commands = append(commands, command{"SET", key, "", "PX", life.Milliseconds()}, command{"WATCH", key})
	}
	replies, err := c.send(ctx, commands...)
	if err != nil {
		return false, there, asked(attempt, err)
	}
	if time.Since(begun) > life {
		return false, there, unreachable(attempt+": the source answers too slowly to keep the deadline", nil)
	}
	if len(replies) == 1 {
		return false, replies[0], nil
	}
	c.watches = replies[2].err == nil
	return c.watches && replies[1].err == nil, replies[0], nil
}
