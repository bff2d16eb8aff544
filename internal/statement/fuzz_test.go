package statement

import (
	"strings"
	"testing"
)

// Whatever a template and its values hold, each rendered statement has the
// tokens that the template had, in the same order: no value ends a string, a
// name or a statement.
func FuzzParsePostgres(f *testing.F) {
	for _, seed := range []string{
		`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT a TO {{name}};`,
		`SELECT E'\'{{name}}', 1E'{{password}}', N'x', $a$;$a$ -- x`, "SELECT 'a'\n'{{name}}'", `SET/**/ROLE x`, `U&"{{name}}"`,
		`SELECT {{password}}, {{name}}.x(({{expiration}}));;`, "/* /* */ ; */ SELECT $1 $b$c", `a$b$c'{{name}}'`,
	} {
		f.Add(seed, `v_"'\`, `';--\`)
	}
	f.Fuzz(func(t *testing.T, source, name, password string) {
		sql, err := ParsePostgres(source, "name", "password", "expiration")
		if err != nil {
			return
		}
		plain := map[string]string{"name": "n", "password": "p", "expiration": "e"}
		nasty := map[string]string{"name": name, "password": password, "expiration": password + name}
		want, err := sql.Render(plain)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sql.Render(nasty)
		if err != nil {
			return // values that no language can quote
		}
		if len(got) != sql.Len() || len(want) != sql.Len() {
			t.Fatalf("%q: %d statements, want %d", source, len(got), sql.Len())
		}
		for i := range got {
			sameTokens(t, got[i].Reveal(), want[i].Reveal())
		}
		joined := make([]string, len(got))
		for i, s := range got {
			joined[i] = s.Reveal()
		}
		if strings.Contains(strings.Join(joined, ""), "{{") || strings.Contains(strings.Join(joined, ""), "}}") {
			return // a value looks like a variable: it cannot be parsed again
		}
		again, err := ParsePostgres(strings.Join(joined, "\n;\n"))
		if err != nil || again.Len() != sql.Len() {
			t.Fatalf("%q is rendered as %q: %v", source, joined, err)
		}
	})
}

func sameTokens(t *testing.T, a, b string) {
	t.Helper()
	x, err := lexPostgres(a)
	if err != nil {
		t.Fatalf("%q: %v", a, err)
	}
	y, err := lexPostgres(b)
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if len(x) != len(y) {
		t.Fatalf("%q has %d tokens, %q has %d", a, len(x), b, len(y))
	}
	for i := range x {
		if x[i].kind != y[i].kind && !(isText(x[i].kind) && isText(y[i].kind)) {
			t.Fatalf("%q and %q differ in token %d", a, b, i)
		}
	}
}

// The tokens cover a text in order, without overlap, and leave only space out.
func FuzzLexPostgres(f *testing.F) {
	f.Add("SELECT 'a''b', \"c\", $$d$$, e'\\'' /* /* */ */ -- x\n;")
	f.Add("$a1$ $a$ $a1$ +-- ---")
	f.Fuzz(func(t *testing.T, source string) {
		tokens, err := lexPostgres(source)
		if err != nil {
			return
		}
		at := 0
		for _, tok := range tokens {
			if tok.start < at || tok.end <= tok.start || tok.end > len(source) {
				t.Fatalf("%q: token %+v after byte %d", source, tok, at)
			}
			if strings.Trim(source[at:tok.start], " \t\n\r\f\v") != "" {
				t.Fatalf("%q: %q is left out", source, source[at:tok.start])
			}
			at = tok.end
		}
	})
}

func FuzzTemplate(f *testing.F) {
	f.Add("a{{b}}c}}{{")
	f.Add("{{b}}{{{b}}}")
	f.Fuzz(func(t *testing.T, source string) {
		template, err := Parse(source, "b")
		if err != nil {
			return
		}
		back, err := template.Render(map[string]string{"b": "x"}, func(string, string) (string, error) { return "{{b}}", nil })
		if err != nil || back != source {
			t.Fatalf("%q comes back as %q, %v", source, back, err)
		}
	})
}
