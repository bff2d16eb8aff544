package ssh_test

import (
	"crypto/dsa" //nolint:staticcheck // to be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	driver "golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/ssh"
)

func openFailing(t testing.TB, o engine.Options) (engine.Engine, error) {
	t.Helper()
	e, err := ssh.Type{}.Open(t.Context(), o)
	if err == nil {
		e.Close()
		return nil, errors.New("it opened")
	}
	return nil, err
}

func lineOf(t testing.TB, public any) string {
	t.Helper()
	key, err := driver.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(driver.MarshalAuthorizedKey(key)))
}

// wire is a line of a key whose parts are given.
func wire(kind string, parts ...[]byte) string {
	b := driver.Marshal(struct{ Kind string }{kind})
	for _, p := range parts {
		b = append(b, driver.Marshal(struct{ Part []byte }{p})...)
	}
	return kind + " " + base64.StdEncoding.EncodeToString(b)
}

func rsaOf(bits int, e int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	for n.SetBit(n, 0, 1); new(big.Int).GCD(nil, nil, n, big.NewInt(3*5*7*11*13*17*19*23*29*31*37*41*43*47)).Cmp(big.NewInt(1)) != 0; {
		n.Add(n, big.NewInt(2))
	}
	return &rsa.PublicKey{N: n, E: e}
}

// TestPublicKeys: every kind of key that OpenSSH makes by itself is taken; weak ones, giants, and what
// only says that it is a key are not.
func TestPublicKeys(t *testing.T) {
	t.Parallel()
	e, r := open(t, newOptions(t, ca)), newRole(t, deploy)
	_, line := newKey(t)
	p, _ := issue(t, e, r, fields{"public_key": line})
	points := map[string]string{}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		points[curve.Params().Name] = lineOf(t, &key.PublicKey)
	}
	_, base, _ := strings.Cut(line, " ")
	raw, err := base64.StdEncoding.DecodeString(base)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		line string
		says string // "" for one that is taken
	}{
		"ed25519":             {line, ""},
		"with a comment":      {line + " alice@example.com and more", ""},
		"with a line's end":   {line + "\n", ""},
		"P-256":               {points["P-256"], ""},
		"P-384":               {points["P-384"], ""},
		"P-521":               {points["P-521"], ""},
		"2048 bits":           {lineOf(t, rsaOf(2048, 65537)), ""},
		"8192 bits":           {lineOf(t, rsaOf(8192, 65537)), ""},
		"security key":        {wire("sk-ssh-ed25519@openssh.com", raw[len(raw)-32:], []byte("ssh:")), ""},
		"2047 bits":           {lineOf(t, rsaOf(2047, 65537)), "fewer than 2048"},
		"1024 bits":           {lineOf(t, rsaOf(1024, 65537)), "fewer than 2048"},
		"8193 bits":           {lineOf(t, rsaOf(8193, 65537)), "more than 8192"},
		"a megabit":           {lineOf(t, rsaOf(1<<20, 65537)), "longer than"},
		"exponent 1":          {wire("ssh-rsa", []byte{1}, rsaOf(2048, 3).N.FillBytes(make([]byte, 257))), "taken"},
		"a small factor":      {lineOf(t, &rsa.PublicKey{N: new(big.Int).Mul(rsaOf(2048, 3).N, big.NewInt(3)), E: 65537}), "small factor"},
		"DSA":                 {dsaLine(t), "taken"},
		"a certificate":       {p.Data["signed_key"].Reveal(), "certificate"},
		"a point at infinity": {wire("ssh-ed25519", append([]byte{1}, make([]byte, 31)...)), "small order"},
		"short":               {wire("ssh-ed25519", make([]byte, 31)), "taken"},
		"more behind":         {"ssh-ed25519 " + base64.StdEncoding.EncodeToString(append(raw[:len(raw):len(raw)], 0)), "taken"},
		"another type":        {"ssh-rsa " + base, "another type"},
		"a zero too many":     {wire("ssh-rsa", []byte{1, 0, 1}, rsaOf(2048, 3).N.FillBytes(make([]byte, 300))), "one form"},
		"ML-DSA":              {wire("ssh-mldsa-44", make([]byte, 1312)), "taken"},
		"nothing":             {" ", "missing"},
		"no base64":           {"ssh-ed25519 !!!!", "TYPE BASE64"},
		"one word":            {base, "TYPE BASE64"},
		"options":             {`command="x" ` + line, "TYPE BASE64"},
		"two keys":            {line + "\n" + line, "one line"},
		"a private key":       {newRoot(t, ca)["private_key"].Reveal(), "one line"},
	} {
		_, err := plan(t, e, r, fields{"public_key": tt.line})
		if tt.says == "" && err != nil || tt.says != "" && (engine.KindOf(err) != engine.Refused || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func dsaLine(t testing.TB) string {
	t.Helper()
	p, q := new(big.Int).Lsh(big.NewInt(1), 1023), new(big.Int).Lsh(big.NewInt(1), 159)
	return lineOf(t, &dsa.PublicKey{Parameters: dsa.Parameters{P: p.SetBit(p, 0, 1), Q: q.SetBit(q, 0, 1), G: big.NewInt(2)}, Y: big.NewInt(4)})
}

// TestSmallOrder shows that the points which are refused are those with which anybody can sign: a
// signature of zeros holds for one message in eight, or for all.
func TestSmallOrder(t *testing.T) {
	t.Parallel()
	e, r := open(t, newOptions(t, ca)), newRole(t, deploy)
	found := 0
	for _, text := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	} {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		forged := append(append([]byte{1}, make([]byte, 31)...), make([]byte, 32)...)
		for i := range 200 {
			sum := sha512.Sum512(fmt.Append(nil, i))
			if ed25519.Verify(point, sum[:], forged) {
				found++
				break
			}
		}
		if _, err := plan(t, e, r, fields{"public_key": wire("ssh-ed25519", point)}); engine.KindOf(err) != engine.Refused {
			t.Errorf("%s: %v", text, err)
		}
	}
	if found != 7 {
		t.Errorf("only with %d of 7 points can anybody sign", found)
	}
}

// FuzzPublicKey: nothing that a caller sends makes the engine panic or fail otherwise than by a refusal,
// and what it takes is signed in one form.
func FuzzPublicKey(f *testing.F) {
	e, r := open(f, newOptions(f, ca)), newRole(f, deploy)
	_, line := newKey(f)
	f.Add(line)
	f.Add(lineOf(f, rsaOf(2048, 65537)))
	f.Add(dsaLine(f))
	f.Add(wire("sk-ssh-ed25519@openssh.com", make([]byte, 32), []byte("ssh:")))
	f.Add(wire("ssh-ed25519-cert-v01@openssh.com", make([]byte, 32)))
	f.Add("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA0AHAyAAAAAAyAAXAxA1AAXAACABAAAAAAAbcAAAAAAAAAABA21aC1=")
	f.Fuzz(func(t *testing.T, line string) {
		p, err := plan(t, e, r, fields{"public_key": line})
		if err != nil {
			if engine.KindOf(err) != engine.Refused {
				t.Errorf("%q: %v", line, err)
			}
			return
		}
		if _, err := e.Issue(t.Context(), p); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		key := certificate(t, p.Data).Key
		if fields := strings.Fields(line); fields[0] != key.Type() || fields[1] != base64.StdEncoding.EncodeToString(key.Marshal()) {
			t.Errorf("%q is signed as %s", line, key.Type())
		}
	})
}
