package postgresql

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// Lookup implements engine.Engine. Both forms make an account in one
// transaction, so one that exists and may log in is whole.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var found []account
	err = e.inMain(ctx, e.main(), func(c *conn) error {
		found, err = e.lookUp(ctx, c, r)
		return err
	})
	switch {
	case err != nil:
		return engine.Presence{}, plain(err)
	case len(found) == 0:
		return engine.Presence{State: engine.Absent}, nil
	case !e.ours(r, found[0]):
		return engine.Presence{State: engine.Foreign}, nil
	case !found[0].login:
		return engine.Presence{State: engine.Unusable}, nil
	}
	r.OID = found[0].oid
	return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
}

// lookUp finds the account that bears the recipe's name; none or one.
func (e *Engine) lookUp(ctx context.Context, c *conn, r recipe) ([]account, error) {
	answer, err := c.guarded(ctx, "look a credential up", []fence{e.sameServer()},
		accountQuery([]string{"(0," + statement.QuoteLiteral(r.Username) + "," + statement.QuoteLiteral(r.Group) + ")"}))
	if err != nil {
		return nil, err
	}
	var found []account
	for _, row := range answer.last() {
		found = append(found, readAccount(row[1:]))
	}
	return found, nil
}

const renewing = "renew a credential"

// Renew implements engine.Renewer.
func (e *Engine) Renew(ctx context.Context, raw engine.Recipe, until time.Time) error {
	r, err := e.readRecipe(raw)
	if err != nil {
		return err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	err = e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.mainOf(r), func(c *conn) error { return e.renew(ctx, c, r, until) })
	})
	return plainOrNil(err)
}

func (e *Engine) renew(ctx context.Context, c *conn, r recipe, until time.Time) error {
	found, err := e.lookUp(ctx, c, r)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return refused(renewing+": its account is gone from the source", nil)
	case !e.ours(r, found[0]):
		return refused(renewing+": the account of that name is not ours", nil)
	case !found[0].login:
		return refused(renewing+": its account was disabled at the source", nil)
	}
	end := c.sourceTime(until)
	fences := e.inTime(ctx, c)
	if len(r.Renewal) == 0 {
		_, err = c.guarded(ctx, renewing, fences, r.rightsOver().setEnd(r.Username, end))
		return err
	}
	sql, err := parseStatements(r.Renewal, "name", "expiration", "role", "lease_id")
	if err != nil {
		return misconfigured(renewing+": "+err.Error(), nil)
	}
	rendered, err := sql.Render(map[string]string{"name": r.Username, "expiration": end.UTC().Format(time.RFC3339Nano), "role": r.Role, "lease_id": r.LeaseID})
	if err != nil {
		return misconfigured(renewing+": "+err.Error(), nil)
	}
	statements := []string{`SET LOCAL search_path = "$user", public`, lockGrants}
	for _, s := range rendered {
		statements = append(statements, s.Reveal())
	}
	statements = append(statements, "SET LOCAL search_path = pg_catalog, pg_temp")
	if !sql.Has("valid", "until") {
		statements = append(statements, r.rightsOver().setEnd(r.Username, end))
	}
	if _, err = c.guarded(ctx, renewing, fences, message(statements...)); err != nil {
		return err
	}
	if _, err := c.run(ctx, "DISCARD ALL"); err != nil {
		c.close()
	}
	return nil
}
