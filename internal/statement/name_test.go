package statement_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

func newNamer() *statement.Namer {
	return statement.NewNamer("installation-1", []byte("key"), nil)
}

func TestNameForm(t *testing.T) {
	t.Parallel()
	n := newNamer()
	for _, tt := range []struct {
		role  string
		limit int
		want  string
	}{
		{"readonly", 63, `^v_readonly_[0-9a-z]{16}$`},
		{"read-only", 63, `^v_read_only_[0-9a-z]{16}$`},
		{"Grüße", 63, `^v_gr__e_[0-9a-z]{16}$`},
		{strings.Repeat("r", 63), 63, `^v_r{44}_[0-9a-z]{16}$`},
		{strings.Repeat("r", 63), 32, `^v_r{13}_[0-9a-z]{16}$`},
		{strings.Repeat("r", 63), 80, `^v_r{61}_[0-9a-z]{16}$`},
		{"r", 19, `^v__[0-9a-z]{16}$`},
	} {
		name := n.New(tt.role, tt.limit)
		if !regexp.MustCompile(tt.want).MatchString(name) || len(name) > tt.limit {
			t.Errorf("New(%q, %d) = %q, want %s", tt.role, tt.limit, name, tt.want)
		}
		if !n.Ours(name) {
			t.Errorf("%q is not ours", name)
		}
	}
}

func TestOursIsBoundToKeyInstallationAndName(t *testing.T) {
	t.Parallel()
	n := newNamer()
	others := []*statement.Namer{
		statement.NewNamer("installation-2", []byte("key"), nil),
		statement.NewNamer("installation-1", []byte("another key"), nil),
	}
	for range 200 {
		name := n.New("role", 63)
		for _, other := range others {
			if other.Ours(name) {
				t.Fatalf("%q is another installation's too", name)
			}
		}
		for i := range name {
			changed := []byte(name)
			changed[i] ^= 1
			if n.Ours(string(changed)) {
				t.Fatalf("%q passes with byte %d changed", name, i)
			}
		}
		if n.Ours("x"+name) || n.Ours(name+"0") || n.Ours(name[1:]) || n.Ours(strings.ToUpper(name)) || n.OursMark(name) {
			t.Fatalf("a relative of %q passes", name)
		}
	}
	for _, foreign := range []string{"", "a", "12345", "postgres", "v_role_0123456789abcdef"} {
		if n.Ours(foreign) || n.OursMark(foreign) {
			t.Errorf("%q passes", foreign)
		}
	}
}

func TestNamesAreNotReused(t *testing.T) {
	t.Parallel()
	n := newNamer()
	seen := map[string]bool{}
	for range 20_000 {
		name := n.New("r", 63)
		if seen[name] {
			t.Fatalf("%q was drawn twice", name)
		}
		seen[name] = true
	}
}

// The form that stores and sources already hold, computed once by another
// program (HMAC-SHA-256 of "name", installation and name, NUL between).
func TestNameIsStable(t *testing.T) {
	t.Parallel()
	zeros := bytes.NewReader(make([]byte, 100))
	name := statement.NewNamer("inst_1", []byte("0123456789abcdef"), zeros).New("readonly", 63)
	if want := "v_readonly_00000000000dcxo1"; name != want {
		t.Errorf("got %q, want %q: names that exist at sources would no longer be known", name, want)
	}
}

func TestMark(t *testing.T) {
	t.Parallel()
	n := newNamer()
	mark := n.Mark("sv_01arz3ndek_readonly_0a1b2c3d")
	if !n.OursMark(mark) || len(mark) != len("sv_01arz3ndek_readonly_0a1b2c3d")+11 {
		t.Errorf("mark %q", mark)
	}
	if n.Mark("sv_01arz3ndek_readonly_0a1b2c3d") != mark {
		t.Error("a mark is not stable")
	}
	if n.OursMark("x"+mark) || n.Ours(mark) || statement.NewNamer("installation-2", []byte("key"), nil).OursMark(mark) {
		t.Error("the mark vouches for something else")
	}
}

func TestNameTemplate(t *testing.T) {
	t.Parallel()
	n := newNamer()
	for text, want := range map[string]string{
		"v_{{role}}_{{random:11}}":       `^v_read_only_[0-9a-z]{16}$`,
		"app.{{random:20}}-{{role}}":     `^app\.[0-9a-z]{20}-read_only[0-9a-z]{5}$`,
		"x{{random:11}}":                 `^x[0-9a-z]{16}$`,
		"x{{role}}{{role}}{{random:11}}": `^x(read_on){2}[0-9a-z]{16}$`,
	} {
		template, err := statement.ParseNameTemplate(text, 31)
		if strings.Contains(text, "app") {
			template, err = statement.ParseNameTemplate(text, 63)
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		name := n.Name(template, "read-only")
		if !regexp.MustCompile(want).MatchString(name) || !n.Ours(name) {
			t.Errorf("%s gives %q, want %s", text, name, want)
		}
	}
}

func TestNameTemplateRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "x", "v_{{role}}", "{{random:11}}", "{{role}}_{{random:11}}", "v_{{random:10}}", "v_{{random:0}}", "v_{{random:-1}}",
		"v_{{random:}}", "v_{{random}}", "v_{{random:64}}", "v_{{random:99999999999999999999}}", "v_{{random:11}}{{random:11}}",
		"v_{{name}}{{random:11}}", "v {{random:11}}", "v'{{random:11}}", `v"{{random:11}}`, "v\n{{random:11}}", "vé{{random:11}}",
		"pg_{{random:11}}", "PG_{{random:11}}", "1{{random:11}}", "-{{random:11}}", "v_{{random:11", "v_}}{{random:11}}", "v\x00{{random:11}}",
		strings.Repeat("v", 50) + "{{random:11}}",
	} {
		if _, err := statement.ParseNameTemplate(text, 63); !errors.Is(err, fault.InvalidConfig) {
			t.Errorf("%q: %v, want invalid_config", text, err)
		}
	}
}

func FuzzNameTemplate(f *testing.F) {
	f.Add("v_{{role}}_{{random:11}}", "read-only", 63)
	f.Add("x.{{random:20}}{{role}}{{role}}", "ü", 40)
	f.Fuzz(func(t *testing.T, text, role string, limit int) {
		limit = 19 + int(uint(limit)%110)
		n := newNamer()
		if name := n.New(role, limit); len(name) > limit || !n.Ours(name) {
			t.Fatalf("New(%q, %d) = %q", role, limit, name)
		}
		template, err := statement.ParseNameTemplate(text, limit)
		if err != nil {
			return
		}
		name := n.Name(template, role)
		if len(name) > limit || !n.Ours(name) || !regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]+$`).MatchString(name) {
			t.Fatalf("%q with role %q gives %q", text, role, name)
		}
	})
}

func BenchmarkOurs(b *testing.B) {
	n := newNamer()
	name := n.New("readonly", 63)
	b.ReportAllocs()
	for b.Loop() {
		n.Ours(name)
	}
}
