package postgresql

import (
	"context"
	"fmt"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// groupWork makes a group, or completes its rights, in one database and in one
// transaction.
type groupWork struct {
	e        *Engine
	c        *conn
	name     string
	role     *role
	create   bool
	strict   bool
	warnings []string
}

const makingGroup = "prepare the group of the role"

func (w *groupWork) run(ctx context.Context) error {
	literal := statement.QuoteLiteral(w.name)
	answer, err := w.c.guarded(ctx, makingGroup, []fence{w.e.sameServer()}, message("BEGIN", lockGrants, shareGroup(w.name),
		"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = "+literal))
	if err == nil {
		err = w.within(ctx, answer.last())
	}
	if err != nil {
		_, _ = w.c.run(ctx, "ROLLBACK") // a connection on which it fails is not used again
		return err
	}
	_, err = w.send(ctx, "COMMIT")
	return err
}

// send runs SQL in the transaction.
func (w *groupWork) send(ctx context.Context, sql ...string) (results, error) {
	failpoint.Hit(failpoint.F4)
	answer, err := w.c.run(ctx, message(sql...))
	if err != nil {
		return nil, rawError{sentError(makingGroup, err), err}
	}
	return answer, nil
}

// within does the work; found is the mark of the role that has the group's name.
func (w *groupWork) within(ctx context.Context, found [][]string) error {
	switch {
	case len(found) == 0 && w.create:
		if _, err := w.send(ctx, w.e.rights.createGroup(w.name, w.e.groupMark(w.name))...); err != nil {
			return err
		}
	case len(found) == 0:
		return refused(makingGroup+": it was dropped meanwhile", nil)
	case found[0][0] != w.e.groupMark(w.name):
		return engine.Invalid("a role named %s exists at the source and is not ours: rename or drop it", statement.QuoteIdent(w.name))
	}
	if w.create {
		for _, member := range w.role.MemberOf {
			if err := w.join(ctx, member); err != nil {
				return err
			}
		}
	}
	for _, g := range w.role.grants {
		if err := w.grant(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

// join makes the group a member of a role of the operator's.
func (w *groupWork) join(ctx context.Context, role string) error {
	ident, root := statement.QuoteIdent(role), statement.QuoteIdent(w.e.root.Username)
	answer, err := w.send(ctx, `SELECT r.rolsuper, pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION'),
		EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.member WHERE m.roleid = r.oid AND g.rolname = `+statement.QuoteLiteral(w.name)+`)
		FROM pg_roles r WHERE r.rolname = `+statement.QuoteLiteral(role))
	if err != nil {
		return err
	}
	rows := answer.last()
	if len(rows) == 0 {
		return engine.Invalid("member_of: there is no role %s at the source", ident)
	}
	super, admin, member := rows[0][0] == "t", rows[0][1] == "t", rows[0][2] == "t"
	switch {
	case member:
		return nil
	case super:
		return engine.Invalid("member_of: %s is a superuser", ident)
	case !admin && !w.e.traits.superuser && (w.e.traits.version >= 160000 || !w.e.traits.createRole):
		return engine.Invalid("member_of: root may not make others members of %s: run GRANT %s TO %s WITH ADMIN OPTION", ident, ident, root)
	}
	_, err = w.send(ctx, "GRANT "+ident+" TO "+statement.QuoteIdent(w.name))
	return err
}

// lack is a right on one object that the group does not have.
type lack struct {
	object, right string
	grantable     bool // root can give it
}

// grant gives one entry of privileges and proves that it is there. A GRANT that
// gives nothing succeeds with a mere warning, so root's own right to give is
// looked up first, and the group's afterwards.
func (w *groupWork) grant(ctx context.Context, g grant) error {
	lacks, err := w.missing(ctx, g)
	if err != nil {
		return err
	}
	given := map[string][]string{}
	for _, l := range lacks {
		if l.grantable {
			given[l.right] = append(given[l.right], l.object)
			continue
		}
		if w.strict || !g.all {
			return w.cannotGive(g, l)
		}
		w.e.log.Warn("an object is not covered by its role: root lacks the right to grant", "object", l.object, "right", l.right, "database", w.c.database)
	}
	if len(given) == 0 {
		return nil
	}
	for _, right := range g.rights {
		if len(given[right]) == 0 {
			continue
		}
		if _, err := w.send(ctx, "GRANT "+right+" ON "+g.grantKind()+" "+strings.Join(given[right], ", ")+" TO "+statement.QuoteIdent(w.name)); err != nil {
			return err
		}
	}
	if lacks, err = w.missing(ctx, g); err != nil {
		return err
	}
	for _, l := range lacks {
		if l.grantable {
			return w.cannotGive(g, l)
		}
	}
	return nil
}

// grantKind is the keyword of GRANT that takes every object of the kind.
func (g grant) grantKind() string {
	if g.kind.check == "function" {
		return "ROUTINE"
	}
	return g.kind.one
}

func (w *groupWork) cannotGive(g grant, l lack) error {
	target := g.grantKind() + " " + l.object
	if g.all {
		target = "ALL " + g.kind.all + " IN SCHEMA " + statement.QuoteIdent(g.schema)
	}
	return engine.Invalid("root may not give %s on %s %s in database %s: run as its owner: GRANT %s ON %s TO %s WITH GRANT OPTION",
		l.right, strings.ToLower(g.kind.one), l.object, w.c.database, l.right, target, statement.QuoteIdent(w.e.root.Username))
}

// missing lists the rights of an entry that the group lacks.
func (w *groupWork) missing(ctx context.Context, g grant) ([]lack, error) {
	from, exists := g.objects()
	var rights []string
	for _, r := range g.rights {
		rights = append(rights, statement.QuoteLiteral(r))
	}
	check := "has_" + g.kind.check + "_privilege"
	answer, err := w.send(ctx, "SELECT "+exists+" IS NOT NULL", fmt.Sprintf(
		`SELECT o.name, r.r, %[1]s(current_user, o.oid, r.r || ' WITH GRANT OPTION') FROM (%[2]s) o(oid, name), unnest(ARRAY[%[3]s]) r(r) WHERE NOT %[1]s(%[4]s, o.oid, r.r) ORDER BY 1, 2`,
		check, from, strings.Join(rights, ","), statement.QuoteLiteral(w.name)))
	if err != nil {
		return nil, err
	}
	if answer.rows(0)[0][0] != "t" {
		return nil, engine.Invalid("privileges: %s: there is no such object in database %s", g, w.c.database)
	}
	var lacks []lack
	for _, row := range answer.last() {
		lacks = append(lacks, lack{row[0], row[1], row[2] == "t"})
	}
	return lacks, nil
}

// objects is a query for the oids and quoted names that an entry is about, and
// an expression that is NULL where its schema or object does not exist.
func (g grant) objects() (query, exists string) {
	literal := statement.QuoteLiteral(g.target())
	schema := "to_regnamespace(" + statement.QuoteLiteral(statement.QuoteIdent(g.schema)) + ")"
	switch g.kind.check {
	case "schema":
		exists = "to_regnamespace(" + literal + ")"
		return "SELECT " + exists + "::oid, " + literal + " WHERE " + exists + " IS NOT NULL", exists
	case "database":
		name := "(SELECT oid FROM pg_database WHERE datname = " + statement.QuoteLiteral(g.object) + ")"
		return "SELECT oid, quote_ident(datname) FROM pg_database WHERE datname = " + statement.QuoteLiteral(g.object), name
	case "function":
		query = "SELECT p.oid, format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE "
		if !g.all {
			exists = "to_regprocedure(" + literal + ")"
			return query + "p.oid = " + exists, exists
		}
		switch g.kind.one {
		case "FUNCTION":
			query += "p.prokind <> 'p' AND "
		case "PROCEDURE":
			query += "p.prokind = 'p' AND "
		}
		return query + "p.pronamespace = " + schema, schema
	}
	kinds := "'r', 'p', 'v', 'm', 'f'"
	if g.kind.one == "SEQUENCE" {
		kinds = "'S'"
	}
	query = "SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN (" + kinds + ") AND "
	if g.all {
		return query + "c.relnamespace = " + schema, schema
	}
	exists = "to_regclass(" + literal + ")"
	return query + "c.oid = " + exists, exists
}
