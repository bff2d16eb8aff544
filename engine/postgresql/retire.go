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
			e.log.Warn("a group that is not needed any more was kept", "group", name, "error", plain(err))
		}
	}
}

func (e *Engine) retire(ctx context.Context, name string) error {
	ctx, cancel := e.operation(ctx)
	defer cancel()
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
