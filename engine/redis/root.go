package redis

import (
	"context"
	"maps"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// PlanRoot implements engine.RootRotator. The user keeps its name.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. A user may have several passwords, so
// on every node the candidate is added and proved by a new connection before the
// former one goes: whatever is cut off, at least one of the two works, and it can
// be repeated. A node that is away would keep the former password alone, so all
// of them must be there.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := engine.ReadLogin("root candidate", candidate)
	if err != nil {
		return err
	}
	e.mu.Lock()
	current := e.root
	e.mu.Unlock()
	if next.Username != current.Username {
		return misconfigured(rotatingRoot+": the user keeps its name; only its password changes", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	e.forgetSurvey()
	members, err := e.survey(ctx)
	if err != nil {
		return plain(err)
	}
	for _, m := range members {
		if m.err != nil && len(members) > 1 {
			return busy(rotatingRoot+": "+m.address+" cannot be reached, and would be left with the former password: try again when it is back", m.err)
		}
	}
	// changed is called when a node has the change and has not saved it.
	change := func(changed func(), rules ...any) error {
		return firstError(onEach(members, func(m member) error {
			err := m.pool.With(ctx, engine.Revoking, func(c *conn) error {
				return c.changeRoot(ctx, append(command{"ACL", "SETUSER", next.Username}, rules...))
			})
			if err != nil {
				return err
			}
			changed()
			return m.persist(ctx)
		}))
	}
	prove := func() error {
		return firstError(onEach(members, func(m member) error {
			c, err := e.connector.connect(ctx, m.address, next)
			if err == nil {
				c.close()
			}
			return err
		}))
	}
	if prove() != nil { // else it was added before
		if err := change(func() { failpoint.Hit(failpoint.RootSet) }, hashRule(next.Password)); err != nil {
			return plain(err)
		}
		if err := prove(); err != nil {
			return uncertain(rotatingRoot+": the source took the new password and refuses it", err)
		}
	}
	e.mu.Lock()
	e.root = next
	e.mu.Unlock()
	if err := change(func() { failpoint.Hit(failpoint.RootProved) }, "resetpass", hashRule(next.Password)); err != nil {
		return plain(err)
	}
	return nil
}

func (c *conn) changeRoot(ctx context.Context, change command) error {
	_, err := c.do(failpoint.OnSending(ctx, failpoint.RootSent), change...)
	return mapped(rotatingRoot, err)
}
