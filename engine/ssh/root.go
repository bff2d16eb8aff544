package ssh

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const keyEd25519 = "ed25519"

// The fields of a root secret.
const (
	fieldPrivate = "private_key"
	fieldPublic  = "public_key"
)

// generators make the keys that a CA can have.
var generators = map[string]func() (crypto.Signer, error){
	keyEd25519: func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	},
	"ecdsa-p256": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"ecdsa-p384": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) },
	"rsa-3072":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
	"rsa-4096":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 4096) },
}

func keyTypes() string { return strings.Join(slices.Sorted(maps.Keys(generators)), ", ") }

// RootPath implements engine.RootMaker.
func (Type) RootPath(engineName string, raw json.RawMessage) string {
	var c struct {
		Mode string `json:"mode"`
		Path string `json:"root_credentials_path"`
	}
	if json.Unmarshal(raw, &c) != nil || c.Mode == modeOTP || c.Path != "" {
		return ""
	}
	return typeName + "/" + engineName + "/ca"
}

// MakeRoot implements engine.RootMaker.
func (Type) MakeRoot(raw json.RawMessage) (map[string]statement.Secret, error) {
	c, err := parseConfig(raw)
	if err != nil {
		return nil, err
	}
	return makeRoot(c.KeyType)
}

func makeRoot(keyType string) (map[string]statement.Secret, error) {
	key, err := generators[keyType]()
	if err != nil {
		return nil, misconfigured("make the key of the CA", err)
	}
	return keyFields(key)
}

// keyFields are a key pair in the forms of ssh-keygen.
func keyFields(key crypto.Signer) (map[string]statement.Secret, error) {
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, misconfigured("write a private key", err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, misconfigured("write a public key", err)
	}
	return map[string]statement.Secret{
		fieldPrivate: statement.Secret(pem.EncodeToMemory(block)),
		fieldPublic:  statement.Secret(line(public, "")),
	}, nil
}

// newKeyPair makes a key for a caller and puts both parts into what the caller gets.
func newKeyPair(data map[string]statement.Secret) (ssh.PublicKey, error) {
	key, err := generators[keyEd25519]()
	if err != nil {
		return nil, misconfigured("make a key", err)
	}
	fields, err := keyFields(key)
	if err != nil {
		return nil, err
	}
	maps.Copy(data, fields)
	return ssh.NewPublicKey(key.Public())
}

// readRoot reads the key of the CA from the fields of a root secret.
func readRoot(fields map[string]statement.Secret) (ssh.Signer, error) {
	const attempt = "read the root secret: "
	text := fields[fieldPrivate].Reveal()
	if text == "" {
		return nil, misconfigured(attempt+"it has no field private_key, in the form of ssh-keygen", nil)
	}
	signer, err := ssh.ParsePrivateKey([]byte(text))
	if err != nil { // the parser's text is not shown: it may repeat what it read
		return nil, misconfigured(attempt+"its private_key is none that ssh-keygen writes without a passphrase", nil)
	}
	if why := unacceptable(signer.PublicKey()); why != "" {
		return nil, misconfigured(attempt+"its private_key "+why, nil)
	}
	if text := fields[fieldPublic].Reveal(); text != "" {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
		if err != nil || !bytes.Equal(public.Marshal(), signer.PublicKey().Marshal()) {
			return nil, misconfigured(attempt+"its public_key is not the one of its private_key", nil)
		}
	}
	if of, ok := signer.(ssh.AlgorithmSigner); ok && signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		if signer, err = ssh.NewSignerWithAlgorithms(of, []string{ssh.KeyAlgoRSASHA512}); err != nil {
			return nil, misconfigured(attempt+"its private_key cannot sign", err)
		}
	}
	return signer, nil
}

// PlanRoot implements engine.RootRotator.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	if e.config.Mode != modeCA {
		return nil, keyless()
	}
	return makeRoot(e.config.KeyType)
}

func keyless() error {
	return misconfigured("rotate the key of the CA: an engine of one-time passwords has none", nil)
}

// SetRoot implements engine.RootRotator: nobody has to accept the key, so it is proved by a certificate
// and published. It does not sign before the hosts have had the time to fetch it.
func (e *Engine) SetRoot(_ context.Context, candidate map[string]statement.Secret) error {
	if e.config.Mode != modeCA {
		return keyless()
	}
	if err := e.usable(); err != nil {
		return err
	}
	signer, err := readRoot(candidate)
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RootSet)
	if err := prove(signer); err != nil {
		return misconfigured("rotate the key of the CA: the new one does not sign", err)
	}
	failpoint.Hit(failpoint.RootProved)
	e.publish(signer)
	return nil
}
