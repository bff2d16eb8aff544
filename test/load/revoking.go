package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/engine/postgresql"
)

// revoke measures single revocations.
func (b *bench) revoke(ctx context.Context, r *rig) error {
	for _, row := range []struct {
		callers, n int
		aim        float64
	}{{1, 100, 0.15}, {8, 400, 0.25}} {
		what := fmt.Sprintf("single revocations/s, %d callers", row.callers)
		if !b.rows.MatchString(what) {
			continue
		}
		b.say("PostgreSQL %s: %s", r.title(), what)
		c, err := warm(ctx, b.rounds(), r.direct.revoke(row.callers, row.n, r.thorough(false)), r.revoke(row.callers, row.n))
		if err != nil {
			return err
		}
		b.report.rate(what+", against the thorough recipe", r.title(), c, row.aim)
		if r.way == postgresql.SetupDefiner {
			continue // there is no shorter way than the functions
		}
		bare, err := alternate(ctx, 2, r.direct.revoke(row.callers, row.n, r.direct.killBare), r.revoke(row.callers, row.n))
		if err != nil {
			return err
		}
		b.report.rate(what+", against GRANT, DROP OWNED, DROP ROLE in one message", r.title(), bare, 0)
	}
	return nil
}

// prefix measures how fast all of a role's credentials die.
func (b *bench) prefix(ctx context.Context, r *rig) error {
	sizes := []struct {
		n   int
		aim float64
	}{{2000, 0.15}, {10000, 0.2}}
	if b.quick {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		what := fmt.Sprintf("revocations/s by prefix, %d members", size.n)
		if !b.rows.MatchString(what) {
			continue
		}
		b.say("PostgreSQL %s: %s", r.title(), what)
		c, err := alternate(ctx, 3, r.direct.revokeAll(size.n, false, r.thorough(false)), r.revokeAll(member, size.n))
		if err != nil {
			return err
		}
		b.report.rate(what+", against the thorough recipe, 100 a transaction, 4 connections", r.title(), c, size.aim)
		if r.way == postgresql.SetupDefiner || size.n > sizes[0].n {
			continue
		}
		bare, err := alternate(ctx, 2, r.direct.revokeAll(size.n, false, r.direct.killBare), r.revokeAll(member, size.n))
		if err != nil {
			return err
		}
		b.report.rate(what+", against GRANT, DROP OWNED, DROP ROLE, 100 a transaction, 4 connections", r.title(), bare, 0)
	}
	return nil
}

// grants measures the end of credentials that hold rights on tables themselves:
// there the source is the limit, since each right is taken out of a list.
func (b *bench) grants(ctx context.Context, r *rig) error {
	const rounds = 1 // issuing the accounts takes minutes, for the same reason
	n := 2000
	if b.quick {
		n = 300
	}
	what := fmt.Sprintf("revocations/s by prefix, %d accounts with direct grants on %d tables", n, tables)
	b.say("PostgreSQL %s: %s", r.title(), what)
	c, err := alternate(ctx, rounds, r.direct.revokeAll(n, true, r.thorough(true)), r.revokeAll(grants, n))
	if err != nil {
		return err
	}
	b.report.rate(what+", 100 a transaction, 4 connections", r.title(), c, 0.7)
	return nil
}

func (r *rig) thorough(grants bool) killer {
	return func(ctx context.Context, c *pgconn.PgConn, names []string) error {
		return r.direct.kill(ctx, c, names, grants)
	}
}
