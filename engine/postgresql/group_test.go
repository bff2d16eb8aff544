package postgresql_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestRoleWithoutGrantOption: GRANT then only warns, and a credential would
// read nothing. The role is refused, and the message is the remedy.
func TestRoleWithoutGrantOption(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		server := pgtest.Shared(t, major)
		for form, document := range map[string]string{"privileges": readItems, "statements": statements} {
			s := &source{server: server, db: server.CreateDB(t), addr: server.Addr(), namer: namer()}
			s.root, s.password = server.NewRoot(t, pgtest.CreateRole)
			server.ExecIn(t, s.db, "CREATE TABLE public.items (id int, name text); INSERT INTO public.items VALUES (1, 'one'); GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+s.root)
			e := s.open(t, nil)
			role := parseRole(t, document)
			for range 10 {
				_, err := e.PrepareRole(t.Context(), "reader", role)
				if err == nil {
					break
				}
				var f *fault.Error
				if !errors.As(err, &f) || f.Code != fault.InvalidConfig {
					t.Fatalf("%d %s: %v", major, form, err)
				}
				at := strings.LastIndex(f.Message, ": GRANT ")
				if at < 0 || !strings.Contains(f.Message, "WITH GRANT OPTION") {
					t.Fatalf("%d %s: the message names no remedy: %s", major, form, f.Message)
				}
				server.ExecIn(t, s.db, f.Message[at+2:]) // run as it is, by the owner
			}
			c := issue(t, e, role)
			if !(session{s.login(t, c)}).Works(t.Context()) {
				t.Errorf("%d %s: the credential reads nothing", major, form)
			}
			revoke(t, e, c.recipe)
		}
	}
}

// TestLaterTables: a table that was made after the role is readable by the next
// credential, and by the ones before.
func TestLaterTables(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		role := parseRole(t, readItems[:len(readItems)-1]+`, "privileges_refresh": "1s"}`)
		first := issue(t, e, role)
		s.server.ExecIn(t, s.db, "CREATE TABLE public.later (id int)")
		time.Sleep(1100 * time.Millisecond)
		second := issue(t, e, role)
		for _, c := range []credential{first, second} {
			if _, err := s.login(t, c).Exec(t.Context(), "SELECT * FROM public.later"); err != nil {
				t.Errorf("read a later table: %v", err)
			}
		}
		// Of a stranger's table nothing can be given. Issuing goes on.
		stranger := "stranger_" + s.db
		s.server.ExecIn(t, s.db, fmt.Sprintf("CREATE ROLE %[1]s; CREATE TABLE public.strange (id int); ALTER TABLE public.strange OWNER TO %[1]s; REVOKE ALL ON public.strange FROM %[2]s", stranger, s.root))
		time.Sleep(1100 * time.Millisecond)
		issue(t, e, role)
		if _, err := e.PrepareRole(t.Context(), "reader", role); fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("a role that cannot be given in full is saved: %v", err)
		}
	})
}

// TestGroups: one group per set of rights, ours by its mark, gone with its last
// member once the role has changed.
func TestGroups(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		options := s.options(nil)
		e := openEngine(t, options)
		like := "sv_" + options.EngineID[len(options.EngineID)-10:] + "%"
		old, changed := parseRole(t, readItems), parseRole(t, `{"privileges": ["USAGE ON SCHEMA public"]}`)
		groups := func() int {
			return s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname LIKE $1", like)
		}
		for range 2 {
			if _, err := e.PrepareRole(t.Context(), "reader", old); err != nil {
				t.Fatal(err)
			}
		}
		c := issue(t, e, old)
		if n := groups(); n != 1 {
			t.Fatalf("%d groups", n)
		}
		if _, err := e.PrepareRole(t.Context(), "reader", changed); err != nil {
			t.Fatal(err)
		}
		if n := groups(); n != 2 {
			t.Errorf("%d groups while a credential of the old role lives", n)
		}
		if !(session{s.login(t, c)}).Works(t.Context()) {
			t.Error("a credential of before the change lost its rights")
		}
		revoke(t, e, c.recipe)
		if n := groups(); n != 1 {
			t.Errorf("%d groups after the last member of the old one went", n)
		}

		// A group that somebody dropped is made again.
		d := issue(t, e, changed)
		revoke(t, e, d.recipe)
		var name string
		if err := s.server.Superuser(t).QueryRow(t.Context(), "SELECT rolname FROM pg_roles WHERE rolname LIKE $1", like).Scan(&name); err != nil {
			t.Fatal(err)
		}
		s.server.ExecIn(t, s.db, "DROP ROLE "+name)
		c = issue(t, e, changed)
		revoke(t, e, c.recipe)

		// One that is not marked is not touched.
		s.server.Exec(t, "COMMENT ON ROLE "+name+" IS 'mine'")
		if _, err := e.PrepareRole(t.Context(), "reader", changed); fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("a stranger's role of the group's name is used: %v", err)
		}
	})
}

// TestGroupRetiredWhileUsed: the last member of a group goes by a node that has
// not seen its role, while another node makes the next member. Whatever comes
// first, what is issued has its rights.
func TestGroupRetiredWhileUsed(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		here := s.options(map[string]any{"scram_iterations": 1})
		there := here
		there.Node = "node-b"
		issuer, role := openEngine(t, here), parseRole(t, readItems)
		last := issue(t, issuer, role)
		for range 25 {
			retirer := openEngine(t, there)
			var revoked sync.WaitGroup
			former := last
			revoked.Go(func() {
				if _, err := retirer.Revoke(t.Context(), former.recipe); err != nil {
					t.Errorf("revoke: %v", err)
				}
			})
			for s.roles(t, former.username) > 0 { // then the group is retired
			}
			last = issue(t, issuer, role)
			revoked.Wait()
			if !(session{s.login(t, last)}).Works(t.Context()) {
				t.Fatal("a credential was issued without its rights")
			}
		}
	})
}

func TestMemberOf(t *testing.T) {
	everyWay(t, func(t *testing.T, s *source) {
		e := s.open(t, nil)
		app := "app_" + s.db
		s.server.ExecIn(t, s.db, fmt.Sprintf("CREATE ROLE %[1]s; GRANT USAGE ON SCHEMA public TO %[1]s; GRANT SELECT ON public.items TO %[1]s", app))
		role := parseRole(t, `{"member_of": ["`+app+`"], "run_as_group": true}`)
		_, err := e.PrepareRole(t.Context(), "reader", role)
		if err != nil {
			want := fmt.Sprintf(`GRANT "%s" TO "%s" WITH ADMIN OPTION`, app, s.root)
			if !strings.Contains(err.Error(), want) {
				t.Fatalf("the message names no remedy: %v", err)
			}
			s.server.Exec(t, want)
		}
		c := issue(t, e, role)
		conn := s.login(t, c)
		if !(session{conn}).Works(t.Context()) {
			t.Error("the credential has not the rights of the role it is a member of")
		}
		var user string
		if err := conn.QueryRow(t.Context(), "SELECT current_user").Scan(&user); err != nil || !strings.HasPrefix(user, "sv_") {
			t.Errorf("run_as_group: the session is %s, %v", user, err)
		}
		revoke(t, e, c.recipe)
		if !s.loginFails(c) || (session{conn}).Works(t.Context()) {
			t.Error("the credential lives")
		}
	})
}

// TestMoreDatabases gives rights in another database of the server, too.
func TestMoreDatabases(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), createRole)
	other := s.server.CreateDB(t)
	s.server.ExecIn(t, other, "CREATE TABLE public.items (id int, name text); INSERT INTO public.items VALUES (1, 'one')")
	setup, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: other, Way: postgresql.SetupCreateRole})
	if err != nil {
		t.Fatal(err)
	}
	s.server.ExecIn(t, other, setup)
	e := s.open(t, map[string]any{"databases": []string{other}})
	role := parseRole(t, readItems)
	if _, err := e.PrepareRole(t.Context(), "reader", role); err != nil {
		t.Fatal(err)
	}
	c := issue(t, e, role)
	if !(session{s.server.Connect(t, c.username, c.password, other)}).Works(t.Context()) {
		t.Error("the credential reads nothing in the other database")
	}
	revoke(t, e, c.recipe)
	if s.roles(t, c.username) != 0 {
		t.Error("the account lives")
	}
}

// TestParallelDirectGrants: concurrent GRANTs on one table fail with "tuple
// concurrently updated". Two engines over one database must not let a caller
// see that, while others of their accounts die.
func TestParallelDirectGrants(t *testing.T) {
	t.Parallel()
	const issuers, each = 8, 12
	for _, major := range []int{15, 17} {
		s := newSource(t, pgtest.Shared(t, major), createRole)
		for i := range 8 {
			s.server.ExecIn(t, s.db, fmt.Sprintf("CREATE TABLE public.t%d (id int)", i))
		}
		role := parseRole(t, statements)
		engines := []*postgresql.Engine{s.open(t, map[string]any{"scram_iterations": 1}), s.open(t, map[string]any{"scram_iterations": 1})}
		var wg sync.WaitGroup
		for i := range issuers {
			e := engines[i%2]
			wg.Go(func() {
				var before engine.Recipe
				for range each {
					p := plan(t, e, role)
					r, err := e.Issue(t.Context(), p)
					if err != nil {
						t.Errorf("%d: issue: %v", major, err)
						return
					}
					if before != nil {
						if o, err := e.Revoke(t.Context(), before); err != nil || o.Residue != "" {
							t.Errorf("%d: revoke: %v %s", major, err, o.Residue)
						}
					}
					before = r
				}
				if _, err := e.Revoke(t.Context(), before); err != nil {
					t.Errorf("%d: revoke: %v", major, err)
				}
			})
		}
		wg.Wait()
		var acl string
		if err := s.server.Connect(t, pgtest.Superuser, s.server.SuperPassword(), s.db).QueryRow(t.Context(), "SELECT relacl::text FROM pg_class WHERE relname = 'items'").Scan(&acl); err != nil || strings.Contains(acl, "v_reader") {
			t.Errorf("%d: the table's access list still names credentials: %s, %v", major, acl, err)
		}
	}
}
