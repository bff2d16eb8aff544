package postgresql

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// warnAt is the number of live accounts from which a cost that grows with them
// is worth a warning.
const warnAt = 1000

// Now implements engine.Clock.
func (e *Engine) Now(ctx context.Context) (now time.Time, err error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	err = e.pool.with(ctx, revoking, e.main(), func(c *conn) error {
		if err := c.compareClocks(ctx); err != nil {
			return unreachable("read the source's clock", err)
		}
		now = c.theirs
		return nil
	})
	return now, plainOrNil(err)
}

// Check implements engine.Engine.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy"}
	err := e.pool.with(ctx, revoking, e.main(), func(c *conn) error {
		h.TLS = c.protection(e.tlsMode)
		start := time.Now()
		if err := c.compareClocks(ctx); err != nil {
			return err
		}
		h.Latency, h.ClockOffset = time.Since(start), c.offset()
		if _, err := c.guarded(ctx, "check the source", []fence{e.sameServer()}, "SELECT 1"); err != nil {
			return err
		}
		now, err := readTraits(ctx, c)
		if err != nil {
			return err
		}
		h.MissingGrants = e.missingGrants(now)
		h.Warnings, err = e.warnings(ctx, c, now)
		return err
	})
	if err != nil {
		h.Error = plain(err).Reason
	}
	switch {
	case err == nil && len(h.MissingGrants) == 0:
	case err == nil:
		h.Status, h.Error = "misconfigured", "root lacks a right without which credentials cannot be made or ended"
	case engine.KindOf(err) == engine.WrongServer, engine.KindOf(err) == engine.Misconfigured:
		h.Status = "misconfigured"
	default:
		h.Status = "unreachable"
	}
	return h
}

// missingGrants is what root lacks, each with the statement that mends it.
func (e *Engine) missingGrants(t traits) []string {
	root := statement.QuoteIdent(e.root.Username)
	var missing []string
	if t.superuser {
		return nil
	}
	if !t.createRole && !t.functions && len(t.makers) == 0 {
		missing = append(missing, "root can make no roles: ALTER ROLE "+root+" CREATEROLE; or install the functions of setup-sql")
	}
	if !t.inherit {
		missing = append(missing, "root does not use the rights of accounts that it must end: ALTER ROLE "+root+" INHERIT")
	}
	return missing
}

func (e *Engine) warnings(ctx context.Context, c *conn, t traits) ([]string, error) {
	root := statement.QuoteIdent(e.root.Username)
	var warnings []string
	if t.superuser {
		warnings = append(warnings, "root is a superuser: whoever gets its password owns the server. setup-sql prints a root with less")
	}
	if t.functions != e.traits.functions || len(t.makers) != len(e.traits.makers) {
		warnings = append(warnings, "the set-up at the source has changed since the engine was opened: save the engine once more, unchanged, to use it")
	}
	if !t.signal {
		warnings = append(warnings, "a session whose login was under way when its account was dropped could not be ended: GRANT pg_signal_backend TO "+root)
	}
	if c.protection(e.tlsMode) == "none" {
		for _, h := range e.config.target.hosts {
			if !engine.Loopback(h.host) {
				warnings = append(warnings, "the connection to "+h.host+" is not encrypted: use sslmode=verify-full")
			}
		}
	}
	if offset := c.offset(); offset.Abs() > time.Minute {
		warnings = append(warnings, fmt.Sprintf("the source's clock differs by %s: ends of credentials are set in its time", offset.Round(time.Second)))
	}
	if e.undead.Load() > 0 {
		warnings = append(warnings, "sessions of dropped accounts were found and could not be ended: GRANT pg_signal_backend TO "+root)
	}
	costs, err := e.costs(ctx, c, t)
	return append(warnings, costs...), err
}

// costs warns of what grows with the number of live accounts.
func (e *Engine) costs(ctx context.Context, c *conn, t traits) ([]string, error) {
	answer, err := c.run(ctx, message(
		// What root made on 16 and later: it is a member with ADMIN.
		"SELECT count(*) FROM pg_auth_members m WHERE m.member = (SELECT oid FROM pg_roles WHERE rolname = current_user) AND m.admin_option",
		`SELECT count(DISTINCT s.refobjid) FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
			WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'a' AND starts_with(shobj_description(r.oid, 'pg_authid'), '`+markPrefix+`') AND r.rolcanlogin`))
	if err != nil {
		return nil, err
	}
	var warnings []string
	made, err := strconv.Atoi(answer.rows(0)[0][0])
	if err != nil {
		return nil, err
	}
	if made >= warnAt && t.version >= 160000 && !t.superuser && !t.functions && len(t.makers) == 0 {
		warnings = append(warnings, fmt.Sprintf("root made %d live roles, and on PostgreSQL 16 and later each creation and drop costs about %.1f ms more for it (2.4 ms per thousand): install the functions of setup-sql", made, 2.4*float64(made)/1000))
	}
	direct, err := strconv.Atoi(answer.rows(1)[0][0])
	if err != nil {
		return nil, err
	}
	if direct >= warnAt {
		warnings = append(warnings, fmt.Sprintf("%d live accounts hold rights directly: the source refuses more at about 2,400 on one object. Use privileges instead of GRANT in creation_statements", direct))
	}
	return warnings, nil
}
