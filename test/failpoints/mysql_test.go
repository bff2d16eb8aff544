package failpoints_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/mysqltest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixMySQL kills the server at every point of which what the source has no
// transactions for is a part: a source that makes accounts step by step must leave no
// more than one that does not.
func TestCrashMatrixMySQL(t *testing.T) {
	t.Parallel()
	for _, kind := range mysqltest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			source := mysqltest.Start(t, kind)
			source.Exec(t, "CREATE DATABASE app", "CREATE TABLE app.items (id INT)")
			for name, form := range map[string]client.Document{
				"privileges": {"privileges": []string{"SELECT ON app.*"}},
				"statements": {"creation_statements": []string{"CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "GRANT SELECT ON app.* TO '{{name}}'@'%'"}},
			} {
				for _, s := range everywhere() {
					if !slices.Contains(mysqlPoints(name), s.point) {
						continue
					}
					t.Run(name+"/"+string(s.point), func(t *testing.T) {
						t.Parallel()
						role := newRole()
						inMySQL(t, source, form, role).play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t)))
					})
				}
			}
		})
	}
}

// mysqlPoints are those of a form of the role; how the root is rotated does not depend on it.
func mysqlPoints(form string) []failpoint.Point {
	points := []failpoint.Point{failpoint.F2, failpoint.F3, failpoint.F6, failpoint.R1, failpoint.Disabled, failpoint.R2, failpoint.R3}
	if form == "statements" {
		return append(points, failpoint.F4)
	}
	return append(points, failpoint.RootKept, failpoint.RootSent, failpoint.RootSet, failpoint.RootProved, failpoint.RootPromoted)
}

// inMySQL makes the root of the guide, under a name of its own.
func inMySQL(t *testing.T, source *mysqltest.Server, form client.Document, role string) target {
	t.Helper()
	root := "root_" + role
	guide, err := os.ReadFile("../../docs/engines/mysql.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(guide), "```"+source.Kind+"\n")
	block, _, _ = strings.Cut(block, "```")
	for _, statement := range strings.Split(strings.TrimSpace(block), ";\n") {
		source.Exec(t, strings.TrimSuffix(strings.ReplaceAll(statement, "'scaivault'", "'"+root+"'"), ";"))
	}
	return target{
		engine: "database",
		config: client.Document{"plugin": "mysql", "connection_url": "mysql://{{username}}:{{password}}@" + source.Addr() + "/"},
		form:   form,
		root:   rootOf(root),
		users: func(t *testing.T) (names []string) {
			t.Helper()
			for _, row := range source.Query(t, "SELECT User FROM mysql.user WHERE User LIKE 'v\\_"+role+"\\_%'") {
				names = append(names, row[0])
			}
			return names
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			session, err := source.Login(t.Context(), data["username"], data["password"], "app")
			if err == nil {
				session.Close()
			}
			return err
		},
	}
}
