package statement_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

func TestPassword(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{31}$`)
	const all = statement.Upper + statement.Lower + statement.Digits + statement.Symbols
	counts := map[rune]int{}
	seen := map[string]bool{}
	const passwords = 5_000
	for range passwords {
		p := statement.Password(nil).Reveal()
		if !form.MatchString(p) || seen[p] {
			t.Fatalf("password %q", p)
		}
		seen[p] = true
		for _, class := range statement.DefaultPassword().Classes {
			if !strings.ContainsAny(p, class) {
				t.Fatalf("%q has none of %q", p, class)
			}
		}
		for _, c := range p[1:] {
			counts[c]++
		}
	}
	// Letters must be equally likely: the conditions on the whole treat them
	// alike. Seven deviations: fails by chance once in 10^10 runs.
	for _, group := range []string{statement.Upper + statement.Lower, statement.Digits, statement.Symbols} {
		mean := 0.0
		for _, c := range group {
			mean += float64(counts[c]) / float64(len(group))
		}
		for _, c := range group {
			if math.Abs(float64(counts[c])-mean) > 7*math.Sqrt(mean) {
				t.Errorf("%q occurs %d times, the others of its class %.0f", c, counts[c], mean)
			}
		}
	}
	if len(counts) != len(all) {
		t.Errorf("%d different characters, want %d", len(counts), len(all))
	}
}

// 62 characters do not divide 256: the eight bytes from 248 on must be thrown
// away, or the first eight characters come more often.
func TestDrawingIsUnbiased(t *testing.T) {
	t.Parallel()
	source := bytes.Repeat([]byte{248, 0, 255, 26, 248, 52, 255, 247}, 4)
	p := statement.PasswordPolicy{Length: 16, Classes: []string{statement.Upper, statement.Lower, statement.Digits}}
	if got, want := p.New(bytes.NewReader(source)).Reveal(), strings.Repeat("Aa09", 4); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPasswordPolicy(t *testing.T) {
	t.Parallel()
	for _, p := range []statement.PasswordPolicy{
		statement.DefaultPassword(),
		{Length: 16, Classes: []string{statement.Digits}},
		{Length: 128, Classes: []string{statement.Symbols, statement.Lower}},
	} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
			continue
		}
		if got := p.New(nil).Reveal(); len(got) != p.Length || strings.Trim(got, strings.Join(p.Classes, "")) != "" {
			t.Errorf("%+v gives %q", p, got)
		}
	}
	for _, p := range []statement.PasswordPolicy{
		{}, {Length: 32}, {Length: 15, Classes: []string{statement.Lower}}, {Length: 129, Classes: []string{statement.Lower}},
		{Length: 32, Classes: []string{statement.Symbols}}, {Length: 32, Classes: []string{statement.Lower, "'"}},
		{Length: 32, Classes: []string{statement.Lower, statement.Lower}},
	} {
		if err := p.Validate(); !errors.Is(err, fault.InvalidConfig) {
			t.Errorf("%+v: %v, want invalid_config", p, err)
		}
	}
}

// The exchange of RFC 7677 section 3: the verifier must accept its client proof
// and give its server signature.
func TestScramSHA256AgainstRFC7677(t *testing.T) {
	t.Parallel()
	decode := func(s string) []byte {
		t.Helper()
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	const (
		salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
		auth = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=" + salt +
			",i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		clientProof     = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
		serverSignature = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	)
	verifier := statement.ScramSHA256("pencil", statement.ScramIterations, bytes.NewReader(decode(salt)))

	m := regexp.MustCompile(`^SCRAM-SHA-256\$4096:` + regexp.QuoteMeta(salt) + `\$([^:]+):([^:]+)$`).FindStringSubmatch(verifier)
	if m == nil {
		t.Fatalf("verifier %q", verifier)
	}
	stored, server := decode(m[1]), decode(m[2])

	clientKey := decode(clientProof)
	for i, b := range mac(stored, auth) {
		clientKey[i] ^= b
	}
	if got := sha256.Sum256(clientKey); !bytes.Equal(got[:], stored) {
		t.Error("the verifier refuses the client proof")
	}
	if got := base64.StdEncoding.EncodeToString(mac(server, auth)); got != serverSignature {
		t.Errorf("server signature %s, want %s", got, serverSignature)
	}
}

func TestScramSHA256DrawsASalt(t *testing.T) {
	t.Parallel()
	if statement.ScramSHA256("pencil", 1, nil) == statement.ScramSHA256("pencil", 1, nil) {
		t.Error("two verifiers of one password are the same")
	}
}

func BenchmarkScramSHA256(b *testing.B) {
	for b.Loop() {
		statement.ScramSHA256("pencil", statement.ScramIterations, nil)
	}
}
