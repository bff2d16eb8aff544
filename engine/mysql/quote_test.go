package mysql_test

import (
	"context"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// FuzzQuote has real servers read what was quoted: a text comes back as it is, and a
// name names a schema of that very name, in a session as the engine's are.
func FuzzQuote(f *testing.F) {
	for _, seed := range []string{"app", "a'b", `a\`, `\'`, "a`b", `"`, "a;b", "-- ", "/*", "#", "%_", "ü😀", "\x1a\n\r\t", "' OR 1=1 -- ", "`; DROP", "\\`'\"", "{{name}}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return
		}
		for _, kind := range mysqltest.Kinds() {
			server := servers.Shared(t, kind)
			opened, err := server.Login(t.Context(), quoter(t, server), rootPassword, "")
			if err != nil {
				t.Fatal(err)
			}
			var back, alias string
			query := "SELECT " + statement.QuoteMySQLText(text) + " AS `back`, 1 AS `alias`"
			if err := opened.QueryRowContext(context.Background(), query).Scan(&back, &alias); err != nil || back != text {
				t.Errorf("%s: the text %q comes back as %q, %v", kind, text, back, err)
			}
			if name := strings.TrimSpace(text); name != "" && name == text && len([]rune(name)) < 60 && !strings.ContainsFunc(name, beyondBMP) {
				rows, err := opened.QueryContext(context.Background(), "SELECT 1 AS "+statement.QuoteMySQLName(name))
				if err != nil {
					t.Errorf("%s: the name %q: %v", kind, name, err)
				} else {
					if columns, err := rows.Columns(); err != nil || columns[0] != name {
						t.Errorf("%s: the name %q comes back as %v, %v", kind, name, columns, err)
					}
					rows.Close()
				}
			}
			opened.Close()
		}
	})
}

// beyondBMP tells what the servers keep in no name.
func beyondBMP(r rune) bool { return r > 0xffff || r == utf8.RuneError }

// quoter is a user who may do nothing.
func quoter(t testing.TB, server *mysqltest.Server) string {
	t.Helper()
	server.Exec(t, "CREATE USER IF NOT EXISTS 'quoter'@'%' IDENTIFIED BY '"+rootPassword+"'")
	return "quoter"
}

// A schema may be named like an attack: rights are given on it, and on nothing else.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		for i, name := range []string{"a`b'c\"d", "x'; DROP USER root; -- x", `back\slash`, "100%_sure", "sp ace", "ünï"} {
			name = s.app + name
			quoted := statement.QuoteMySQLName(name)
			pattern := statement.QuoteMySQLName(strings.NewReplacer(`\`, `\\`, `_`, `\_`, `%`, `\%`).Replace(name))
			s.server.Exec(t, "CREATE DATABASE "+quoted, "CREATE TABLE "+quoted+".orders (id INT)", "INSERT INTO "+quoted+".orders VALUES (1)",
				"GRANT SELECT ON "+pattern+".* TO '"+s.root+"'@'%' WITH GRANT OPTION")
			again := s.open(t, nil) // with the new right
			role := parseRole(t, fields{"privileges": []string{"SELECT ON " + quoted + ".*"}})
			if i%2 == 1 {
				role = parseRole(t, fields{"privileges": []string{"SELECT ON " + quoted + ".orders"}})
			}
			c := issue(t, again, role)
			opened, err := s.server.Login(t.Context(), c.Username, c.password(), "")
			if err != nil {
				t.Fatal(err)
			}
			var n int
			if err := opened.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+quoted+".orders").Scan(&n); err != nil || n != 1 {
				t.Errorf("%q: %v", name, err)
			}
			if err := opened.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+s.app+".orders").Scan(&n); err == nil {
				t.Errorf("a right on %q is one on another schema", name)
			}
			opened.Close()
			revoke(t, e, c.recipe)
			s.mustBeGone(t, c)
			s.server.Exec(t, "DROP DATABASE "+quoted)
		}
	})
}
