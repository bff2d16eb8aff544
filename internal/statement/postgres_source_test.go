package statement_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// superuser connects as the engine does: the lexer's rules pinned.
func superuser(t *testing.T) (*pgtest.Server, *pgx.Conn) {
	t.Helper()
	s := pgtest.Shared(t, 15)
	conn, err := pgx.Connect(t.Context(), s.SuperURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	if _, err := conn.Exec(t.Context(), "SET standard_conforming_strings = on"); err != nil {
		t.Fatal(err)
	}
	return s, conn
}

// What is quoted for a place comes back from the server as it was, whatever it
// holds.
func TestQuotedValuesSurviveTheServer(t *testing.T) {
	t.Parallel()
	_, conn := superuser(t)
	values := []string{`'`, `"`, `\`, `\'`, `\\'`, `'';--`, `$$`, `$a$`, `/*`, `*/`, `--`, "\n", "\r", ";", "{{name}}", "E'", `U&'\0041'`, "é\u2028\U0001F600", " ", "%s", "?", "$1", ":x"}
	const letters = `'"\$;-/* aE{}` + "\n"
	random := rand.New(rand.NewPCG(1, 2)) // the same in each run
	for range 300 {
		value := make([]byte, 1+random.IntN(12))
		for i := range value {
			value[i] = letters[random.IntN(len(letters))]
		}
		values = append(values, string(value))
	}
	for _, template := range []string{
		`SELECT '{{password}}'`, `SELECT E'{{password}}'`, `SELECT N'{{password}}'`, `SELECT {{password}}`, `SELECT ({{password}})::text`,
		`SELECT 'a' || '{{password}}' || E'\'' AS b, 1`, `SELECT column_name FROM (SELECT 1 AS "{{name}}") x, LATERAL (SELECT key FROM json_each(row_to_json(x))) y(column_name)`,
		`SELECT column_name FROM (SELECT 1 AS {{name}}) x, LATERAL (SELECT key FROM json_each(row_to_json(x))) y(column_name)`,
	} {
		sql, err := statement.ParsePostgres(template, "name", "password")
		if err != nil {
			t.Fatal(err)
		}
		for _, value := range values {
			rendered, err := sql.Render(map[string]string{"name": value, "password": value})
			if err != nil {
				t.Fatal(err)
			}
			want := value
			if strings.Contains(template, "||") {
				want = "a" + value + "'"
			}
			results, err := conn.PgConn().Exec(t.Context(), rendered[0].Reveal()).ReadAll()
			if err != nil || len(results) != 1 {
				t.Fatalf("%s with %q: %d results, %v", template, value, len(results), err)
			}
			if got := string(results[0].Rows[0][0]); got != want {
				t.Fatalf("%s with %q gives %q, want %q", template, value, got, want)
			}
		}
	}
}

// The server finds as many statements in a text as we do, and each of ours is
// one to it.
func TestStatementsEndWhereTheServerEndsThem(t *testing.T) {
	t.Parallel()
	_, conn := superuser(t)
	for _, source := range []string{
		"SELECT 1; SELECT 2", "SELECT ';'; SELECT 2;", "SELECT ''';'';'; SELECT 2", `SELECT E'\';'; SELECT 2`, `SELECT '\'; SELECT 2`, `SELECT 1 AS ";"";"; SELECT 2`,
		"SELECT $$;$$; SELECT $a$;$b$;$$;$a$", "SELECT $é$;$é$; SELECT 2", "SELECT 1 AS a$b$; SELECT 2 AS c$b$", "SELECT 1 -- ;\n; SELECT 2", "SELECT 1 -- ;\r; SELECT 2",
		"SELECT 1 /* ; /* ; */ ; */; SELECT 2", "SELECT 1 /*/ ; */; SELECT 2", "SELECT 1 /**/; SELECT 2", "SELECT 1 /***/; SELECT 2 /* ; **/", "SELECT 2 */**/ 3; SELECT 2", "SELECT 1 - -1; SELECT 1+--;\n1",
		`SELECT U&'\0041;'; SELECT U&';' UESCAPE '!'`, `SELECT 1 AS U&";"; SELECT 2`, "SELECT B'01'; SELECT X'ff'; SELECT N';'", ";; SELECT 1;;", "SELECT 1;\f SELECT 2", "SELECT e';' ; SELECT 1 e; SELECT 'x'",
		"CREATE TEMP TABLE IF NOT EXISTS t(a int); CREATE OR REPLACE RULE r AS ON INSERT TO t DO (DELETE FROM t; DELETE FROM t)", "DO $$BEGIN PERFORM 1; PERFORM 2; END$$; SELECT 1",
	} {
		sql, err := statement.ParsePostgres(source)
		if err != nil {
			t.Errorf("%q: %v", source, err)
			continue
		}
		if n := resultsOf(t, conn, source); n != sql.Len() {
			t.Errorf("%q: %d statements here, %d to the server", source, sql.Len(), n)
		}
		rendered, err := sql.Render(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range rendered {
			if n := resultsOf(t, conn, s.Reveal()); n != 1 {
				t.Errorf("%q, cut from %q, is %d statements to the server", s.Reveal(), source, n)
			}
		}
	}
}

func resultsOf(t *testing.T, conn *pgx.Conn, source string) int {
	t.Helper()
	results, err := conn.PgConn().Exec(t.Context(), source).ReadAll()
	if err != nil {
		t.Fatalf("%q: %v", source, err)
	}
	n := 0
	for _, r := range results {
		if r.CommandTag.String() != "" { // an empty statement has none
			n++
		}
	}
	return n
}

// A role made with our verifier lets in who has the password, and nobody else.
func TestScramVerifierAtTheServer(t *testing.T) {
	t.Parallel()
	s, conn := superuser(t)
	namer := statement.NewNamer("installation", []byte("key"), nil)
	for _, iterations := range []int{1, statement.ScramIterations} {
		name, password := namer.New("scram", 63), statement.Password(nil)
		create := fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD %s", statement.QuoteIdent(name), statement.QuoteLiteral(statement.ScramSHA256(password, iterations, nil)))
		if _, err := conn.Exec(t.Context(), create); err != nil {
			t.Fatal(err)
		}
		user, err := pgx.Connect(t.Context(), s.URL(name, password.Reveal(), "postgres"))
		if err != nil {
			t.Fatalf("%d rounds: %v", iterations, err)
		}
		user.Close(t.Context())
		if user, err := pgx.Connect(t.Context(), s.URL(name, statement.Password(nil).Reveal(), "postgres")); err == nil {
			user.Close(t.Context())
			t.Errorf("%d rounds: a wrong password logs in", iterations)
		}
	}
}
