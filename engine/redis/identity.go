package redis

import (
	"context"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/internal/ident"

	"github.com/scaivault/scaivault/engine"
)

// Redis has no identity that survives a restart: its run id is a new one then.
// So the source is given one: a user who is off and has no password and no
// right, whose name is drawn once, signed by us, and saved with the other users.
// A server that was set up anew does not have it. Where source_id is configured,
// the operator's word stands in its place.
const (
	identityPrefix = "scaivault-source-"
	identityKind   = "src"
)

// identify finds the source's identity, or gives it one. Names sort by the time
// at which they were drawn, so that of two nodes that do this at once the
// earlier one's holds.
func (e *Engine) identify(ctx context.Context, members []member) error {
	marker, err := e.findIdentity(ctx, members)
	if err != nil {
		return err
	}
	if marker == "" {
		drawn := e.options.Namer.Mark(identityPrefix + strings.ToLower(strings.TrimPrefix(ident.New(identityKind), identityKind+"_")))
		if err := firstError(onEach(members, func(m member) error { return m.bear(ctx, drawn) })); err != nil {
			return err
		}
		if marker, err = e.findIdentity(ctx, members); err != nil {
			return err
		}
	}
	e.marker, e.source = marker, marker
	return nil
}

// findIdentity is the first of the identities that any node bears; empty if none
// does.
func (e *Engine) findIdentity(ctx context.Context, members []member) (string, error) {
	found := make([][]string, len(members))
	outcomes := onEach(members, func(m member) error {
		users, err := m.users(ctx)
		for _, u := range users {
			if strings.HasPrefix(u.name, identityPrefix) && e.options.Namer.OursMark(u.name) {
				i := slices.IndexFunc(members, func(other member) bool { return other.node == m.node })
				found[i] = append(found[i], u.name)
			}
		}
		return err
	})
	if err := firstError(outcomes); err != nil {
		return "", err
	}
	all := slices.Concat(found...)
	if len(all) == 0 {
		return "", nil
	}
	return slices.Min(all), nil
}

// bear gives a node the source's identity, saved.
func (m member) bear(ctx context.Context, marker string) error {
	err := m.pool.With(ctx, engine.Revoking, func(c *conn) error {
		_, err := c.do(ctx, "ACL", "SETUSER", marker, "reset")
		return mapped("mark the source as known", err)
	})
	if err != nil {
		return err
	}
	return m.persist(ctx)
}

// users lists all users of a node.
func (n *node) users(ctx context.Context) (users []account, err error) {
	err = n.pool.With(ctx, engine.Revoking, func(c *conn) error {
		answer, err := c.do(ctx, "ACL", "LIST")
		if err != nil {
			return asked("list the users", err)
		}
		users = readUsers(answer)
		return nil
	})
	return users, err
}

// firstError is what went wrong on any node that could be asked; where none
// could, why.
func firstError(outcomes []outcomeOf) error {
	var absent error
	reached := false
	for _, o := range outcomes {
		switch {
		case o.member.err != nil:
			absent = o.member.err
		case o.err != nil:
			return o.err
		default:
			reached = true
		}
	}
	if reached {
		return nil
	}
	return absent
}
