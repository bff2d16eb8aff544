package redis

import (
	"context"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// PrepareRole implements engine.RolePreparer. The source is asked whether it
// knows every command and category: a user of the role is made, off and without
// a password, and ended, in one transaction.
func (e *Engine) PrepareRole(ctx context.Context, roleName string, er engine.Role) ([]string, error) {
	const attempt = "try the role's rules"
	r, ok := er.(*role)
	if !ok {
		return nil, misconfigured(attempt+": the role is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return nil, plain(err)
	}
	name := e.newName(roleName)
	user := append([]any{"ACL", "SETUSER", name, "reset", "resetchannels"}, r.arguments()...)
	err = firstError(onEach(members, func(m member) error {
		return m.pool.With(ctx, engine.Issuing, func(c *conn) error {
			replies, _, err := c.transact(ctx, user, command{"ACL", "DELUSER", name})
			if err != nil {
				return asked(attempt, err)
			}
			words, refused := said(replies[0].err)
			if refused && code(replies[0].err) == codeSyntax {
				return misconfigured("acl_rules: "+strings.TrimPrefix(words, "ERR "), nil)
			}
			return mapped(attempt, replies[0].err)
		})
	}))
	if err != nil {
		return nil, plain(err)
	}
	if r.outlives() {
		return []string{"credentials of this role may make users of their own (ACL SETUSER), which live on when the credential is revoked: add -acl after the other rules"}, nil
	}
	return nil, nil
}
