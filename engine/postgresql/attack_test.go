package postgresql_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/postgresql"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// TestFunctionsRefuseWhatIsNotOurs attacks the functions of the set-up as
// somebody would who got hold of root.
func TestFunctionsRefuseWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		s := newSource(t, pgtest.Shared(t, major), definer)
		e := s.open(t, nil)
		live := issue(t, e, parseRole(t, readItems))
		var group string
		if err := s.server.Superuser(t).QueryRow(t.Context(), `SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = $1`, live.username).Scan(&group); err != nil {
			t.Fatal(err)
		}
		// What must not be touched: an application's role, one that only looks
		// like ours, one with a mark that belongs to another, and one of ours
		// that somebody made mighty.
		app, twin, copied, mighty, fake := "app_"+s.db, "v_twin_"+s.db, "v_copied_"+s.db, "v_mighty_"+s.db, "sv_fake_"+s.db
		s.server.Exec(t, fmt.Sprintf(`CREATE ROLE %[1]s LOGIN PASSWORD 'x'; CREATE ROLE %[2]s LOGIN; CREATE ROLE %[3]s LOGIN; CREATE ROLE %[4]s LOGIN SUPERUSER; CREATE ROLE %[5]s;
			COMMENT ON ROLE %[3]s IS 'scaivault:%[2]s:lease_1_tag'; COMMENT ON ROLE %[4]s IS 'scaivault:%[4]s:lease_1_tag'`, app, twin, copied, mighty, fake))

		verifier := statement.ScramSHA256("password", 1, nil)
		create := func(name, verifier, until, group, mark string) string {
			q := statement.QuoteLiteral
			return fmt.Sprintf("SELECT scaivault.create_account(%s, %s, %s, %s, %s, false)", q(name), q(verifier), until, q(group), q(mark))
		}
		const ends = "now() + '1h'"
		attacks := map[string]string{
			"foreign name":                    create("postgres2", verifier, ends, group, "scaivault:postgres2:x"),
			"name with a quote":               create(`v_a" SUPERUSER --`, verifier, ends, group, `scaivault:v_a" SUPERUSER --:x`),
			"name with a line end":            create("v_a\nb", verifier, ends, group, "scaivault:v_a\nb:x"),
			"plain password":                  create("v_a1", "password", ends, group, "scaivault:v_a1:x"),
			"md5":                             create("v_a2", "md5d41d8cd98f00b204e9800998ecf8427e", ends, group, "scaivault:v_a2:x"),
			"verifier with a quote":           create("v_a3", verifier+"' SUPERUSER --", ends, group, "scaivault:v_a3:x"),
			"verifier with a line end":        create("v_a4", verifier+"\n", ends, group, "scaivault:v_a4:x"),
			"no end":                          create("v_a5", verifier, "NULL", group, "scaivault:v_a5:x"),
			"infinite end":                    create("v_a6", verifier, "'infinity'", group, "scaivault:v_a6:x"),
			"group of the source":             create("v_a7", verifier, ends, "pg_read_server_files", "scaivault:v_a7:x"),
			"superuser as the group":          create("v_a8", verifier, ends, "postgres", "scaivault:v_a8:x"),
			"application as the group":        create("v_a9", verifier, ends, app, "scaivault:v_a9:x"),
			"group without a mark":            create("v_a10", verifier, ends, fake, "scaivault:v_a10:x"),
			"account as the group":            create("v_a11", verifier, ends, live.username, "scaivault:v_a11:x"),
			"no group":                        "SELECT scaivault.create_account('v_a12', '" + verifier + "', now() + '1h', NULL, 'scaivault:v_a12:x', false)",
			"mark of another":                 create("v_a13", verifier, ends, group, "scaivault:v_other:x"),
			"name taken":                      create(twin, verifier, ends, group, "scaivault:"+twin+":x"),
			"group of a foreign name":         "SELECT scaivault.create_group('admins', 'scaivault:admins:group_x')",
			"group that exists":               "SELECT scaivault.create_group('" + fake + "', 'scaivault:" + fake + ":group_x')",
			"group in use":                    "SELECT scaivault.drop_group('" + group + "')",
			"drop a foreign group":            "SELECT scaivault.drop_group('" + fake + "')",
			"lend a live account":             "SELECT scaivault.lend_account('" + live.username + "')",
			"drop a live account":             "SELECT scaivault.drop_accounts(ARRAY['" + live.username + "'])",
			"drop with an injection":          "SELECT scaivault.drop_accounts(ARRAY['" + live.username + ", " + app + "'])",
			"disable one of ours and another": "SELECT scaivault.disable_accounts(ARRAY['" + live.username + "', '" + app + "'])",
			"disable none":                    "SELECT scaivault.disable_accounts('{}')",
			"drop nothing":                    "SELECT scaivault.drop_accounts(ARRAY[NULL])",
			"account without an end":          "SELECT scaivault.set_account_end('" + live.username + "', 'infinity')",
			"leave as a live account":         "SELECT scaivault.leave_group('" + live.username + "', '" + group + "')",
			"install another":                 "CREATE FUNCTION scaivault.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
			"mark it oneself":                 "COMMENT ON ROLE " + twin + " IS 'scaivault:" + twin + ":x'",
		}
		for _, victim := range []string{app, twin, copied, mighty, "postgres", group, s.root} {
			for _, call := range []string{"disable_accounts(ARRAY['%s'])", "set_account_end('%s', now())", "lend_account('%s')", "take_back_account('%s')", "leave_group('%s', 'pg_monitor')", "drop_accounts(ARRAY['%s'])"} {
				attacks[call+" on "+victim] = "SELECT scaivault." + fmt.Sprintf(call, victim)
			}
		}
		state := func() string {
			var all string
			if err := s.server.Superuser(t).QueryRow(t.Context(), `SELECT string_agg(r::text, E'\n' ORDER BY rolname) FROM pg_roles r WHERE strpos(rolname, $1) > 0 OR rolname IN ('postgres', $2, $3)`, s.db, live.username, group).Scan(&all); err != nil {
				t.Fatal(err)
			}
			return all
		}
		before := state()
		conn := s.server.Connect(t, s.root, s.password, s.db)
		for name, sql := range attacks {
			if _, err := conn.Exec(t.Context(), sql); err == nil {
				t.Errorf("%d: %s: allowed", major, name)
			}
		}
		if after := state(); after != before {
			t.Errorf("%d: roles changed:\n%s\n%s", major, before, after)
		}
		if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname ~ '^v_a[0-9]'"); n != 0 {
			t.Errorf("%d: %d accounts were made", major, n)
		}
	}
}

// TestFunctionsIgnoreTheCallersNames shadows what the functions use.
func TestFunctionsIgnoreTheCallersNames(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 15), definer)
	s.server.ExecIn(t, s.db, "GRANT CREATE ON SCHEMA public TO "+s.root)
	conn := s.server.Connect(t, s.root, s.password, s.db)
	for _, sql := range []string{
		"CREATE FUNCTION public.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$ SELECT 'ALTER ROLE " + s.root + " SUPERUSER' $$",
		"CREATE FUNCTION public.quote_ident(text) RETURNS text LANGUAGE sql AS $$ SELECT 'postgres' $$",
		"CREATE TEMP VIEW pg_roles AS SELECT 'app'::name AS rolname, 1::oid AS oid, false AS rolcanlogin, false AS rolsuper, false AS rolcreaterole, false AS rolcreatedb, false AS rolreplication, false AS rolbypassrls",
		"CREATE FUNCTION pg_temp.shobj_description(oid, name) RETURNS text LANGUAGE sql AS $$ SELECT 'scaivault:app:x' $$",
		"SET search_path = pg_temp, public, pg_catalog",
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	for _, call := range []string{"disable_accounts(ARRAY['app'])", "drop_accounts(ARRAY['app'])", "create_group('sv_x', 'scaivault:sv_x:group')"} {
		_, err := conn.Exec(t.Context(), "SELECT scaivault."+call)
		if err == nil && !strings.HasPrefix(call, "create_group") {
			t.Errorf("%s: allowed", call)
		}
	}
	if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1 AND rolsuper", s.root); n != 0 {
		t.Error("root became a superuser")
	}
}

// TestSetupIsTheLeast makes sure that the printed set-up is what the tests run
// on, and that root has nothing else.
func TestSetupIsTheLeast(t *testing.T) {
	t.Parallel()
	s := newSource(t, pgtest.Shared(t, 17), definer)
	if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1 AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication)", s.root); n != 0 {
		t.Error("root has more than LOGIN")
	}
	if n := s.count(t, "SELECT count(*) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = $1 AND g.rolname <> 'pg_signal_backend'", s.root); n != 0 {
		t.Error("root is a member of more than pg_signal_backend")
	}
}

// TestSetupWithoutSuperuser: where nobody is a superuser, as on managed
// services, an administrator with CREATEROLE who owns the objects can run the
// set-ups that say so.
func TestSetupWithoutSuperuser(t *testing.T) {
	t.Parallel()
	for _, w := range []way{createRole, makers} {
		server := pgtest.Start(t, 18)
		s := &source{server: server, db: server.CreateDB(t), addr: server.Addr(), namer: namer(), root: "vault", password: "password-of-vault"}
		server.ExecIn(t, s.db, fmt.Sprintf(`CREATE ROLE chief LOGIN CREATEROLE PASSWORD 'password-of-chief'; GRANT pg_signal_backend TO chief WITH ADMIN OPTION; ALTER DATABASE %s OWNER TO chief;
			CREATE TABLE public.items (id int, name text); INSERT INTO public.items VALUES (1, 'one'); ALTER TABLE public.items OWNER TO chief`, s.db))
		setup, err := postgresql.SetupSQL(postgresql.Setup{Root: s.root, Database: s.db, Owner: "chief", Way: string(w)})
		if err != nil {
			t.Fatal(err)
		}
		chief := server.Connect(t, "chief", "password-of-chief", s.db)
		for range 2 { // it can be run again
			if _, err := chief.PgConn().Exec(t.Context(), setup+"ALTER ROLE vault PASSWORD 'password-of-vault'").ReadAll(); err != nil {
				t.Fatalf("%s: %v", w, err)
			}
		}
		e := s.open(t, nil)
		if h := e.Check(t.Context()); h.Status != "healthy" || len(h.Warnings) > 0 {
			t.Errorf("%s: health: %+v", w, h)
		}
		c := issue(t, e, parseRole(t, readItems))
		conn := s.login(t, c)
		if !(session{conn}).Works(t.Context()) {
			t.Errorf("%s: the credential reads nothing", w)
		}
		if o := revoke(t, e, c.recipe); o.Residue != "" || s.roles(t, c.username) != 0 || (session{conn}).Works(t.Context()) {
			t.Errorf("%s: the credential lives: %s", w, o.Residue)
		}
	}
}
