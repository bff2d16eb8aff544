package postgresql

import (
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// rights is the way in which this root makes and kills roles: by its own
// CREATEROLE, or through the functions that an administrator installed. Each
// method gives SQL. They refuse what is not ours as far as the source
// can tell; that an account is ours is proven before (law L11).
type rights interface {
	create(a newAccount) []string
	disable(names []string) []string // no login, no password; sessions live on
	lend(name string) string         // makes root a member, without which it may end no sessions and give nothing away
	giveBack(name string) string
	drop(names []string) string
	setEnd(name string, until time.Time) string
	mark(name, mark string) string // empty where create has done it
	leave(name, group string) string
	createGroup(name, mark string) []string
	dropGroup(name, mark string) []string // fails while it has members
}

// newAccount is what an account is made of.
type newAccount struct {
	name     string
	verifier statement.Secret
	until    time.Time // on the source's clock
	group    string
	mark     string
	asGroup  bool // its sessions begin as the group
}

// ownRights are those of a CREATEROLE root.
type ownRights struct{}

func (ownRights) create(a newAccount) []string {
	ident, literal := statement.QuoteIdent, statement.QuoteLiteral
	statements := []string{"CREATE ROLE " + ident(a.name) + " LOGIN PASSWORD " + literal(a.verifier.Reveal()) +
		" VALID UNTIL " + literal(a.until.UTC().Format(time.RFC3339Nano)) + " IN ROLE " + ident(a.group)}
	if a.asGroup {
		statements = append(statements, "ALTER ROLE "+ident(a.name)+" SET role = "+literal(a.group))
	}
	return statements
}

func (ownRights) disable(names []string) []string {
	statements := make([]string, len(names))
	for i, name := range names {
		statements[i] = "ALTER ROLE " + statement.QuoteIdent(name) + " NOLOGIN PASSWORD NULL VALID UNTIL '-infinity'"
	}
	return statements
}

// lend works on 15 for every CREATEROLE role and on 16 and later by the ADMIN
// option that the creator of a role gets.
func (ownRights) lend(name string) string {
	return "GRANT " + statement.QuoteIdent(name) + " TO CURRENT_USER"
}

func (ownRights) giveBack(name string) string {
	return "REVOKE " + statement.QuoteIdent(name) + " FROM CURRENT_USER"
}

func (ownRights) drop(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = statement.QuoteIdent(name)
	}
	return "DROP ROLE " + strings.Join(quoted, ", ")
}

func (ownRights) setEnd(name string, until time.Time) string {
	return "ALTER ROLE " + statement.QuoteIdent(name) + " VALID UNTIL " + statement.QuoteLiteral(until.UTC().Format(time.RFC3339Nano))
}

func (ownRights) mark(name, mark string) string {
	return "COMMENT ON ROLE " + statement.QuoteIdent(name) + " IS " + statement.QuoteLiteral(mark)
}

func (ownRights) leave(name, group string) string {
	return "REVOKE " + statement.QuoteIdent(group) + " FROM " + statement.QuoteIdent(name)
}

func (ownRights) createGroup(name, mark string) []string {
	return []string{
		"CREATE ROLE " + statement.QuoteIdent(name) + " NOLOGIN",
		"COMMENT ON ROLE " + statement.QuoteIdent(name) + " IS " + statement.QuoteLiteral(mark),
	}
}

// dropGroup looks for members itself, since DROP ROLE would take the membership
// from one that was made meanwhile. The comment takes the lock for which, from
// 16 on, the making of a member waits.
func (ownRights) dropGroup(name, mark string) []string {
	return []string{
		"COMMENT ON ROLE " + statement.QuoteIdent(name) + " IS " + statement.QuoteLiteral(mark),
		"SELECT 1/(NOT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = " + statement.QuoteLiteral(name) + " AND NOT m.admin_option))::int",
		"DROP ROLE " + statement.QuoteIdent(name),
	}
}

// functionRights go through the functions of setup.sql.
type functionRights struct{}

func call(function string, arguments ...string) string {
	return "SELECT " + setupSchema + "." + function + "(" + strings.Join(arguments, ", ") + ")"
}

func (functionRights) create(a newAccount) []string {
	literal := statement.QuoteLiteral
	asGroup := "false"
	if a.asGroup {
		asGroup = "true"
	}
	return []string{call("create_account", literal(a.name), literal(a.verifier.Reveal()), timestamp(a.until), literal(a.group), literal(a.mark), asGroup)}
}

func (functionRights) disable(names []string) []string {
	return []string{call("disable_accounts", textArray(names))}
}

func (functionRights) lend(name string) string {
	return call("lend_account", statement.QuoteLiteral(name))
}

func (functionRights) giveBack(name string) string {
	return call("take_back_account", statement.QuoteLiteral(name))
}

func (functionRights) drop(names []string) string {
	return call("drop_accounts", textArray(names))
}

func textArray(texts []string) string {
	quoted := make([]string, len(texts))
	for i, t := range texts {
		quoted[i] = statement.QuoteLiteral(t)
	}
	return "ARRAY[" + strings.Join(quoted, ",") + "]"
}

func (functionRights) setEnd(name string, until time.Time) string {
	return call("set_account_end", statement.QuoteLiteral(name), timestamp(until))
}

func (functionRights) mark(string, string) string { return "" }

func (functionRights) leave(name, group string) string {
	return call("leave_group", statement.QuoteLiteral(name), statement.QuoteLiteral(group))
}

func (functionRights) createGroup(name, mark string) []string {
	return []string{call("create_group", statement.QuoteLiteral(name), statement.QuoteLiteral(mark))}
}

func (functionRights) dropGroup(name, _ string) []string {
	return []string{call("drop_group", statement.QuoteLiteral(name))}
}

var (
	_ rights = ownRights{}
	_ rights = functionRights{}
)
