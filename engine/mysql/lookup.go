package mysql

import (
	"context"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. An account is unlocked last, so one that is
// unlocked is whole.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var entries []account
	err = e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		found, err := e.accounts(ctx, c, "look a credential up", r.Username)
		entries = found[r.Username]
		return err
	})
	switch {
	case err != nil:
		return engine.Presence{}, asked("look a credential up", err)
	case len(entries) == 0:
		return engine.Presence{State: engine.Absent}, nil
	case !e.ours(entries, r.Unmarked):
		return engine.Presence{State: engine.Foreign}, nil
	case !slices.ContainsFunc(entries, func(a account) bool { return !a.locked }):
		return engine.Presence{State: engine.Unusable}, nil
	}
	return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
}

const renewing = "renew a credential"

// Renew implements engine.Renewer. The servers know no end of an account: what is
// moved is the event that ends it, where there is one, and what the operator's
// statements say.
func (e *Engine) Renew(ctx context.Context, raw engine.Recipe, until time.Time) error {
	r, err := e.readRecipe(raw)
	if err != nil {
		return err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	return plainOrNil(e.pool.With(ctx, engine.Issuing, func(c *conn) error { return e.renew(ctx, c, r, until) }))
}

func (e *Engine) renew(ctx context.Context, c *conn, r recipe, until time.Time) error {
	found, err := e.accounts(ctx, c, renewing, r.Username)
	entries := found[r.Username]
	switch {
	case err != nil:
		return err
	case len(entries) == 0:
		return refused(renewing+": its account is gone from the source", nil)
	case !e.ours(entries, r.Unmarked):
		return refused(renewing+": the account of that name is not ours", nil)
	case !slices.ContainsFunc(entries, func(a account) bool { return !a.locked }):
		return refused(renewing+": its account was locked at the source", nil)
	}
	var statements []string
	if r.Event != "" {
		statements = append(statements, "ALTER EVENT "+r.event()+" ON SCHEDULE AT "+schedule(c, until))
	}
	if len(r.Renewal) > 0 {
		sql, err := parseStatements(r.Renewal, "name", "expiration", "role", "lease_id")
		if err != nil {
			return misconfigured(renewing+": "+err.Error(), nil)
		}
		rendered, err := sql.Render(map[string]string{
			"name": r.Username, "expiration": c.sourceTime(until).UTC().Format(time.DateTime), "role": r.Role, "lease_id": r.LeaseID,
		})
		if err != nil {
			return misconfigured(renewing+": "+err.Error(), nil)
		}
		for _, s := range rendered {
			statements = append(statements, s.Reveal())
		}
		c.spent = true
	}
	if len(statements) == 0 {
		return nil
	}
	_, err = c.guarded(ctx, renewing, e.inTime(ctx, c), message(statements...))
	return err
}
