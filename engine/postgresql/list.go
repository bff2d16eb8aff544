package postgresql

import (
	"context"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// List implements engine.Lister: the login roles whose name bears this
// installation's checksum and that are marked as accounts, by a comment or by
// membership in one of its groups. One of these alone is not enough.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var accounts []engine.Account
	err := e.inMain(ctx, e.main(), func(c *conn) error {
		accounts = accounts[:0]
		answer, err := c.guarded(ctx, "list accounts", []fence{e.sameServer()}, `
			SELECT r.rolname, r.oid, shobj_description(r.oid, 'pg_authid'), g.rolname, shobj_description(g.oid, 'pg_authid'),
				(SELECT min(k.rolname) FROM pg_auth_members a JOIN pg_roles k ON k.oid = a.member WHERE a.roleid = r.oid AND a.admin_option AND starts_with(k.rolname, '`+makerPrefix+`'))
			FROM pg_roles r
			LEFT JOIN pg_auth_members m ON m.member = r.oid AND (SELECT starts_with(rolname, '`+groupPrefix+`') FROM pg_roles WHERE oid = m.roleid)
			LEFT JOIN pg_roles g ON g.oid = m.roleid
			WHERE g.oid IS NOT NULL OR starts_with(coalesce(shobj_description(r.oid, 'pg_authid'), ''), `+statement.QuoteLiteral(markPrefix)+`)
			ORDER BY r.rolname, g.rolname`)
		if err != nil {
			return err
		}
		for _, row := range answer.last() {
			if n := len(accounts); n > 0 && accounts[n-1].Username == row[0] {
				continue
			}
			if a, ok := e.listed(row); ok {
				accounts = append(accounts, a)
			}
		}
		return nil
	})
	if err != nil {
		return nil, plain(err)
	}
	return accounts, nil
}

// listed judges one row: name, oid, comment, group, comment of the group,
// maker.
func (e *Engine) listed(row []string) (engine.Account, bool) {
	name, comment, group := row[0], row[2], row[3]
	if !e.options.Namer.Ours(name) {
		return engine.Account{}, false
	}
	r := recipe{Source: e.source, Username: name, OID: parseOID(row[1]), Maker: row[5]}
	if strings.HasPrefix(comment, markPrefix+name+":") && e.options.Namer.OursMark(comment) {
		r.Mark = comment
	}
	if group != "" && row[4] == e.groupMark(group) {
		r.Group = group
	}
	// Who has both was made through the functions, which mark each account;
	// a root without CREATEROLE has made none in another way.
	r.Functions = e.traits.functions && r.Mark != "" && (r.Group != "" || !e.traits.createRole)
	return engine.Account{Username: name, Recipe: r.encode()}, r.Mark != "" || r.Group != ""
}
