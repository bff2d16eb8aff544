package access_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

func TestTokenText(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^skt_[0-9a-hjkmnp-tv-z]{26}[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`)
	letters := map[byte]int{}
	seen := map[string]bool{}
	for range 5000 {
		id, secret := access.NewTokenText()
		text := secret.Reveal()
		if !form.MatchString(text) || seen[text[30:]] {
			t.Fatalf("%q", text)
		}
		seen[text[30:]] = true
		if got, ok := access.TokenID(text); !ok || got != id {
			t.Fatalf("id %q, %v, want %q", got, ok, id)
		}
		for _, c := range []byte(text[30:73]) {
			letters[c]++
		}
		if fmt.Sprint(secret) == text {
			t.Fatal("the token prints itself")
		}
	}
	// 5000*43/62 = 3468 of each; a bias of modulo 256 would show as 25 % more of eight letters.
	for c, n := range letters {
		if n < 3468-400 || n > 3468+400 {
			t.Errorf("%c came %d times", c, n)
		}
	}
	if len(letters) != 62 {
		t.Errorf("%d letters", len(letters))
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	d := access.Digest("one")
	if !access.Matches(d, "one") || access.Matches(d, "two") || access.Matches(nil, "one") || access.Matches(d[:31], "one") {
		t.Error("digests do not tell texts apart")
	}
}

func FuzzTokenID(f *testing.F) {
	_, secret := access.NewTokenText()
	f.Add(secret.Reveal())
	f.Add("skt_")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := access.TokenID(s); ok && (len(s) != 79 || id == "") {
			t.Fatalf("%q is a token %q", s, id)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	w := setup(b, noLimits)
	_, text := w.token("user:admin", time.Hour, access.ScopeAdmin)
	o := from("192.0.2.1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.door.Authenticate(b.Context(), text, "", o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecision judges by 20 rules, of which the last fits.
func BenchmarkDecision(b *testing.B) {
	w := setup(b, noLimits)
	w.user("alice")
	for i := range 10 {
		name := fmt.Sprintf("p%d", i)
		w.policy(name, rule(fmt.Sprintf("team%d/**", i), policy.Read, policy.Write), rule(fmt.Sprintf("dynamic/db%d/*", i), policy.DynamicGenerate))
		w.bind(name, "user:alice", nil)
	}
	alice := w.caller("user:alice", access.ScopeDynamicGenerate)
	right := access.Right{Scope: access.ScopeDynamicGenerate, Permission: "dynamic:generate", Path: "dynamic/db9/readonly"}
	b.ReportAllocs()
	for b.Loop() {
		if !w.door.Allowed(alice, right) {
			b.Fatal("denied")
		}
	}
}

// BenchmarkEntry is an audit entry in a transaction of its own that need not be flushed.
func BenchmarkEntry(b *testing.B) {
	w := setup(b, noLimits)
	pass, err := w.door.Admit(b.Context(), w.caller("user:admin", access.ScopeAdmin), readX)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		err := w.store.WriteRelaxed(b.Context(), func(tx store.Tx) error {
			return tx.Audit(tenant, pass.Entry(true, map[string]any{"engine": "db", "role": "readonly"}))
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
