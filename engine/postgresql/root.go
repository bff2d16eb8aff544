package postgresql

import (
	"context"
	"errors"
	"maps"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// PlanRoot implements engine.RootRotator. The role keeps its name: on 16 and
// later only the role that made an account may end it.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	candidate := maps.Clone(e.options.Root)
	candidate["password"] = statement.Password(nil)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. It can be repeated, also when the
// source took the candidate and the answer was lost: then the present password
// is refused, and the candidate opens a connection. After the deadline of ctx
// the source itself refuses the change.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	login, err := engine.ReadLogin("root secret", candidate)
	if err != nil {
		return err
	}
	e.mu.Lock()
	current := e.root
	e.mu.Unlock()
	if login.Username != current.Username {
		return misconfigured(rotatingRoot+": the role keeps its name; only its password changes", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	err = e.alone(ctx, func() error { return e.setPassword(ctx, login) })
	var failed *engine.Error
	if errors.As(err, &failed) && failed.Kind == engine.Misconfigured {
		proof := e.pool.connector.as(login)
		if e.pool.change(proof, func() error { return e.prove(ctx, proof) }) == nil {
			err = nil // it was done before
		}
	}
	if err != nil {
		return plain(err)
	}
	e.mu.Lock()
	e.root = login
	e.mu.Unlock()
	failpoint.Hit(failpoint.RootProved)
	return nil
}

// alone runs f while nobody else changes the password of the same role, of this
// installation or another: two that took turns would leave at the source what
// one of them set, and in the store what the other did. The lock is held by a
// transaction, so that it holds, and ends, behind a pooler, too.
func (e *Engine) alone(ctx context.Context, f func() error) error {
	return e.inMain(ctx, e.main(), func(c *conn) error {
		answer, err := c.guarded(ctx, rotatingRoot, []fence{e.sameServer()}, message("BEGIN",
			"SELECT pg_try_advisory_xact_lock(1398164564::int8 << 32 | (SELECT oid::int8 FROM pg_roles WHERE rolname = current_user))"))
		if err != nil {
			return err
		}
		if answer.one() != "t" {
			err = busy(rotatingRoot+": somebody else is changing the password of this role", nil)
		} else {
			err = f()
		}
		_, _ = c.run(ctx, "ROLLBACK") // a connection on which it fails is not used again
		return err
	})
}

// setPassword changes the password and logs in with it.
func (e *Engine) setPassword(ctx context.Context, login engine.Login) error {
	verifier := statement.Secret(statement.ScramSHA256(login.Password, *e.config.ScramIterations, nil))
	proof := e.pool.connector.as(login)
	return e.inMain(ctx, e.main(), func(c *conn) error {
		fences := e.inTime(ctx, c)
		return e.pool.change(proof, func() error {
			_, err := c.guarded(failpoint.OnSending(ctx, failpoint.RootSent), rotatingRoot, fences,
				"ALTER ROLE CURRENT_USER PASSWORD "+statement.QuoteLiteral(verifier.Reveal()), verifier, login.Password)
			if err != nil {
				return err
			}
			failpoint.Hit(failpoint.RootSet)
			if err := e.prove(ctx, proof); err != nil {
				return uncertain(rotatingRoot+": the source took the new password and refuses it", err)
			}
			return nil
		})
	})
}

// prove logs in on a new connection.
func (e *Engine) prove(ctx context.Context, as *connector) error {
	c, err := as.connect(ctx, e.main())
	if err == nil {
		c.close()
	}
	return err
}
