package e2e_test

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// A root as public tutorials make it can read the tables and give nothing away:
// GRANT by it only warns. The role is refused when it is saved, with the
// statement to run; after that statement it works.
func TestRootOfTheTutorial(t *testing.T) {
	t.Parallel()
	grant := regexp.MustCompile(`GRANT [^;]*? WITH GRANT OPTION`)
	for _, major := range []int{15, 17} {
		for name, role := range map[string]client.Document{"privileges": reader("reader"), "statements": direct("reader")} {
			t.Run(fmt.Sprint(major, " ", name), func(t *testing.T) {
				t.Parallel()
				v := newVault(t)
				s := &source{server: pgtest.Shared(t, major)}
				s.addr, s.db = s.server.Addr(), s.server.CreateDB(t)
				s.root, s.password = s.server.NewRoot(t, pgtest.CreateRole)
				s.server.ExecIn(t, s.db, `CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one');
					GRANT SELECT ON ALL TABLES IN SCHEMA public TO `+s.root)
				v.engine(t, s, "db", nil)

				// As often as something is missing: each refusal names the next.
				for missing := 0; ; missing++ {
					_, err := v.admin.CreateRole(t.Context(), "db", role)
					if err == nil && missing > 0 {
						break
					}
					var refused *client.Error
					if !errors.As(err, &refused) || refused.Code != client.InvalidConfig || missing > 3 {
						t.Fatalf("want invalid_config, got %v", err)
					}
					statement := grant.FindString(refused.Message)
					if !strings.Contains(statement, s.root) {
						t.Fatalf("the refusal names no statement to run: %s", refused.Message)
					}
					if _, err := v.admin.Role(t.Context(), "db", "reader"); !errors.Is(err, client.RoleNotFound) {
						t.Fatalf("the refused role was stored: %v", err)
					}
					s.server.ExecIn(t, s.db, statement)
				}
				s.readItems(t, v.issue(t, v.admin, "db", "reader", 0))
			})
		}
	}
}
