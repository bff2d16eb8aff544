package rotation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/statement"
)

const defaultBits = 3072

func checkBits(p *api.GeneratorParameters) []string {
	if p.Bits != nil && !slices.Contains([]int{2048, 3072, 4096}, *p.Bits) {
		return []string{"parameters.bits: 2048, 3072 or 4096"}
	}
	return nil
}

func newRSA(p api.GeneratorParameters) (*rsa.PrivateKey, error) {
	bits := defaultBits
	if p.Bits != nil {
		bits = *p.Bits
	}
	return rsa.GenerateKey(rand.Reader, bits)
}

func rsaKeys(p api.GeneratorParameters, _ string) (generated, error) {
	key, err := newRSA(p)
	if err != nil {
		return generated{}, err
	}
	return pemPair(key, &key.PublicKey)
}

var curves = map[string]elliptic.Curve{"": elliptic.P256(), "P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func checkCurve(p *api.GeneratorParameters) []string {
	if curves[p.Curve] == nil {
		return []string{"parameters.curve: P-256, P-384 or P-521"}
	}
	return nil
}

func ecKeys(p api.GeneratorParameters, _ string) (generated, error) {
	key, err := ecdsa.GenerateKey(curves[p.Curve], rand.Reader)
	if err != nil {
		return generated{}, err
	}
	return pemPair(key, &key.PublicKey)
}

// pemPair is a pair as PKCS #8 and PKIX in PEM, which every library reads.
func pemPair(private crypto.PrivateKey, public crypto.PublicKey) (generated, error) {
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return generated{}, err
	}
	pub, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return generated{}, err
	}
	return pair(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})), nil
}

func pair(private, public []byte) generated {
	return generated{named: map[string]statement.Secret{"private_key": statement.Secret(private), "public_key": statement.Secret(public)}}
}

const (
	sshEd25519 = "ed25519"
	sshRSA     = "rsa"
)

func checkSSH(p *api.GeneratorParameters) (wrong []string) {
	switch p.KeyType {
	case sshRSA:
		wrong = checkBits(p)
	case "", sshEd25519:
		if p.Bits != nil {
			wrong = append(wrong, "parameters.bits: only for key_type rsa")
		}
	default:
		wrong = append(wrong, "parameters.key_type: ed25519 or rsa")
	}
	if len(p.Comment) > 256 || strings.ContainsFunc(p.Comment, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		wrong = append(wrong, "parameters.comment: at most 256 bytes, without control characters")
	}
	return wrong
}

// sshKeys is a pair in the forms that ssh-keygen writes.
func sshKeys(p api.GeneratorParameters, _ string) (generated, error) {
	var private crypto.PrivateKey
	var public crypto.PublicKey
	var err error
	if p.KeyType == sshRSA {
		var key *rsa.PrivateKey
		if key, err = newRSA(p); err == nil {
			private, public = key, &key.PublicKey
		}
	} else {
		public, private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		return generated{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, p.Comment)
	if err != nil {
		return generated{}, err
	}
	pub, err := ssh.NewPublicKey(public)
	if err != nil {
		return generated{}, err
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(pub)), "\n")
	if p.Comment != "" {
		line += " " + p.Comment
	}
	return pair(pem.EncodeToMemory(block), []byte(line+"\n")), nil
}
