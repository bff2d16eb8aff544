package policy_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/policy"
)

func TestGlobMatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{"a", []string{"a"}, []string{"", "b", "a/b", "aa", "A", "/a", "a/", "b/a"}},
		{"a/*", []string{"a/b", "a/*", "a/ü"}, []string{"a", "a/", "a/b/c", "b/b", "a//b"}},
		{"*", []string{"a", "abc"}, []string{"", "a/b", "/"}},
		{"**", []string{"a", "a/b", "a/b/c"}, []string{"", "/", "a/", "/a", "a//b"}},
		{"a/**", []string{"a", "a/b", "a/b/c"}, []string{"b", "ab", "a/", "a//b"}},
		{"**/a", []string{"x/a", "x/y/a", "a/a"}, []string{"a", "x", "x/a/y"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z", "a/z/z"}, []string{"a", "z", "a/b", "a/z/b"}},
		{"a/**/m/**/z", []string{"a/m/z", "a/m/m/z", "a/x/m/y/z", "a/z/m/z"}, []string{"a/z", "a/m", "a/x/z"}},
		{"**/**/a", []string{"x/a", "x/y/a"}, []string{"a"}},
		{"a/**/**", []string{"a", "a/b"}, []string{"b"}},
		{"a/*/**", []string{"a/b", "a/b/c"}, []string{"a"}},
		{"a/**/*", []string{"a/b", "a/b/c"}, []string{"a"}},
		{"?", []string{"a", "ü"}, []string{"", "aa", "/"}},
		{"a?c/d", []string{"abc/d", "a-c/d"}, []string{"ac/d", "a/c/d", "abbc/d"}},
		{"dynamic/support-db/*", []string{"dynamic/support-db/readonly"}, []string{"dynamic/support-db", "dynamic/support-db-2/readonly", "dynamic/support-db/a/b"}},
	} {
		g, err := policy.CompileGlob(tt.pattern)
		if err != nil {
			t.Errorf("%q: %v", tt.pattern, err)
			continue
		}
		for _, path := range tt.yes {
			if !g.Match(path) {
				t.Errorf("%q does not match %q", tt.pattern, path)
			}
		}
		for _, path := range tt.no {
			if g.Match(path) {
				t.Errorf("%q matches %q", tt.pattern, path)
			}
		}
	}
}

func TestCompileGlobRefuses(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{
		"", "/", "/a", "a/", "a//b", "a*", "*a", "a*b/c", "***", "a/**b", "a/b**", "**a/b", "?*",
		"a b", "a\x00", "a\n", "[a]", "{a,b}", `a\b`, "a\xff", strings.Repeat("a", 513), strings.Repeat("a/", 64) + "a",
	} {
		if _, err := policy.CompileGlob(pattern); !errors.Is(err, fault.InvalidGlob) {
			t.Errorf("%q: %v, want invalid_glob", pattern, err)
		}
	}
}

func TestGlobContains(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		g, other string
		want     bool
	}{
		{"**", "**", true}, {"**", "a/b", true}, {"**", "**/a", true}, {"**", "a/**/b/?", true}, {"**", "*", true},
		{"a/**", "a", true}, {"a/**", "a/**", true}, {"a/**", "a/*/b/**", true}, {"a/**", "**", false}, {"a/**", "?/b", false},
		{"a/*", "a/b", true}, {"a/*", "a/?", true}, {"a/*", "a/*", true}, {"a/*", "a/**", false}, {"a/*", "a", false},
		{"a/b", "a/*", false}, {"a/?", "a/b", true}, {"a/?", "a/*", false}, {"a/b", "a/?", false}, {"a/?", "a/?", true}, {"?b", "a?", false},
		{"**/z", "a/z", true}, {"**/z", "**/z", true}, {"**/z", "z", false}, {"**/z", "a/**/z", true}, {"**/z", "a/**", false},
		{"a/**/m/**/z", "a/m/x/m/z", true}, {"a/**/m/**/z", "a/**/z", false},
	} {
		if got := glob(t, tt.g).Contains(glob(t, tt.other)); got != tt.want {
			t.Errorf("%q contains %q: %v", tt.g, tt.other, got)
		}
	}
}

// The matcher agrees with the definition written down naively, and containment
// never promises a path that does not match.
func FuzzGlob(f *testing.F) {
	f.Add("a/**/m/**/z", "**/z", "a/m/m/z")
	f.Add("**/**/?", "*/*", "a/b")
	f.Add("a/*/b", "a/**", "a//b")
	f.Fuzz(func(t *testing.T, pattern, other, path string) {
		g, err := policy.CompileGlob(pattern)
		if err != nil || len(path) > 200 || !utf8.ValidString(path) {
			return
		}
		if got, want := g.Match(path), matches(pattern, path); got != want {
			t.Fatalf("%q matches %q: %v, by the model %v", pattern, path, got, want)
		}
		if !g.Contains(g) {
			t.Fatalf("%q does not contain itself", pattern)
		}
		h, err := policy.CompileGlob(other)
		if err != nil {
			return
		}
		if h.Contains(g) && g.Match(path) && !h.Match(path) {
			t.Fatalf("%q contains %q, which alone matches %q", other, pattern, path)
		}
	})
}

// The same over few characters, where matches are frequent.
func TestGlobAgainstModelExhaustively(t *testing.T) {
	t.Parallel()
	combine := func(segments []string, n int) []string {
		all := append([]string(nil), segments...)
		last := all
		for range n - 1 {
			var longer []string
			for _, head := range last {
				for _, s := range segments {
					longer = append(longer, head+"/"+s)
				}
			}
			all, last = append(all, longer...), longer
		}
		return all
	}
	patterns, paths := combine([]string{"a", "?", "*", "**"}, 4), combine([]string{"a", "b", "cc"}, 5)
	matched := make(map[string][]bool, len(patterns))
	for _, pattern := range patterns {
		g := glob(t, pattern)
		row := make([]bool, len(paths))
		for i, path := range paths {
			row[i] = g.Match(path)
			if want := matches(pattern, path); row[i] != want {
				t.Fatalf("%q matches %q: %v, by the model %v", pattern, path, row[i], want)
			}
		}
		matched[pattern] = row
	}
	for _, a := range patterns {
		for _, b := range patterns {
			if !glob(t, a).Contains(glob(t, b)) {
				continue
			}
			for i, path := range paths {
				if matched[b][i] && !matched[a][i] {
					t.Fatalf("%q contains %q, which alone matches %q", a, b, path)
				}
			}
		}
	}
}

// matches is the definition in docs/api.md, without regard to speed.
func matches(pattern, path string) bool {
	segments := strings.Split(path, "/")
	for _, s := range segments {
		if s == "" {
			return false
		}
	}
	if rest, ok := strings.CutPrefix(pattern, "**/"); ok {
		for i := 1; i <= len(segments); i++ {
			if matchesSegments(strings.Split(rest, "/"), segments[i:]) {
				return true
			}
		}
		return false
	}
	return matchesSegments(strings.Split(pattern, "/"), segments)
}

func matchesSegments(pattern, path []string) bool {
	if len(pattern) == 0 {
		return len(path) == 0
	}
	if pattern[0] == "**" {
		return matchesSegments(pattern[1:], path) || len(path) > 0 && matchesSegments(pattern, path[1:])
	}
	if len(path) == 0 {
		return false
	}
	want, got := []rune(pattern[0]), []rune(path[0])
	fits := pattern[0] == "*" || len(want) == len(got)
	for i := 0; fits && pattern[0] != "*" && i < len(want); i++ {
		fits = want[i] == '?' || want[i] == got[i]
	}
	return fits && matchesSegments(pattern[1:], path[1:])
}

func glob(t testing.TB, pattern string) *policy.Glob {
	t.Helper()
	g, err := policy.CompileGlob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func BenchmarkGlobMatch(b *testing.B) {
	g := glob(b, "infra/**/postgres/?oot/*")
	b.ReportAllocs()
	for b.Loop() {
		g.Match("infra/a/b/c/postgres/x/postgres/root/password")
	}
}

// The worst that a pattern and a path of full length can cost.
func BenchmarkGlobMatchWorst(b *testing.B) {
	g := glob(b, strings.Repeat("**/a/", 31)+"b")
	path := strings.Repeat("a/", 200) + "a"
	b.ReportAllocs()
	for b.Loop() {
		if g.Match(path) {
			b.Fatal("matches")
		}
	}
}
