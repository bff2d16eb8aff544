package mysql_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// groups are the roles at the source with the rights of this source's schema.
func (s *source) groups(t testing.TB) (names []string) {
	t.Helper()
	for _, row := range s.server.Query(t, "SELECT DISTINCT User FROM mysql.db WHERE User LIKE 'sv\\_%' AND REPLACE(Db, '\\\\', '') = '"+s.app+"'") {
		names = append(names, row[0])
	}
	return names
}

// onMySQL runs a test against MySQL, where there is one.
func onMySQL(t *testing.T, run func(t *testing.T, s *source)) {
	t.Helper()
	for _, kind := range mysqltest.Kinds() {
		if kind == mysqltest.MySQL {
			run(t, shared(t, kind))
		}
	}
}

// The credentials of a role share one group; another set of rights is another one,
// and the former goes with its last member.
func TestGroups(t *testing.T) {
	t.Parallel()
	onMySQL(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		a, b := issue(t, e, s.reader(t)), issue(t, e, s.reader(t))
		first := s.groups(t)
		if len(first) != 1 {
			t.Fatalf("two credentials of a role have the groups %v", first)
		}
		writer := parseRole(t, fields{"privileges": []string{"SELECT, INSERT ON " + s.app + ".*"}})
		if _, err := e.PrepareRole(t.Context(), "reader", writer); err != nil {
			t.Fatal(err)
		}
		c := issue(t, e, writer)
		if found := s.groups(t); len(found) != 2 {
			t.Errorf("after the role was edited there are the groups %v", found)
		}
		s.mustWork(t, a)
		if _, err := s.mustWork(t, b).ExecContext(t.Context(), "INSERT INTO "+s.app+".orders VALUES (7)"); err == nil {
			t.Error("a credential from before got the rights that the role has now")
		}
		revoke(t, e, a.recipe)
		s.mustWork(t, b)
		revoke(t, e, b.recipe)
		if found := s.groups(t); len(found) != 1 || found[0] == first[0] {
			t.Errorf("after the last member of the former group went there are %v", found)
		}
		revoke(t, e, c.recipe)
		if found := s.groups(t); len(found) != 1 {
			t.Errorf("the group in use was dropped: %v", found)
		}
	})
}

// A group that another node or an administrator dropped is made again; one that
// somebody else made by that name is not touched.
func TestGroupIsMadeAgain(t *testing.T) {
	t.Parallel()
	onMySQL(t, func(t *testing.T, s *source) {
		options := s.options(nil)
		e := open(t, options)
		c := issue(t, e, s.reader(t))
		group := s.groups(t)[0]
		revoke(t, e, c.recipe)
		s.server.Exec(t, "DROP ROLE '"+group+"'")
		again := issue(t, e, s.reader(t))
		s.mustWork(t, again)
		revoke(t, e, again.recipe)

		s.server.Exec(t, "DROP ROLE '"+group+"'", "CREATE ROLE '"+group+"'")
		_, err := open(t, options).Issue(t.Context(), plan(t, open(t, options), s.reader(t)))
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), group) {
			t.Errorf("a stranger's role was used: %v", err)
		}
		s.server.Exec(t, "DROP ROLE '"+group+"'")
	})
}

// A group that is retired while others make members of it never leaves one without
// its rights.
func TestRetiringLosesNoRights(t *testing.T) {
	t.Parallel()
	onMySQL(t, func(t *testing.T, s *source) {
		options := s.options(nil)
		issuer, retirer := open(t, options), open(t, options) // the second does not know the group as one in use
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 15 {
					p := plan(t, issuer, s.reader(t))
					recipe, err := issuer.Issue(t.Context(), p)
					if err != nil {
						t.Errorf("issue: %v", err)
						return
					}
					if opened, err := s.login(t.Context(), p.Data); err != nil {
						t.Errorf("a credential has not the rights of its role: %v", err)
					} else {
						opened.Close()
					}
					if _, err := retirer.Revoke(t.Context(), recipe); err != nil {
						t.Errorf("revoke: %v", err)
					}
				}
			})
		}
		wg.Wait()
	})
}
