package postgresql

import (
	"context"
	"maps"

	"github.com/scaivault/scaivault/internal/statement"
)

// PlanRoot implements engine.RootRotator. The role keeps its name: on 16 and
// later only the role that made an account may end it.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. It can be repeated, also when the
// source took the candidate and the answer was lost: then the candidate itself
// opens the connection by which the change is tried again.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	const attempt = "rotate the root credentials"
	login, err := readRoot(candidate)
	if err != nil {
		return err
	}
	e.mu.Lock()
	current := e.root
	e.mu.Unlock()
	if login.username != current.username {
		return misconfigured(attempt+": the role keeps its name; only its password changes", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	proof := e.pool.connector.as(login)
	prove := func() error {
		c, err := proof.connect(ctx, e.main())
		if err == nil {
			c.close()
		}
		return err
	}
	if e.pool.change(proof, prove) != nil { // else it was done before
		verifier := statement.Secret(statement.ScramSHA256(login.password, *e.config.ScramIterations, nil))
		err := e.inMain(ctx, e.main(), func(c *conn) error {
			return e.pool.change(proof, func() error {
				_, err := c.guarded(ctx, attempt, []fence{e.sameServer()}, message(
					// Two nodes must not take turns: the last to commit would win at
					// the source, and another in the store.
					"SELECT pg_advisory_xact_lock(1398164564::int8 << 32 | (SELECT oid::int8 FROM pg_roles WHERE rolname = current_user))",
					"ALTER ROLE CURRENT_USER PASSWORD "+statement.QuoteLiteral(verifier.Reveal())), verifier, login.password)
				if err != nil {
					return err
				}
				if err := prove(); err != nil {
					return uncertain(attempt+": the source took the new password and refuses it", err)
				}
				return nil
			})
		})
		if err != nil {
			return plain(err)
		}
	}
	e.mu.Lock()
	e.root = login
	e.mu.Unlock()
	return nil
}
