package postgresql

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// setupSchema holds the functions of setup.sql.
const setupSchema = "scaivault"

//go:embed setup.sql
var setupFunctions string

// setupInstalled is an expression: the functions are there, they run as a
// superuser, and root may call them. Functions of that name that belong to
// anybody else are not trusted with verifiers.
const setupInstalled = `(SELECT count(*) = 9 AND bool_and(p.prosecdef AND o.rolsuper AND has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE'))
	FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_roles o ON o.oid = p.proowner
	WHERE n.nspname = 'scaivault' AND p.proname IN ('create_account', 'set_account_end', 'disable_accounts', 'lend_account', 'take_back_account', 'leave_group', 'drop_accounts', 'create_group', 'drop_group'))`

// The ways to set up a root.
const (
	// SetupDefiner installs functions that run as a superuser: flat cost, and
	// the least right for root. It needs a superuser once.
	SetupDefiner = "functions"
	// SetupCreateRole gives root CREATEROLE. On PostgreSQL 16 and later the cost
	// of a creation then grows with the number of live accounts.
	SetupCreateRole = "createrole"
	// SetupMakers gives root makers, for 16 and later where no superuser can
	// install functions: whoever has CREATEROLE himself can make them. The cost
	// of a creation grows with the accounts of one maker.
	SetupMakers = "makers"
)

// makerCount is how many makers SetupSQL makes.
const makerCount = 32

// Setup is what SetupSQL prints statements for.
type Setup struct {
	Root     string   // the role that ScaiVault logs in as
	Database string   // the one that connection_url names
	Schemas  []string // whose tables roles may be given rights on; public where empty
	Owner    string   // who owns these tables and makes later ones; empty: the statements for later tables are left out
	Rights   []string // on tables; SELECT, INSERT, UPDATE, DELETE where empty
	Way      string   // SetupDefiner, SetupMakers or SetupCreateRole; SetupDefiner where empty
}

// SetupSQL gives the statements that an administrator runs once, connected to
// the database. They can be run again.
func SetupSQL(s Setup) (string, error) {
	if s.Root == "" || s.Database == "" {
		return "", fault.New(fault.InvalidRequest, "print the set-up: name the root and the database")
	}
	if strings.Contains(s.Root, "$") {
		return "", fault.New(fault.InvalidRequest, "print the set-up: the root's name holds a $")
	}
	if len(s.Schemas) == 0 {
		s.Schemas = []string{"public"}
	}
	if len(s.Rights) == 0 {
		s.Rights = []string{"SELECT", "INSERT", "UPDATE", "DELETE"}
	}
	grants, err := parseGrants([]string{strings.Join(s.Rights, ", ") + " ON ALL TABLES IN SCHEMA public"})
	if err != nil {
		return "", err
	}
	root, rights := statement.QuoteIdent(s.Root), strings.Join(grants[0].rights, ", ")

	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	who := "a superuser"
	if s.Way == SetupMakers || s.Way == SetupCreateRole {
		who = "a superuser, or as the owner of all this who has CREATEROLE,"
	}
	line("-- Run as %s in database %s. Then give root a password: \\password %s", who, statement.QuoteIdent(s.Database), root)
	line("DO $setup$ BEGIN\n\tIF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s) THEN\n\t\tCREATE ROLE %s LOGIN;\n\tEND IF;\nEND $setup$;", statement.QuoteLiteral(s.Root), root)
	switch s.Way {
	case SetupDefiner, "":
		line("ALTER ROLE %s LOGIN INHERIT NOSUPERUSER NOCREATEROLE;", root)
		line("\n%s", setupFunctions)
		line("GRANT USAGE ON SCHEMA %s TO %s;", setupSchema, root)
		line("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA %s TO %s;", setupSchema, root)
	case SetupCreateRole:
		line("ALTER ROLE %s LOGIN INHERIT CREATEROLE;", root)
	case SetupMakers:
		line("ALTER ROLE %s LOGIN INHERIT NOCREATEROLE;", root)
		line("DO $setup$ BEGIN\n\tFOR i IN 1..%d LOOP", makerCount)
		line("\t\tBEGIN\n\t\t\tEXECUTE 'CREATE ROLE %s' || i || ' NOLOGIN CREATEROLE';\n\t\tEXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;\n\t\tEND;", makerPrefix)
		line("\t\tEXECUTE 'GRANT %s' || i || %s;\n\tEND LOOP;\nEND $setup$;", makerPrefix, statement.QuoteLiteral(" TO "+root+" WITH INHERIT FALSE, SET TRUE"))
	default:
		return "", fault.New(fault.InvalidRequest, "print the set-up: the way is %s, %s or %s", SetupDefiner, SetupMakers, SetupCreateRole)
	}
	line("\n-- Ends sessions whose login was under way while their account was dropped.")
	line("GRANT pg_signal_backend TO %s;", root)
	line("\n-- What roles can be given, root must be able to give.")
	line("GRANT CONNECT ON DATABASE %s TO %s WITH GRANT OPTION;", statement.QuoteIdent(s.Database), root)
	for _, schema := range s.Schemas {
		ident := statement.QuoteIdent(schema)
		line("GRANT USAGE ON SCHEMA %s TO %s WITH GRANT OPTION;", ident, root)
		line("GRANT %s ON ALL TABLES IN SCHEMA %s TO %s WITH GRANT OPTION;", rights, ident, root)
		line("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %s TO %s WITH GRANT OPTION;", ident, root)
		if s.Owner != "" {
			owner := statement.QuoteIdent(s.Owner)
			line("ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA %s GRANT %s ON TABLES TO %s WITH GRANT OPTION;", owner, ident, rights, root)
			line("ALTER DEFAULT PRIVILEGES FOR ROLE %s IN SCHEMA %s GRANT USAGE, SELECT ON SEQUENCES TO %s WITH GRANT OPTION;", owner, ident, root)
		}
	}
	return b.String(), nil
}
