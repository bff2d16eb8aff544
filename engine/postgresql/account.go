package postgresql

import (
	"fmt"
	"strconv"
	"strings"
)

// account is what the source says of a role.
type account struct {
	oid     uint32
	login   bool
	comment string
	member  bool // of the group asked for
}

// accountQuery looks up rows of (number, name, group).
func accountQuery(values []string) string {
	return `SELECT v.i, r.oid, r.rolcanlogin, shobj_description(r.oid, 'pg_authid'),
		EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname = v.g)
		FROM (VALUES ` + strings.Join(values, ",") + `) v(i, n, g) JOIN pg_roles r ON r.rolname = v.n`
}

func readAccount(row []string) account {
	return account{oid: parseOID(row[0]), login: row[1] == "t", comment: row[2], member: row[3] == "t"}
}

func (e *Engine) ours(r recipe, a account) bool {
	if !e.options.Namer.Ours(r.Username) {
		return false
	}
	if r.OID != 0 {
		return r.OID == a.oid
	}
	return a.comment == r.Mark || r.Group != "" && a.member
}

func oidText(oid uint32) string { return strconv.FormatUint(uint64(oid), 10) }

func parseOID(text string) uint32 {
	var oid uint32
	if _, err := fmt.Sscan(text, &oid); err != nil {
		return 0
	}
	return oid
}
