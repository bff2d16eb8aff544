package postgresql

import (
	"context"
	"fmt"

	"github.com/scaivault/scaivault/internal/statement"
)

// heldRights lists what the role with the oid holds in the database of the
// connection: class of the object, its quoted name, who gave the right, and
// whether root can act as that one.
//
// DROP OWNED revokes as one grantor only, and passes over what others gave with
// a mere warning, so this is needed after it.
const heldRights = `
WITH held AS (
	SELECT s.classid, s.objid, s.deptype,
		CASE s.classid
			WHEN 'pg_class'::regclass THEN (SELECT relacl || (SELECT array_agg(x) FROM pg_attribute a, unnest(a.attacl) x WHERE a.attrelid = s.objid) FROM pg_class WHERE oid = s.objid)
			WHEN 'pg_namespace'::regclass THEN (SELECT nspacl FROM pg_namespace WHERE oid = s.objid)
			WHEN 'pg_database'::regclass THEN (SELECT datacl FROM pg_database WHERE oid = s.objid)
			WHEN 'pg_proc'::regclass THEN (SELECT proacl FROM pg_proc WHERE oid = s.objid)
			WHEN 'pg_type'::regclass THEN (SELECT typacl FROM pg_type WHERE oid = s.objid)
			WHEN 'pg_language'::regclass THEN (SELECT lanacl FROM pg_language WHERE oid = s.objid)
			WHEN 'pg_foreign_data_wrapper'::regclass THEN (SELECT fdwacl FROM pg_foreign_data_wrapper WHERE oid = s.objid)
			WHEN 'pg_foreign_server'::regclass THEN (SELECT srvacl FROM pg_foreign_server WHERE oid = s.objid)
			WHEN 'pg_largeobject'::regclass THEN (SELECT lomacl FROM pg_largeobject_metadata WHERE oid = s.objid)
			WHEN 'pg_tablespace'::regclass THEN (SELECT spcacl FROM pg_tablespace WHERE oid = s.objid)
		END AS acl
	FROM pg_shdepend s
	WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %[1]s
	AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
)
SELECT DISTINCT h.deptype, i.type, i.identity, g.rolname, coalesce(pg_has_role(current_user, g.oid, 'MEMBER'), false), coalesce(g.rolname = current_user, false)
FROM held h CROSS JOIN LATERAL pg_identify_object(h.classid, h.objid, 0) i
LEFT JOIN LATERAL aclexplode(h.acl) x ON x.grantee = %[1]s
LEFT JOIN pg_roles g ON g.oid = x.grantor
ORDER BY 1, 2, 3, 4`

// aclKeyword is the word of REVOKE for a class as pg_identify_object names it;
// empty where there is none.
func aclKeyword(class string) string {
	switch class {
	case "table", "view", "materialized view", "foreign table":
		return "TABLE"
	case "sequence":
		return "SEQUENCE"
	case "function", "procedure", "aggregate":
		return "ROUTINE"
	case "schema":
		return "SCHEMA"
	case "database":
		return "DATABASE"
	case "type", "domain":
		return "TYPE"
	case "language":
		return "LANGUAGE"
	case "foreign-data wrapper":
		return "FOREIGN DATA WRAPPER"
	case "server":
		return "FOREIGN SERVER"
	case "large object":
		return "LARGE OBJECT"
	case "tablespace":
		return "TABLESPACE"
	}
	return ""
}

// revokeGrants takes rights from a role object by object, each as the one who
// gave it, in the database of the connection. What root cannot take is the
// residue, with the statement that does.
func (e *Engine) revokeGrants(ctx context.Context, c *conn, name string, oid uint32) (residue []string, err error) {
	answer, err := c.guarded(ctx, revokingAccount, nil, fmt.Sprintf(heldRights, oidText(oid)))
	if err != nil {
		return nil, err
	}
	for _, row := range answer.last() {
		dependency, class, object, grantor, member, self := row[0], row[1], row[2], row[3], row[4] == "t", row[5] == "t"
		keyword := aclKeyword(class)
		if dependency != "a" || keyword == "" || grantor == "" {
			residue = append(residue, fmt.Sprintf("in database %s: %s %s (%s)", c.database, class, object, dependencyWord(dependency)))
			continue
		}
		revoke := "REVOKE ALL ON " + keyword + " " + object + " FROM " + statement.QuoteIdent(name) + " CASCADE"
		if member {
			statements := []string{lockGrants}
			if !self {
				statements = append(statements, "SET LOCAL ROLE "+statement.QuoteIdent(grantor))
			}
			_, err := c.guarded(ctx, revokingAccount, nil, message(append(statements, revoke)...))
			if err == nil && len(c.notices) == 0 {
				continue
			}
			if code(err) == "" && err != nil || retried(err) {
				return nil, err
			}
		}
		residue = append(residue, fmt.Sprintf("in database %s: a right that %s gave; run as that role, or as a superuser after SET ROLE %s: %s", c.database, statement.QuoteIdent(grantor), statement.QuoteIdent(grantor), revoke))
	}
	return residue, nil
}

func dependencyWord(deptype string) string {
	switch deptype {
	case "o":
		return "owned by it"
	case "r":
		return "a policy that names it"
	case "i":
		return "initial privileges"
	}
	return "a right given to it"
}
