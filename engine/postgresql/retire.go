package postgresql

import (
	"context"
	"slices"
	"strconv"

	"github.com/scaivault/scaivault/internal/statement"
)

// retireGroups drops groups that lost their last member and that no role of
// this engine uses now. A group dropped too early is made again by the next
// issue, so failures here are only logged.
func (e *Engine) retireGroups(ctx context.Context, names []string) {
	e.mu.Lock()
	var current []string
	for _, state := range e.groups {
		current = append(current, state.name)
	}
	e.mu.Unlock()
	for _, name := range names {
		if slices.Contains(current, name) {
			continue
		}
		if err := e.retire(ctx, name); err != nil {
			e.forgetGroup(name) // it may have lost rights
			e.log.Warn("a group that is not needed any more was kept", "group", name, "error", plain(err))
		}
	}
}

// groupLock is an advisory lock at the source that is shared by whoever makes a
// group's members and rights, and taken alone by whoever retires it: rights go
// one by one, and a member that came meanwhile would have none and keep the
// group. Its keys are a constant ("SVLT") and the name.
func groupLock(name string) string {
	return "(1398164564, hashtext(" + statement.QuoteLiteral(name) + "))"
}

// shareGroup fails, and so undoes the message, while the group is being
// retired. It does not wait: the one who retires needs a connection, too.
func shareGroup(name string) string {
	return "SELECT 1/pg_try_advisory_xact_lock_shared" + groupLock(name) + "::int"
}

// retire drops a group, unless somebody uses it now.
func (e *Engine) retire(ctx context.Context, name string) error {
	e.retiring.Lock() // it takes two connections: one at a time does
	defer e.retiring.Unlock()
	ctx, cancel := e.operation(ctx)
	defer cancel()
	return e.pool.with(ctx, revoking, e.main(), func(c *conn) error {
		defer func() { _, _ = c.run(ctx, "ROLLBACK") }() // a connection on which it fails is not used again
		answer, err := c.guarded(ctx, "retire a group", nil, message("BEGIN", "SELECT pg_try_advisory_xact_lock"+groupLock(name)))
		if err != nil || answer.one() != "t" {
			return err
		}
		return e.dropUnused(ctx, name)
	})
}

// dropUnused drops a group that has no members and owns nothing.
func (e *Engine) dropUnused(ctx context.Context, name string) error {
	literal := statement.QuoteLiteral(name)
	var oid uint32
	err := e.inMain(ctx, e.main(), func(c *conn) error {
		// Root is itself a member of what it made, by the ADMIN option of 16
		// and later: a role that can log in as a credential is what counts.
		answer, err := c.guarded(ctx, "drop a group", []fence{e.sameServer()}, `SELECT r.oid, shobj_description(r.oid, 'pg_authid') FROM pg_roles r
			WHERE r.rolname = `+literal+` AND NOT EXISTS (SELECT FROM pg_auth_members m WHERE m.roleid = r.oid AND NOT m.admin_option)
			AND NOT EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.deptype = 'o')`)
		if err != nil {
			return err
		}
		if rows := answer.last(); len(rows) == 1 && rows[0][1] == e.groupMark(name) {
			oid = parseOID(rows[0][0])
		}
		return nil
	})
	if err != nil || oid == 0 {
		return err
	}
	databases, err := e.databasesOf(ctx, e.main(), oid)
	if err != nil {
		return err
	}
	for _, database := range databases {
		err := e.pool.with(ctx, revoking, place{database: database}, func(c *conn) error {
			_, err := e.revokeGrants(ctx, c, name, oid)
			return err
		})
		if err != nil {
			return err
		}
	}
	return e.inMain(ctx, e.groupOwner(), func(c *conn) error {
		_, err := c.guarded(ctx, "drop a group "+strconv.Quote(name), nil, message(e.rights.dropGroup(name, e.groupMark(name))...))
		return err
	})
}
