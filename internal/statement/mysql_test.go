package statement_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

func TestQuoteMySQL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"app": "`app`", "a`b": "`a``b`", `a"b'c\`: "`a\"b'c\\`", "a\x00b": "`a\ufffdb`",
	} {
		if got := statement.QuoteMySQLName(in); got != want {
			t.Errorf("name %q: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"app": "'app'", "a'b": "'a''b'", `a\b`: `'a\\b'`, `\'`: `'\\'''`, `a"b`: `'a"b'`, "a\x00b": "'a\ufffdb'",
	} {
		if got := statement.QuoteMySQLText(in); got != want {
			t.Errorf("text %q: %s, want %s", in, got, want)
		}
	}
}

func TestParseMySQLQuotesWhereAVariableStands(t *testing.T) {
	t.Parallel()
	values := map[string]string{"name": "v'`\"\\x", "password": `p'"\`}
	for template, want := range map[string]string{
		"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}';": "CREATE USER 'v''`\"\\\\x'@'%' IDENTIFIED BY 'p''\"\\\\'",
		"CREATE USER {{name}}@localhost":                           "CREATE USER `v'``\"\\x`@localhost",
		"DROP USER `{{name}}`@`%`":                                 "DROP USER `v'``\"\\x`@`%`",
		`SELECT "{{password}}", {{password}}`:                      `SELECT "p'""\\", 'p''"\\'`,
		"SELECT 1 -- it's a comment\n, 2 # and ' another":          "SELECT 1 -- it's a comment\n, 2",
		"SELECT 1 --1, '{{password}}'":                             `SELECT 1 --1, 'p''"\\'`,
		"SELECT '\\'; {{password}}'":                               `SELECT '\'; p''"\\'`,
		"SELECT N'{{password}}', x'00', 1e5, /* ; */ a.`b``c`;":    "SELECT N'p''\"\\\\', x'00', 1e5, /* ; */ a.`b``c`",
	} {
		sql, err := statement.ParseMySQL(template, "name", "password")
		if err != nil {
			t.Errorf("%s: %v", template, err)
			continue
		}
		rendered, err := sql.Render(values)
		if err != nil || len(rendered) != 1 || rendered[0].Reveal() != want {
			t.Errorf("%s becomes %q, %v; want %q", template, reveal(rendered), err, want)
		}
	}
}

func TestParseMySQLCutsStatements(t *testing.T) {
	t.Parallel()
	sql, err := statement.ParseMySQL("create /* x */ USER `{{name}}`@'a;b' ; ; GRANT SELECT ON `a;b`.* TO '{{name}}' # ; end\n;", "name")
	if err != nil || sql.Len() != 2 || !sql.Begins(0, "create", "user") || sql.Begins(1, "create") || !sql.Begins(1, "GRANT") {
		t.Errorf("%+v, %v", sql, err)
	}
}

func TestParseMySQLRefuses(t *testing.T) {
	t.Parallel()
	for _, template := range []string{
		"", ";", "CREATE USER '{{nobody}}'", "CREATE USER '{{name}}", "SELECT `{{name}}", `SELECT "x`, "SELECT 1 /* {{name}} */", "SELECT 1 -- {{name}}",
		"SELECT 1 # {{name}}", "SELECT 1 /* x", "/*!50000 DROP USER x */", "/*M! DROP USER x */", "SELECT x'{{name}}'", "SELECT v_{{name}}", "SELECT 'a'{{name}}",
		"SELECT 'a' '{{name}}'", `SELECT 1 \g`, "BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "XA START 'x'", "SET sql_mode = ''", "set @@session.sql_mode=''",
		"SET NAMES gbk", "SET GLOBAL x=1", "SET ROLE ALL", "USE mysql", "LOCK TABLES a READ", "UNLOCK TABLES", "PREPARE s FROM 'x'", "EXECUTE s", "KILL 1",
		"LOAD DATA LOCAL INFILE 'x' INTO TABLE t", "DELIMITER //", "SELECT (1", "SELECT 1)",
	} {
		if _, err := statement.ParseMySQL(template, "name"); !errors.Is(err, fault.InvalidConfig) {
			t.Errorf("%q: %v, want invalid_config", template, err)
		}
	}
	for _, template := range []string{"SET PASSWORD FOR '{{name}}' = 'x'", "SET DEFAULT ROLE ALL TO '{{name}}'", "FLUSH PRIVILEGES", "CALL admin.make('{{name}}')"} {
		if _, err := statement.ParseMySQL(template, "name"); err != nil {
			t.Errorf("%q: %v", template, err)
		}
	}
}

func reveal(secrets []statement.Secret) string {
	texts := make([]string, len(secrets))
	for i, s := range secrets {
		texts[i] = s.Reveal()
	}
	return strings.Join(texts, "; ")
}
