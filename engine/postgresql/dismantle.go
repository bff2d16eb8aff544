package postgresql

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// sessionPatience is how long ended sessions get to be gone: what holds a
// kernel call or rolls back much needs a while.
const sessionPatience = 5 * time.Second

// dismantle kills an account that has sessions, objects, rights that others
// gave, prepared transactions, or statements of its own for its end. It has
// been disabled already. Every step can be repeated.
func (e *Engine) dismantle(ctx context.Context, v *victim) error {
	if err := e.endSessionsOf(ctx, v); err != nil {
		return plain(err)
	}
	if !v.found {
		return nil
	}
	e.runRevocation(ctx, v)
	residue := e.rollBackPrepared(ctx, v)
	databases, err := e.databasesOf(ctx, e.mainOf(v.recipe), v.oid)
	if err != nil {
		return plain(err)
	}
	for _, database := range databases {
		left, err := e.empty(ctx, v, database)
		if err != nil {
			return plain(err)
		}
		residue = append(residue, left...)
		failpoint.Hit(failpoint.Emptied)
	}
	return plainOrNil(e.finish(ctx, v, residue))
}

// endSessionsOf makes root a member of an account that exists, which everything after it needs, and
// ends its sessions. A root without pg_signal_backend may do that by the membership alone, and the
// source's own memory of who is a member of what can be older than the grant when others are granted at
// the same time (seen on 16): a membership that is taken back and given anew makes it look again.
func (e *Engine) endSessionsOf(ctx context.Context, v *victim) error {
	lend := func(before ...string) error {
		return e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error {
			_, err := c.guarded(ctx, revokingAccount, []fence{e.sameServer()}, message(append(before, v.recipe.rightsOver().lend(v.recipe.Username))...))
			return err
		})
	}
	end := func(right endRight) error {
		return e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error { return e.endSessions(ctx, c, v.oid, right) })
	}
	if !v.found {
		return end(e.traits.endRight())
	}
	if err := lend(); err != nil {
		return err
	}
	err := end(e.traits.endRight())
	if engine.KindOf(err) == engine.Misconfigured {
		if err := lend(v.recipe.rightsOver().giveBack(v.recipe.Username)); err != nil {
			return err
		}
		err = end(asMember)
	}
	return err
}

// endRight is by what right sessions are ended.
type endRight int

const (
	asSignaller endRight = iota // root itself has pg_signal_backend, whatever role the connection acts in
	asMember                    // of the account, which the connection's role was made
)

func (t traits) endRight() endRight {
	if t.signal {
		return asSignaller
	}
	return asMember
}

// terminate is a message that ends the sessions of a condition; more are statements of the same message.
func terminate(right endRight, condition string, more ...string) string {
	statements := append([]string{"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE " + condition}, more...)
	if right == asSignaller {
		statements = append([]string{"SET LOCAL ROLE NONE"}, statements...)
	}
	return message(statements...)
}

// inMain runs f on a revoking connection to the engine's own database.
func (e *Engine) inMain(ctx context.Context, at place, f func(*conn) error) error {
	return e.insist(ctx, func() error { return e.pool.with(ctx, revoking, at, f) })
}

// endSessions ends every session of an account, found by its oid: it stays when
// the session changes its role, and when the account is dropped.
func (e *Engine) endSessions(ctx context.Context, c *conn, oid uint32, right endRight) error {
	if oid == 0 {
		return nil
	}
	id := oidText(oid)
	deadline := time.Now().Add(sessionPatience)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		answer, err := c.guarded(ctx, "end the sessions of a credential", nil,
			terminate(right, "usesysid = "+id, "SELECT count(*) FROM pg_stat_activity WHERE usesysid = "+id))
		switch {
		case code(err) == codeNoPrivilege:
			return misconfigured("end the sessions of a credential: root may not: run GRANT pg_signal_backend TO "+statement.QuoteIdent(e.root.Username), err)
		case err != nil:
			return err
		case answer.one() == "0":
			return nil
		case time.Now().After(deadline):
			return busy("end the sessions of a credential: they were told to end and are still there", nil)
		}
		select {
		case <-ctx.Done():
			return busy("end the sessions of a credential: they were told to end and are still there", ctx.Err())
		case <-time.After(pause):
		}
	}
}

// runRevocation runs the operator's own statements. That they fail is no reason
// to leave the account alive: the engine's own way follows in any case.
func (e *Engine) runRevocation(ctx context.Context, v *victim) {
	if len(v.recipe.Revocation) == 0 {
		return
	}
	sql, err := parseStatements(v.recipe.Revocation, "name", "role", "lease_id")
	if err != nil {
		e.log.Warn("revocation statements cannot be read", "role", v.recipe.Role)
		return
	}
	rendered, err := sql.Render(map[string]string{"name": v.recipe.Username, "role": v.recipe.Role, "lease_id": v.recipe.LeaseID})
	if err != nil {
		e.log.Warn("revocation statements cannot be rendered", "role", v.recipe.Role)
		return
	}
	statements := []string{`SET LOCAL search_path = "$user", public`, lockGrants}
	for _, s := range rendered {
		statements = append(statements, s.Reveal())
	}
	err = e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error {
		_, err := c.guarded(ctx, "run the revocation statements", []fence{e.sameServer()}, message(statements...))
		if err == nil {
			_, err = c.run(ctx, "DISCARD ALL")
		}
		return err
	})
	if err != nil {
		e.log.Warn("revocation statements failed", "role", v.recipe.Role, "username", v.recipe.Username, "error", plain(err))
	}
}

// rollBackPrepared ends prepared transactions as the account itself, which is
// what may do so without a superuser. Left alone they would outlive it.
func (e *Engine) rollBackPrepared(ctx context.Context, v *victim) (residue []string) {
	name := statement.QuoteIdent(v.recipe.Username)
	var prepared [][]string
	err := e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error {
		answer, err := c.guarded(ctx, revokingAccount, nil, "SELECT gid, database FROM pg_prepared_xacts WHERE owner = "+statement.QuoteLiteral(v.recipe.Username))
		if err == nil {
			prepared = answer.last()
		}
		return err
	})
	if err != nil {
		return []string{"its prepared transactions could not be listed"}
	}
	for _, p := range prepared {
		rollback := "ROLLBACK PREPARED " + statement.QuoteLiteral(p[0])
		err := e.pool.with(ctx, revoking, place{p[1], v.recipe.Maker}, func(c *conn) error {
			defer c.close() // its role is the account's now
			if _, err := c.run(ctx, "SET ROLE "+name); err != nil {
				return err
			}
			_, err := c.run(ctx, rollback)
			return err
		})
		if err != nil {
			residue = append(residue, fmt.Sprintf("a prepared transaction; run as a superuser in database %s: %s", p[1], rollback))
		}
	}
	return residue
}

// databasesOf are the databases that hold anything of the account; what belongs
// to no database is looked after in the engine's own.
func (e *Engine) databasesOf(ctx context.Context, at place, oid uint32) ([]string, error) {
	var names []string
	err := e.inMain(ctx, at, func(c *conn) error {
		names = names[:0]
		answer, err := c.guarded(ctx, revokingAccount, nil, `SELECT DISTINCT coalesce(d.datname, current_database()) FROM pg_shdepend s
			LEFT JOIN pg_database d ON d.oid = s.dbid WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = `+oidText(oid))
		if err != nil {
			return err
		}
		for _, row := range answer.last() {
			names = append(names, row[0])
		}
		return nil
	})
	return names, err
}

// empty gives away what the account owns in one database and takes its rights
// there. REASSIGN and DROP OWNED are one transaction: DROP OWNED alone would
// destroy what could not be given away. Never with CASCADE.
func (e *Engine) empty(ctx context.Context, v *victim, database string) (residue []string, err error) {
	name := statement.QuoteIdent(v.recipe.Username)
	for _, heir := range heirs(v.recipe) {
		err = e.insist(ctx, func() error {
			return e.pool.with(ctx, revoking, place{database, v.recipe.Maker}, func(c *conn) error {
				_, err := c.guarded(ctx, revokingAccount, []fence{e.sameServer()}, message("SET LOCAL lock_timeout = '2s'", lockGrants,
					"REASSIGN OWNED BY "+name+" TO "+heir, "DROP OWNED BY "+name))
				return err
			})
		})
		if code(err) != codeUndefinedObject && code(err) != codeNoPrivilege {
			break
		}
	}
	switch {
	case err == nil:
	case code(err) == "" && engine.KindOf(err) == engine.Uncertain, engine.KindOf(err) == engine.Busy, engine.KindOf(err) == engine.WrongServer:
		return nil, err
	default:
		residue = append(residue, fmt.Sprintf("in database %s: %s; run as a superuser there: REASSIGN OWNED BY %s TO %s; DROP OWNED BY %s",
			database, plain(err).Error(), name, heirs(v.recipe)[0], name))
	}
	err = e.pool.with(ctx, revoking, place{database, v.recipe.Maker}, func(c *conn) error {
		left, err := e.revokeGrants(ctx, c, v.recipe.Username, v.oid)
		residue = append(residue, left...)
		return err
	})
	if err != nil {
		if kind := engine.KindOf(err); kind != engine.Misconfigured && kind != engine.Unreachable {
			return nil, err
		}
		residue = append(residue, fmt.Sprintf("what it holds in database %s: %s", database, plain(err).Error()))
	}
	return residue, nil
}

// heirs are who may get what an account owned, best first.
func heirs(r recipe) []string {
	var names []string
	for _, name := range []string{r.Heir, r.Group} {
		if name != "" {
			names = append(names, statement.QuoteIdent(name))
		}
	}
	return append(names, "CURRENT_USER")
}

// finish drops the account, or makes sure that what remains is an empty shell
// without memberships and says why it remains.
func (e *Engine) finish(ctx context.Context, v *victim, residue []string) error {
	err := e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error {
		_, err := c.guarded(failpoint.OnSending(ctx, failpoint.R2), revokingAccount, []fence{e.sameServer()}, v.recipe.rightsOver().drop([]string{v.recipe.Username}))
		return err
	})
	switch code(err) {
	case codeDependentObjects:
		return e.leaveShell(ctx, v, residue)
	case codeUndefinedObject: // somebody was faster
	default:
		if err != nil {
			return err
		}
	}
	e.late.add(e.lookLate, v.oid, v.recipe.Username)
	return e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error { return e.endSessions(ctx, c, v.oid, e.traits.endRight()) })
}

// leaveShell takes every membership from an account that cannot be dropped, in
// both directions, marks it so that it is still known as ours, and records what
// keeps it.
func (e *Engine) leaveShell(ctx context.Context, v *victim, residue []string) error {
	name := v.recipe.Username
	err := e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error {
		answer, err := c.guarded(ctx, revokingAccount, nil,
			"SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = "+oidText(v.oid))
		if err != nil {
			return err
		}
		statements := []string{v.recipe.rightsOver().giveBack(name)}
		if mark := v.recipe.rightsOver().mark(name, v.recipe.Mark); mark != "" && !v.marked {
			statements = append(statements, mark)
		}
		for _, row := range answer.last() {
			statements = append(statements, v.recipe.rightsOver().leave(name, row[0]))
		}
		_, err = c.guarded(ctx, revokingAccount, nil, message(statements...))
		return err
	})
	if err != nil {
		return err
	}
	if len(residue) == 0 {
		residue = []string{"something that the source does not name; a superuser sees it by DROP ROLE " + statement.QuoteIdent(name)}
	}
	slices.Sort(residue)
	v.outcome.Residue = "the account is without login, password, session and membership, but cannot be dropped; it holds " +
		strings.Join(slices.Compact(residue), "; ")
	return e.inMain(ctx, e.mainOf(v.recipe), func(c *conn) error { return e.endSessions(ctx, c, v.oid, e.traits.endRight()) })
}
