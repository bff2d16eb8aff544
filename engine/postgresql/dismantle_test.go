package postgresql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// setup is a way to set root up, on a version.
type setup struct {
	major int
	way   way
}

// everyWay runs a test for each set-up of root on the versions that differ, and for those given beside
// them.
func everyWay(t *testing.T, test func(t *testing.T, s *source), more ...setup) {
	t.Helper()
	t.Parallel()
	for _, on := range append([]setup{{15, createRole}, {15, definer}, {17, createRole}, {17, definer}}, more...) {
		t.Run(fmt.Sprintf("%d/%s", on.major, on.way), func(t *testing.T) {
			t.Parallel()
			test(t, newSource(t, pgtest.Shared(t, on.major), on.way))
		})
	}
}

// TestRevokeWhatIsOwned gives a credential objects of every kind that needs
// something of its own, in two databases. Nothing may be lost: it belongs to
// the group afterwards, or to root where the group may create nothing.
func TestRevokeWhatIsOwned(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		other := s.server.CreateDB(t)
		e := s.open(t, nil)
		role := parseRole(t, readItems)
		c := issue(t, e, role)
		ident := statement.QuoteIdent(c.username)
		third := s.server.CreateDB(t)
		s.server.ExecIn(t, third, "CREATE TABLE public.plain (id int); ALTER TABLE public.plain OWNER TO "+ident)
		for _, db := range []string{s.db, other} {
			s.server.ExecIn(t, db, fmt.Sprintf(`CREATE SCHEMA work; GRANT ALL ON SCHEMA work TO %[1]s; SET ROLE %[1]s;
				CREATE TABLE work.t (id serial PRIMARY KEY, v text); INSERT INTO work.t (v) VALUES ('kept');
				CREATE VIEW work.w AS SELECT * FROM work.t; CREATE FUNCTION work.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE work.k AS ENUM ('a');
				GRANT SELECT ON work.t TO pg_monitor; RESET ROLE;
				CREATE VIEW public.of_others AS SELECT * FROM work.t;
				ALTER DEFAULT PRIVILEGES IN SCHEMA work GRANT SELECT ON TABLES TO pg_monitor;
				ALTER ROLE %[1]s SET work_mem = '8MB'`, ident))
		}
		s.login(t, c)
		// The rights on the schema were given by a superuser: those only a
		// superuser takes. Everything else goes.
		outcome := revoke(t, e, c.recipe)
		if !strings.Contains(outcome.Residue, "REVOKE ALL ON SCHEMA work FROM "+ident) || !strings.Contains(outcome.Residue, other) {
			t.Errorf("residue: %q", outcome.Residue)
		}
		if !s.loginFails(c) {
			t.Error("the credential logs in")
		}
		if n := s.count(t, "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid IN (m.roleid, m.member) WHERE r.rolname = $1 AND NOT m.admin_option", c.username); n != 0 {
			t.Errorf("the shell is in %d memberships", n)
		}
		for _, db := range []string{s.db, other} {
			s.server.ExecIn(t, db, fmt.Sprintf(`DO $$ BEGIN
				ASSERT (SELECT count(*) FROM work.t) = 1;
				ASSERT (SELECT tableowner FROM pg_tables WHERE schemaname = 'work') = '%s';
				END $$;
				REVOKE ALL ON SCHEMA work FROM %s CASCADE`, s.root, ident))
		}
		s.server.ExecIn(t, third, "DO $$ BEGIN ASSERT (SELECT starts_with(tableowner, 'sv_') FROM pg_tables WHERE tablename = 'plain'); END $$")

		// With the residue gone, the next attempt drops the account.
		if outcome := revoke(t, e, c.recipe); outcome.Residue != "" || s.roles(t, c.username) != 0 {
			t.Errorf("the account is kept: %s", outcome.Residue)
		}
	})
}

// TestRevokeForeignGrants has rights given by roles of which root is, and is
// not, a member.
func TestRevokeForeignGrants(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		friend, stranger := "friend_"+s.db, "stranger_"+s.db
		s.server.ExecIn(t, s.db, fmt.Sprintf(`CREATE ROLE %[1]s; CREATE ROLE %[2]s; GRANT %[1]s TO %[3]s; GRANT CREATE ON SCHEMA public TO %[1]s, %[2]s;
			SET ROLE %[1]s; CREATE TABLE public.friendly (id int, "od""d" int); RESET ROLE;
			SET ROLE %[2]s; CREATE TABLE public.strange (id int); RESET ROLE`, friend, stranger, s.root))
		ours, theirs := issue(t, e, parseRole(t, readItems)), issue(t, e, parseRole(t, readItems))
		grant := func(owner, table, to string) {
			s.server.ExecIn(t, s.db, fmt.Sprintf(`SET ROLE %s; GRANT SELECT ON public.%s TO %s`, owner, table, statement.QuoteIdent(to)))
		}
		grant(friend, "friendly", ours.username)
		s.server.ExecIn(t, s.db, fmt.Sprintf(`SET ROLE %s; GRANT UPDATE ("od""d") ON public.friendly TO %s`, friend, statement.QuoteIdent(ours.username)))
		grant(stranger, "strange", theirs.username)

		if outcome := revoke(t, e, ours.recipe); outcome.Residue != "" || s.roles(t, ours.username) != 0 {
			t.Errorf("a right by a role that root is a member of was not taken: %s", outcome.Residue)
		}
		outcome := revoke(t, e, theirs.recipe)
		want := "REVOKE ALL ON TABLE public.strange FROM " + statement.QuoteIdent(theirs.username)
		if !strings.Contains(outcome.Residue, want) || !strings.Contains(outcome.Residue, stranger) {
			t.Errorf("the residue %q does not say %q", outcome.Residue, want)
		}
		if p, err := e.Lookup(t.Context(), theirs.recipe); err != nil || p.State != engine.Unusable {
			t.Errorf("a shell is looked up as %v, %v", p.State, err)
		}
		s.server.ExecIn(t, s.db, fmt.Sprintf(`SET ROLE %s; %s`, stranger, want))
		if outcome := revoke(t, e, theirs.recipe); outcome.Residue != "" || s.roles(t, theirs.username) != 0 {
			t.Errorf("the account is kept: %s", outcome.Residue)
		}
	})
}

// TestRevokePreparedTransaction: left alone it would outlive its owner, and
// only a superuser could end it.
func TestRevokePreparedTransaction(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, parseRole(t, `{"privileges": ["SELECT, INSERT ON TABLE public.items", "USAGE ON SCHEMA public"]}`))
		gid := "left_" + s.db
		conn := s.login(t, c)
		for _, sql := range []string{"BEGIN", "INSERT INTO public.items VALUES (2, 'two')", "PREPARE TRANSACTION '" + gid + "'"} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		if outcome := revoke(t, e, c.recipe); outcome.Residue != "" {
			t.Errorf("residue: %s", outcome.Residue)
		}
		if n := s.count(t, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = $1", gid); n != 0 {
			t.Error("the prepared transaction outlived its owner")
		}
		if s.roles(t, c.username) != 0 {
			t.Error("the account exists")
		}
	})
}

// TestRevokeWaitsForNobody: somebody holds a lock on what the credential owns.
// The credential is dead for logins at once; the rest is tried again.
func TestRevokeWaitsForNobody(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		c := issue(t, e, parseRole(t, readItems))
		s.server.ExecIn(t, s.db, fmt.Sprintf(`GRANT CREATE ON SCHEMA public TO %[1]s; SET ROLE %[1]s; CREATE TABLE public.held (id int); RESET ROLE; REVOKE CREATE ON SCHEMA public FROM %[1]s`, statement.QuoteIdent(c.username)))
		holder := s.server.Connect(t, pgtest.Superuser, s.server.SuperPassword(), s.db)
		if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE public.held"); err != nil {
			t.Fatal(err)
		}
		_, err := e.Revoke(t.Context(), c.recipe)
		if err == nil {
			t.Error("revoked although the table could not be given away")
		}
		if !s.loginFails(c) {
			t.Error("the credential logs in while its revocation waits")
		}
		if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		if outcome := revoke(t, e, c.recipe); outcome.Residue != "" || s.roles(t, c.username) != 0 {
			t.Errorf("the account is kept: %s", outcome.Residue)
		}
	})
}

// TestRevocationStatements runs the operator's own, and does not depend on them.
func TestRevocationStatements(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	e := s.open(t, nil)
	for name, own := range map[string]string{
		"they do all":  `"REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM \"{{name}}\"", "DROP ROLE \"{{name}}\""`,
		"they fail":    `"DROP TABLE no_such_table"`,
		"they do less": `"SELECT 1"`,
	} {
		c := issue(t, e, parseRole(t, statements[:len(statements)-1]+`, "revocation_statements": [`+own+`]}`))
		if outcome := revoke(t, e, c.recipe); outcome.Residue != "" || s.roles(t, c.username) != 0 {
			t.Errorf("%s: the account is kept: %s", name, outcome.Residue)
		}
	}
}
