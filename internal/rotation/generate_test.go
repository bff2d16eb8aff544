package rotation

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
)

func ptr[T any](v T) *T { return &v }

func made(t *testing.T, generator string, p api.GeneratorParameters) map[string]string {
	t.Helper()
	if err := check(generator, &p, false); err != nil {
		t.Fatalf("%s: %v", generator, err)
	}
	g, err := generate(generator, p, p.Value)
	if err != nil {
		t.Fatalf("%s: %v", generator, err)
	}
	texts := map[string]string{}
	for name, v := range g.fields("value") {
		texts[name] = v.Reveal()
	}
	return texts
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		generator string
		p         api.GeneratorParameters
		want      string
	}{
		"random":       {"random", api.GeneratorParameters{}, `^[A-Za-z0-9_-]{32}$`},
		"long":         {"random", api.GeneratorParameters{Length: ptr(1000)}, `^[A-Za-z0-9_-]{1000}$`},
		"own symbols":  {"random", api.GeneratorParameters{Length: ptr(8), Classes: []string{"digits", "symbols"}, Symbols: "!$"}, `^[0-9!$]{8}$`},
		"hex":          {"hex", api.GeneratorParameters{Bytes: ptr(8)}, `^[0-9a-f]{16}$`},
		"uuid":         {"uuid", api.GeneratorParameters{}, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`},
		"template":     {"template", api.GeneratorParameters{Template: "a_{{upper:3}}-{{digits:4}}{{uuid}}{z}{{hex:9}}"}, `^a_[A-Z]{3}-[0-9]{4}[0-9a-f-]{36}\{z\}[0-9a-f]{9}$`},
		"static value": {"static", api.GeneratorParameters{Value: "fixed"}, `^fixed$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, again := made(t, tt.generator, tt.p)["value"], made(t, tt.generator, tt.p)["value"]
			if !regexp.MustCompile(tt.want).MatchString(first) {
				t.Errorf("%q does not match %s", first, tt.want)
			}
			if first == again && tt.generator != generatorStatic {
				t.Error("the same value twice")
			}
			for _, class := range tt.p.Classes {
				if set := classes[class]; set != "" && !strings.ContainsAny(first, set) {
					t.Errorf("%q has nothing of %s", first, class)
				}
			}
		})
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		generator string
		p         api.GeneratorParameters
	}{
		"rsa": {"rsa_keypair", api.GeneratorParameters{Bits: ptr(2048)}},
		"ec":  {"ec_keypair", api.GeneratorParameters{Curve: "P-384"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pair := made(t, tt.generator, tt.p)
			private, _ := pem.Decode([]byte(pair["private_key"]))
			public, _ := pem.Decode([]byte(pair["public_key"]))
			if private == nil || public == nil {
				t.Fatal("no PEM")
			}
			key, err := x509.ParsePKCS8PrivateKey(private.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := x509.ParsePKIXPublicKey(public.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			own, ok := key.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
			if !ok || !own.Equal(pub) {
				t.Error("the keys do not belong together")
			}
		})
	}
	for name, p := range map[string]api.GeneratorParameters{"ed25519": {Comment: "deploy key"}, "rsa": {KeyType: "rsa", Bits: ptr(2048)}} {
		t.Run("ssh "+name, func(t *testing.T) {
			t.Parallel()
			pair := made(t, generatorSSH, p)
			signer, err := ssh.ParsePrivateKey([]byte(pair["private_key"]))
			if err != nil {
				t.Fatal(err)
			}
			public, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(pair["public_key"]))
			if err != nil || string(public.Marshal()) != string(signer.PublicKey().Marshal()) || comment != p.Comment {
				t.Errorf("the keys do not belong together: %v, comment %q", err, comment)
			}
		})
	}
}

func TestBcrypt(t *testing.T) {
	t.Parallel()
	got := made(t, generatorBcrypt, api.GeneratorParameters{Cost: ptr(10), Length: ptr(72)})
	if err := bcrypt.CompareHashAndPassword([]byte(got["password_hash"]), []byte(got["value"])); err != nil {
		t.Error(err)
	}
}

func TestParametersOutOfBounds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		generator string
		p         api.GeneratorParameters
	}{
		"no generator":          {"", api.GeneratorParameters{}},
		"an unknown one":        {"nonsense", api.GeneratorParameters{}},
		"another's parameter":   {"uuid", api.GeneratorParameters{Length: ptr(32)}},
		"too short":             {"random", api.GeneratorParameters{Length: ptr(7)}},
		"negative":              {"random", api.GeneratorParameters{Length: ptr(-1)}},
		"huge":                  {"random", api.GeneratorParameters{Length: ptr(1 << 40)}},
		"an unknown class":      {"random", api.GeneratorParameters{Classes: []string{"emoji"}}},
		"only symbols":          {"random", api.GeneratorParameters{Classes: []string{"symbols"}}},
		"a symbol twice":        {"random", api.GeneratorParameters{Symbols: "!!"}},
		"a control character":   {"random", api.GeneratorParameters{Symbols: "\n"}},
		"a long field":          {"random", api.GeneratorParameters{Field: strings.Repeat("f", 257)}},
		"few bytes":             {"hex", api.GeneratorParameters{Bytes: ptr(1)}},
		"no template":           {"template", api.GeneratorParameters{}},
		"a giant template":      {"template", api.GeneratorParameters{Template: strings.Repeat("{{random:9}}", 1000)}},
		"many variables":        {"template", api.GeneratorParameters{Template: strings.Repeat("{{hex:1}}", 33)}},
		"not random":            {"template", api.GeneratorParameters{Template: "{{digits:15}}"}},
		"unclosed":              {"template", api.GeneratorParameters{Template: "{{random:32"}},
		"unopened":              {"template", api.GeneratorParameters{Template: "{{random:32}}}}"}},
		"nested":                {"template", api.GeneratorParameters{Template: "{{{{random:32}}}}"}},
		"a count that is none":  {"template", api.GeneratorParameters{Template: "{{random:+32}}"}},
		"a count that is large": {"template", api.GeneratorParameters{Template: "{{random:99999999999999999999}}"}},
		"small rsa":             {"rsa_keypair", api.GeneratorParameters{Bits: ptr(512)}},
		"giant rsa":             {"rsa_keypair", api.GeneratorParameters{Bits: ptr(1 << 20)}},
		"another curve":         {"ec_keypair", api.GeneratorParameters{Curve: "P-224"}},
		"dsa":                   {"ssh_keypair", api.GeneratorParameters{KeyType: "dsa"}},
		"bits of ed25519":       {"ssh_keypair", api.GeneratorParameters{Bits: ptr(2048)}},
		"a comment of lines":    {"ssh_keypair", api.GeneratorParameters{Comment: "a\nssh-rsa AAAA"}},
		"a cost of hours":       {"bcrypt_hash", api.GeneratorParameters{Cost: ptr(31)}},
		"beyond bcrypt":         {"bcrypt_hash", api.GeneratorParameters{Length: ptr(73)}},
		"static of nothing":     {"static", api.GeneratorParameters{}},
		"static of too much":    {"static", api.GeneratorParameters{Value: strings.Repeat("v", maxValue+1)}},
	} {
		if err := check(tt.generator, &tt.p, false); fault.CodeOf(err) != fault.ValidationError {
			t.Errorf("%s: %v, want validation_error", name, err)
		}
	}
}

// A template is read in one pass, whatever it holds.
func FuzzTemplate(f *testing.F) {
	for _, seed := range []string{"sk_{{random:32}}", "{{uuid}}", "{{hex:16}}}}", "{{{{", "{{digits:007}}", "}}{{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pieces, err := parseTemplate(text)
		if err != nil {
			return
		}
		drawn := 0
		for _, p := range pieces {
			drawn += p.n
		}
		g, err := templateValue(api.GeneratorParameters{Template: text}, "")
		if err != nil || drawn < minDrawn || len(g.value.Reveal()) > maxTemplate+maxVariables*maxDrawn {
			t.Errorf("%q: %d drawn, %d bytes, %v", text, drawn, len(g.value.Reveal()), err)
		}
	})
}

func TestTurn(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	p := &Policy{Interval: api.Duration(30 * 24 * time.Hour), WarnBefore: ptr(api.Duration(24 * time.Hour)), IsActive: true}
	first := map[time.Time]bool{}
	for _, path := range []string{"a", "b", "c", "d", "e"} {
		at, try := p.Turn(path, noon)
		if at != noon.Add(30*24*time.Hour) || try.After(at) || try.Before(at.Add(-5*time.Minute)) {
			t.Errorf("%s: by %v, tried %v", path, at, try)
		}
		if _, again := p.Turn(path, noon); again != try {
			t.Error("not the same moment twice")
		}
		first[try] = true
	}
	if len(first) < 3 {
		t.Error("all are tried at one moment")
	}
	at := noon.Add(time.Hour)
	for now, want := range map[time.Time]string{at.Add(-25 * time.Hour): api.RotationScheduled, at.Add(-time.Hour): api.RotationDue,
		at.Add(time.Second): api.RotationOverdue} {
		if got := p.State(&at, now); got != want {
			t.Errorf("at %v: %s, want %s", now, got, want)
		}
	}
	p.IsActive = false
	if got := p.State(&at, at); got != api.RotationPaused {
		t.Error(got)
	}
}
