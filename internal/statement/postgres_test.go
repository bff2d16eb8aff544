package statement_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

var variables = []string{"name", "password", "expiration", "role"}

func render(t *testing.T, source string, values map[string]string) []string {
	t.Helper()
	sql, err := statement.ParsePostgres(source, variables...)
	if err != nil {
		t.Fatalf("%q: %v", source, err)
	}
	secrets, err := sql.Render(values)
	if err != nil {
		t.Fatalf("%q: %v", source, err)
	}
	var texts []string
	for _, s := range secrets {
		texts = append(texts, s.Reveal())
	}
	return texts
}

func TestParsePostgresQuotesByPlace(t *testing.T) {
	t.Parallel()
	values := map[string]string{"name": `n"'\`, "password": `p"'\`, "expiration": "2026-01-02", "role": "r"}
	for source, want := range map[string][]string{
		`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`: {
			`CREATE ROLE "n""'\" LOGIN PASSWORD 'p"''\' VALID UNTIL '2026-01-02'`},
		`CREATE ROLE {{name}} PASSWORD {{password}} VALID UNTIL {{expiration}};`: {
			`CREATE ROLE "n""'\" PASSWORD E'p"''\\' VALID UNTIL '2026-01-02'`},
		`SELECT E'{{name}}', e'a\'{{name}}'`:                    {`SELECT E'n"''\\', e'a\'n"''\\'`},
		`SELECT 1E'{{name}}'`:                                   {`SELECT 1E'n"''\\'`},
		`SELECT $1E'{{name}}'`:                                  {`SELECT $1E'n"''\\'`},
		`SELECT notE'{{name}}'`:                                 {`SELECT notE'n"''\'`},
		`SELECT N'{{name}}', f({{role}},{{name}})`:              {`SELECT N'n"''\', f('r',"n""'\")`},
		`SELECT '{{role}}-{{role}}', "x{{role}}y"`:              {`SELECT 'r-r', "xry"`},
		`SELECT '/*', "--", '{{role}}' -- it's`:                 {`SELECT '/*', "--", 'r'`},
		"/* a /* ; nested */ ' */ SELECT 1 --;\r; ; SELECT 2;;": {"SELECT 1", "SELECT 2"},
		`SELECT ';', ";", $$;$$, $a$;$b$;$$;$a$; SELECT a$b$c`:  {`SELECT ';', ";", $$;$$, $a$;$b$;$$;$a$`, `SELECT a$b$c`},
		`CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 3`: {
			`CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b)`, `SELECT 3`},
		`DO $$BEGIN PERFORM 1; END$$; GRANT a TO "{{name}}"`: {`DO $$BEGIN PERFORM 1; END$$`, `GRANT a TO "n""'\"`},
		`ALTER ROLE "{{name}}" SET role = x; SET LOCAL search_path = a; SET TIME ZONE 'UTC'; RESET work_mem; SET CONSTRAINTS ALL DEFERRED`: {
			`ALTER ROLE "n""'\" SET role = x`, `SET LOCAL search_path = a`, `SET TIME ZONE 'UTC'`, `RESET work_mem`, `SET CONSTRAINTS ALL DEFERRED`},
		`SELECT U&'x' UESCAPE '!', B'01', X'ff', "commit", 'ROLLBACK'`: {`SELECT U&'x' UESCAPE '!', B'01', X'ff', "commit", 'ROLLBACK'`},
		`PREPARE p AS SELECT 1; COPY t TO '/tmp/x'; "commit"`:          {`PREPARE p AS SELECT 1`, `COPY t TO '/tmp/x'`, `"commit"`},
	} {
		if got := render(t, source, values); !slices.Equal(got, want) {
			t.Errorf("%s\n gives %q\n want  %q", source, got, want)
		}
	}
}

func TestParsePostgresRefuses(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		// no statement, or a broken one
		"", " ;; ", "-- x", "/* x */", "SELECT 'x", `SELECT "x`, "SELECT $$x", "SELECT $a$x$b$", "/* /* */", "SELECT E'x\\'", "SELECT (1", "SELECT 1)", "SELECT (;", `\dt`,
		"SELECT '\x00'", "SELECT '\xff'",
		// variables
		"SELECT '{{nmae}}'", "SELECT '{{name'", "SELECT 'name}}'", "SELECT '{{}}'", "SELECT '{{ name }}'", "SELECT '{{{name}}}'", "SELECT '{{name}}}}'", "SELECT '{{lease_id}}'",
		"SELECT $$ {{name}} $$", "DO $x$ BEGIN {{name}} END $x$", "SELECT 1 -- {{name}}", "/* {{name}} */ SELECT 1", "SELECT U&'{{name}}'", `SELECT U&"{{name}}"`, "SELECT X'{{name}}'", "SELECT b'{{name}}'",
		"SELECT x{{name}}", "SELECT {{name}}x", "SELECT {{name}}1", "SELECT {{name}}{{name}}", "SELECT {{name}}{{password}}", "SELECT '{{name}}'{{password}}", `SELECT "a"{{name}}`, "SELECT E{{password}}", "SELECT U&{{name}}", "SELECT {{name}}$$x$$", "SELECT ${{name}}$",
		// strings that the source would join
		"SELECT 'a'\n'{{name}}'", "SELECT E'a'\n'{{name}}'", "SELECT E'a' -- x\n '{{name}}'", "SELECT E'a'\n{{password}}", "SELECT {{password}}\n'a'", "SELECT {{password}}\n{{expiration}}",
		// transactions, users, session
		"BEGIN", "begin;", "Start Transaction", "COMMIT", "/* x */ commit /* y */", "SELECT 1; --\nCOMMIT", "SELECT 1;\rCOMMIT", "END", "ROLLBACK", "ROLLBACK PREPARED 'x'", "COMMIT PREPARED 'x'", "ABORT", "SAVEPOINT a", "RELEASE a",
		"PREPARE TRANSACTION 'x'", "prepare/**/transaction 'x'", "SET ROLE x", "set\nrole x", "SET/**/ROLE/**/x", "SET LOCAL ROLE x", "SET SESSION ROLE x", "SET ROLE = x", `SET "role" TO x`, `SET "ROLE" TO x`, `SET U&"rol\0065" TO x`,
		"SET SESSION AUTHORIZATION x", "SET LOCAL SESSION AUTHORIZATION x", "SET SESSION SESSION AUTHORIZATION x", "SET session_authorization = x", "RESET ROLE", "RESET SESSION AUTHORIZATION", "RESET ALL", "DISCARD ALL",
		"SET TRANSACTION READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET transaction_read_only = on", "SET standard_conforming_strings = off", "SET LOCAL standard_conforming_strings TO off", "SET NAMES 'SJIS'", "SET client_encoding = SJIS",
		"COPY t FROM STDIN", "COPY t TO stdout", "COPY t FROM PROGRAM 'id'", "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
		"SELECT 1; SELECT ';' ; ROLLBACK",
	} {
		if sql, err := statement.ParsePostgres(source, variables...); !errors.Is(err, fault.InvalidConfig) {
			t.Errorf("%q: %v, %v; want invalid_config", source, sql, err)
		}
	}
}

func TestSQLAnswersWhatItHolds(t *testing.T) {
	t.Parallel()
	sql, err := statement.ParsePostgres(`CREATE ROLE "{{name}}" VALID /* x */ until '{{expiration}}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"; SELECT 'drop role', "a b"`, variables...)
	if err != nil {
		t.Fatal(err)
	}
	if sql.Len() != 3 || !sql.Uses("name") || !sql.Uses("expiration") || sql.Uses("password") {
		t.Error("Len or Uses is wrong")
	}
	for keywords, want := range map[string]bool{
		"VALID UNTIL": true, "valid until": true, "GRANT SELECT ON ALL TABLES": true, "UNTIL GRANT": false, "drop role": false, "CREATE ROLE VALID": false, "ROLE": true,
	} {
		if got := sql.Has(strings.Fields(keywords)...); got != want {
			t.Errorf("Has(%s) = %v", keywords, got)
		}
	}
}

func TestRenderRefusesValues(t *testing.T) {
	t.Parallel()
	sql, err := statement.ParsePostgres(`CREATE ROLE "{{name}}"`, variables...)
	if err != nil {
		t.Fatal(err)
	}
	for _, values := range []map[string]string{nil, {"password": "x"}, {"name": "a\x00b"}, {"name": "a\xffb"}} {
		if out, err := sql.Render(values); err == nil {
			t.Errorf("%q gives %q", values, out)
		}
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	template, err := statement.Parse("postgresql://{{username}}:{{password}}@db/{x}?a={", "username", "password", "unused")
	if err != nil {
		t.Fatal(err)
	}
	if !template.Uses("username") || template.Uses("unused") {
		t.Error("Uses is wrong")
	}
	got, err := template.Render(map[string]string{"username": "{{password}}", "password": "p"},
		func(variable, value string) (string, error) { return "<" + variable + "=" + value + ">", nil })
	if want := "postgresql://<username={{password}}>:<password=p>@db/{x}?a={"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for text, says := range map[string]string{
		"a{{b}}c": "{{b}} at byte 1", "ab{{username": "byte 2", "a}}{{username}}": "byte 1", "{{username}}}}": "byte 12", "{{user name}}": "byte 0", "a\xff": "UTF-8", "a\x00": "NUL",
	} {
		if _, err := statement.Parse(text, "username"); !errors.Is(err, fault.InvalidConfig) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want invalid_config that says %q", text, err, says)
		}
	}
}

func TestQuote(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][2]string{
		"a":      {`"a"`, `'a'`},
		"":       {`""`, `''`},
		`a"b'c`:  {`"a""b'c"`, `'a"b''c'`},
		`a\'b`:   {`"a\'b"`, `E'a\\''b'`},
		"a\x00b": {"\"a\ufffdb\"", "'a\ufffdb'"},
	} {
		if got := [2]string{statement.QuoteIdent(in), statement.QuoteLiteral(in)}; got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
