package mysql_test

import (
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/mysql"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// mustWork fails unless the credential reads the schema right after login.
func (s *source) mustWork(t testing.TB, c credential) session {
	t.Helper()
	opened, err := s.login(t.Context(), c.Data)
	if err != nil {
		t.Fatalf("log in with a credential and read: %v", err)
	}
	t.Cleanup(opened.Close)
	return opened
}

// mustBeGone fails if there is an account of the name, or whoever has the password
// logs in.
func (s *source) mustBeGone(t testing.TB, c credential) {
	t.Helper()
	if opened, err := s.server.Login(t.Context(), c.Username, c.password(), ""); err == nil {
		opened.Close()
		t.Errorf("%s logs in", c.Username)
	}
	if s.server.Exists(t, c.Username) {
		t.Errorf("the account %s is there", c.Username)
	}
}

// Every right is given as the role says it, and none beside.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		like := strings.Replace(s.app, "_", "x", 1) // what the name would match as a pattern
		s.server.Exec(t, "CREATE DATABASE "+like, "CREATE TABLE "+like+".orders (id INT)", "CREATE TABLE "+s.app+".other (a INT, b INT)",
			"CREATE PROCEDURE "+s.app+".p() SELECT 1", "GRANT SELECT ON "+like+".* TO '"+s.root+"'@'%' WITH GRANT OPTION",
			"GRANT EXECUTE ON "+s.app+".* TO '"+s.root+"'@'%' WITH GRANT OPTION")
		e := s.open(t, nil)
		role := parseRole(t, fields{"host": "127.0.0.1", "privileges": []string{
			"SELECT ON " + s.app + ".orders", "SELECT (a), UPDATE (b) ON " + s.app + ".other", "EXECUTE ON PROCEDURE " + s.app + ".p"}})
		if _, err := e.PrepareRole(t.Context(), "reader", role); err != nil {
			t.Fatalf("prepare the role: %v", err)
		}
		c := issue(t, e, role)
		opened := s.mustWork(t, c)
		for statement, allowed := range map[string]bool{
			"SELECT a FROM " + s.app + ".other": true, "SELECT b FROM " + s.app + ".other": false,
			"UPDATE " + s.app + ".other SET b = 1": true, "DELETE FROM " + s.app + ".orders": false,
			"CALL " + s.app + ".p()": true, "SELECT * FROM mysql.user": false, "CREATE TABLE " + s.app + ".mine (a INT)": false,
		} {
			rows, err := opened.QueryContext(t.Context(), statement)
			if err == nil {
				rows.Close()
			}
			if (err == nil) != allowed {
				t.Errorf("%s: %v", statement, err)
			}
		}
		revoke(t, e, c.recipe)
		s.mustBeGone(t, c)

		whole := issue(t, e, s.reader(t))
		if rows, err := s.mustWork(t, whole).QueryContext(t.Context(), "SELECT * FROM "+like+".orders"); err == nil {
			rows.Close()
			t.Error("the name of the schema was taken for a pattern")
		}
		revoke(t, e, whole.recipe)
	})
}

// What fails after the account was made leaves no account.
func TestHalfMadeIsTakenBack(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		for name, role := range map[string]engine.Role{
			"a right that root has not": parseRole(t, fields{"privileges": []string{"CREATE ON " + s.app + ".*"}}),
			"a statement that fails":    parseRole(t, fields{"creation_statements": []string{createUser, "GRANT SELECT ON " + s.app + ".nosuch TO '{{name}}'@'%'"}}),
			"a user twice":              parseRole(t, fields{"creation_statements": []string{createUser, createUser}}),
			"nobody of the name":        parseRole(t, fields{"creation_statements": []string{"CREATE USER 'x{{name}}'@'localhost' IDENTIFIED BY '{{password}}'", "DROP USER 'x{{name}}'@'localhost'"}}),
		} {
			p := plan(t, e, role)
			_, err := e.Issue(t.Context(), p)
			if kind := engine.KindOf(err); kind != engine.Refused && kind != engine.Misconfigured {
				t.Errorf("%s: kind %d: %v", name, kind, err)
			}
			s.mustBeGone(t, credential{p, p.Recipe})
		}
	})
}

// A role that cannot work is refused when it is saved, in words that say what to
// do, and leaves nothing.
func TestPrepareRoleRefuses(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		for says, document := range map[string]fields{
			"GRANT CREATE ON ":               {"privileges": []string{"CREATE ON " + s.app + ".*"}},
			"nosuch":                         {"privileges": []string{"SELECT ON " + s.app + ".nosuch"}},
			"statement 2 of 2":               {"creation_statements": []string{createUser, "GRANT SELECT ON " + s.app + ".nosuch TO '{{name}}'@'%'"}},
			"statement 1 of 1: syntax error": {"creation_statements": []string{"CREATE USR '{{name}}' IDENTIFIED BY '{{password}}'"}},
			"make no account named {{name}}": {"creation_statements": []string{"SELECT '{{name}}'"}},
		} {
			_, err := e.PrepareRole(t.Context(), "reader", parseRole(t, document))
			if fault.CodeOf(err) != fault.InvalidConfig || !strings.Contains(err.Error(), says) {
				t.Errorf("want %q: %v", says, err)
			}
		}
		for _, row := range s.server.Query(t, "SELECT User FROM mysql.user") {
			if s.namer.Ours(row[0]) {
				t.Errorf("the rehearsal left %s", row[0])
			}
		}
		warnings, err := e.PrepareRole(t.Context(), "plain", parseRole(t, fields{"password_form": "plain", "creation_statements": []string{createUser}}))
		if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "plain") {
			t.Errorf("plain: %v, %v", warnings, err)
		}
	})
}

// The ways in which templates give a password all work, and all but plain keep it
// from the source.
func TestStatements(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		grant := "GRANT SELECT ON " + s.app + ".* TO '{{name}}'@'%'"
		for name, document := range map[string]fields{
			"plain":        {"password_form": "plain", "creation_statements": []string{createUser, grant}},
			"the server's": {"creation_statements": []string{"CREATE USER {{name}}@'%' IDENTIFIED WITH {{auth_plugin}} AS {{password}}", grant}},
			"with a limit": {"creation_statements": []string{createUser + " WITH MAX_USER_CONNECTIONS 5 # few", grant}},
			"altered":      {"creation_statements": []string{"CREATE USER '{{name}}'@'%'", "ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", grant}},
			"two hosts":    {"creation_statements": []string{createUser, grant, "CREATE USER '{{name}}'@'10.0.0.1' IDENTIFIED BY '{{password}}'"}},
			"a database":   {"creation_statements": []string{createUser, grant, "CREATE DATABASE IF NOT EXISTS seen_by_both_logs"}},
		} {
			if name == "a database" {
				s.server.Exec(t, "GRANT CREATE ON seen_by_both_logs.* TO '"+s.root+"'@'%'")
			}
			role := parseRole(t, document)
			if _, err := e.PrepareRole(t.Context(), "reader", role); err != nil {
				t.Errorf("%s: prepare: %v", name, err)
				continue
			}
			c := issue(t, e, role)
			s.mustWork(t, c)
			general, binary := s.server.Log(t)
			if logged := strings.Contains(general+binary, c.password()); logged && name != "plain" {
				t.Errorf("%s: the password is in a log of the server", name)
			}
			if found, err := e.Lookup(t.Context(), c.recipe); err != nil || found.State != engine.Usable {
				t.Errorf("%s: looked up as %d, %v", name, found.State, err)
			}
			revoke(t, e, c.recipe)
			s.mustBeGone(t, c)
		}
	})
}

// Accounts that a template makes in a way that leaves no mark are ended by their
// name, and operators' own statements at the end run, or do not hinder.
func TestOwnProcedures(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		s.server.Exec(t, "GRANT EXECUTE, CREATE, DROP ON "+s.app+".* TO '"+s.root+"'@'%'",
			"CREATE PROCEDURE "+s.app+".make(name VARCHAR(80), pw VARCHAR(80)) BEGIN SET @s = CONCAT('CREATE USER ', QUOTE(name), '@''%'' IDENTIFIED BY ', QUOTE(pw)); PREPARE s FROM @s; EXECUTE s; "+
				"SET @s = CONCAT('GRANT SELECT ON "+s.app+".* TO ', QUOTE(name), '@''%'''); PREPARE s FROM @s; EXECUTE s; END",
			"CREATE PROCEDURE "+s.app+".ended(name VARCHAR(80)) INSERT INTO "+s.app+".orders VALUES (2)")
		e := s.open(t, nil)
		role := parseRole(t, fields{"password_form": "plain", "creation_statements": []string{"CALL " + s.app + ".make('{{name}}', '{{password}}')"},
			"revocation_statements": []string{"CALL " + s.app + ".ended('{{name}}')", "CALL " + s.app + ".nosuch('{{name}}')"},
			"renew_statements":      []string{"CREATE TABLE " + s.app + ".`{{name}}` (a INT)"}})
		c := issue(t, e, role)
		s.mustWork(t, c)
		if err := e.Renew(t.Context(), c.recipe, c.ExpiresAt); err != nil {
			t.Errorf("renew: %v", err)
		}
		if rows := s.server.Query(t, "SHOW TABLES IN "+s.app+" LIKE 'v%'"); len(rows) != 1 {
			t.Errorf("the renewal's statement made %v", rows)
		}
		revoke(t, e, c.recipe)
		s.mustBeGone(t, c)
		if rows := s.server.Query(t, "SELECT id FROM "+s.app+".orders WHERE id = 2"); len(rows) != 1 {
			t.Error("the revocation's statement did not run")
		}
	})
}

// Names keep the limit of the kind of server, and custom ones are ours, too.
func TestNames(t *testing.T) {
	t.Parallel()
	limits := map[string]int{mysqltest.MySQL: 32, mysqltest.MariaDB: 80}
	eachKind(t, func(t *testing.T, s *source) {
		limit := limits[s.server.Kind]
		e := s.open(t, nil)
		long, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: "lease_x", RoleName: strings.Repeat("r", 63), Role: s.reader(t)})
		if err != nil || len(long.Username) > limit || s.server.Kind == mysqltest.MySQL && len(long.Username) != limit {
			t.Errorf("%s has %d bytes, %v", long.Username, len(long.Username), err)
		}
		c := issue(t, s.open(t, fields{"username_template": "App-{{random:12}}.x"}), s.reader(t))
		s.mustWork(t, c)
		if !strings.HasPrefix(c.Username, "App-") {
			t.Errorf("the template gives %s", c.Username)
		}
		revoke(t, e, c.recipe)
		s.mustBeGone(t, c)

		options := s.options(fields{"username_template": "a_name_that_has_more_than_32_characters_{{random:11}}"})
		opened, err := mysql.Type{}.Open(t.Context(), options)
		if (err == nil) != (s.server.Kind == mysqltest.MariaDB) {
			t.Errorf("a long template on %s: %v", s.server.Kind, err)
		}
		if opened != nil {
			opened.Close()
		}
	})
}

func TestForeignParametersAreRefused(t *testing.T) {
	t.Parallel()
	s := shared(t, mysqltest.MariaDB)
	e := s.open(t, nil)
	for i, r := range []engine.PlanRequest{{Role: "no role"}, {Role: s.reader(t), Params: []byte(`{"database": "x"}`)}} {
		if _, err := e.Plan(t.Context(), r); err == nil {
			t.Errorf("request %d was planned", i)
		}
	}
}
