package gcp

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	// maxKeys is how many keys Google lets an account have, of those that are not its own.
	maxKeys = 10
	// early is how much before now a certificate begins: clocks differ.
	early = 5 * time.Minute
)

// forever is the end of a key without an end, as Google writes it (RFC 5280, 4.1.2.5).
var forever = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC)

// accountKey is a key as the IAM API has it.
type accountKey struct {
	Name           string    `json:"name"`
	Origin         string    `json:"keyOrigin"`
	Type           string    `json:"keyType"`
	ValidBefore    time.Time `json:"validBeforeTime"`
	Disabled       bool      `json:"disabled"`
	PublicKeyData  []byte    `json:"publicKeyData"`
	PrivateKeyData []byte    `json:"privateKeyData"`
}

func (k accountKey) id() string { return path.Base(k.Name) }

// certificate is what was uploaded; nil where Google shows none.
func (k accountKey) certificate() *x509.Certificate {
	block, _ := pem.Decode(k.PublicKeyData)
	if block == nil {
		return nil
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return cert
}

// fingerprint is that of the public key, by which an uploaded one is known again.
func fingerprint(public any) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// certify wraps the public half of a pair into a certificate, in PEM, with which Google takes it.
// Google refuses the key after ends. The subject is marked: a name alone can be copied.
func (e *Engine) certify(pair *rsa.PrivateKey, name string, ends time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: []string{e.options.Namer.Mark(name)}},
		NotBefore: time.Now().Add(-early), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pair.Public(), pair)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// marked tells whether a certificate was made by certify, of this installation.
func (e *Engine) marked(cert *x509.Certificate) bool {
	name, marks := cert.Subject.CommonName, cert.Subject.Organization
	return len(marks) == 1 && marks[0] == e.options.Namer.Mark(name)
}

// file is the key as Google would hand it out.
func file(a *account, accountID, keyID string, pair *rsa.PrivateKey) (statement.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		return "", err
	}
	text, err := json.MarshalIndent(keyFile{
		Type: "service_account", ProjectID: a.project, PrivateKeyID: keyID,
		PrivateKey:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		ClientEmail: a.email, ClientID: accountID,
		AuthURI: "https://accounts.google.com/o/oauth2/auth", TokenURI: googleToken,
		ProviderURL: "https://www.googleapis.com/oauth2/v1/certs",
		ClientURL:   "https://www.googleapis.com/robot/v1/metadata/x509/" + url.PathEscape(a.email),
		Universe:    universe,
	}, "", "  ")
	return statement.Secret(text), err
}

// inBase64 is how privateKeyData of the API holds a file.
func inBase64(file statement.Secret) statement.Secret {
	return statement.Secret(base64.StdEncoding.EncodeToString([]byte(file.Reveal())))
}

// managedKeys are the keys of an account that count towards maxKeys.
func (e *Engine) managedKeys(ctx context.Context, attempt string, a *account, lane engine.Lane) ([]accountKey, error) {
	var all struct {
		Keys []accountKey `json:"keys"`
	}
	c := get(attempt, e.iam(a.path()+"/keys?keyTypes=USER_MANAGED"), &all)
	c.lane = lane
	err := e.do(ctx, c)
	return all.Keys, err
}

// upload gives an account the public half of a pair. missing is set where the account may not be
// known everywhere yet.
func (e *Engine) upload(ctx context.Context, attempt string, a *account, certificate []byte, lane engine.Lane, missing func(*apiError) bool) (accountKey, error) {
	var made accountKey
	c := post(attempt, e.iam(a.path()+"/keys:upload"), map[string][]byte{"publicKeyData": certificate}, &made)
	c.lane, c.missing = lane, missing
	err := e.do(ctx, c)
	return made, err
}

// makeKey lets Google make a pair, of which it hands out the private half once.
func (e *Engine) makeKey(ctx context.Context, a *account, missing func(*apiError) bool) (accountKey, error) {
	var made accountKey
	c := post(issuing, e.iam(a.path()+"/keys"), map[string]string{"privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE", "keyAlgorithm": "KEY_ALG_RSA_2048"}, &made)
	c.lane, c.missing = engine.Issuing, missing
	err := e.do(ctx, c)
	return made, err
}

// key is one key with its certificate; found is false where there is none.
func (e *Engine) key(ctx context.Context, attempt string, a *account, id string) (k accountKey, found bool, err error) {
	err = e.do(ctx, get(attempt, e.iam(a.path()+"/keys/"+url.PathEscape(id)+"?publicKeyType=TYPE_X509_PEM_FILE"), &k))
	if gone(err) {
		return k, false, nil
	}
	return k, err == nil, err
}

// findKey finds an uploaded key by its public key.
func (e *Engine) findKey(ctx context.Context, attempt string, a *account, public string) (found *accountKey, err error) {
	err = e.eachUploaded(ctx, attempt, a, func(k accountKey, cert *x509.Certificate) {
		if fingerprint(cert.PublicKey) == public {
			found = &k
		}
	})
	return found, err
}

// eachUploaded walks through the keys of an account that were uploaded, with their certificates.
// There are at most maxKeys.
func (e *Engine) eachUploaded(ctx context.Context, attempt string, a *account, visit func(accountKey, *x509.Certificate)) error {
	all, err := e.managedKeys(ctx, attempt, a, engine.Revoking)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.Origin != "USER_PROVIDED" {
			continue
		}
		whole, found, err := e.key(ctx, attempt, a, k.id())
		if err != nil {
			return err
		}
		if cert := whole.certificate(); found && cert != nil {
			visit(whole, cert)
		}
	}
	return nil
}

// deleteKey ends a key. Already gone is success.
func (e *Engine) deleteKey(ctx context.Context, attempt string, a *account, id string) error {
	err := e.do(ctx, call{attempt: attempt, method: http.MethodDelete, url: e.iam(a.path() + "/keys/" + url.PathEscape(id)), lane: engine.Revoking, repeatable: true})
	if gone(err) {
		return nil
	}
	return err
}
