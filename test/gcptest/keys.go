package gcptest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"net/http"
	"path"
	"slices"
	"sync"
	"time"
)

// maxKeys is how many keys an account can have.
const maxKeys = 10

const userProvided = "USER_PROVIDED"

// pairs are made once for all servers of a process: they take time. No server uses one twice.
var pairs pool

type pool struct {
	mu   sync.Mutex
	made []*rsa.PrivateKey
}

func (p *pool) take(n int) *rsa.PrivateKey {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.made) <= n {
		pair, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err) // there is no randomness
		}
		p.made = append(p.made, pair)
	}
	return p.made[n]
}

// key is one of an account.
type key struct {
	id        string
	origin    string
	public    *rsa.PublicKey
	cert      []byte // as PEM
	notBefore time.Time
	notAfter  time.Time
	hidden    bool // its certificate is not shown
	existence
}

// AddKey makes a key of an account, as an administrator does, and answers the file.
func (s *Server) AddKey(email string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, file := s.makeKey(s.accounts[email])
	k.from = time.Time{}
	return file
}

// KeyEnds is when a key ends.
func (s *Server) KeyEnds(email, id string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accounts[email].keys[id].notAfter
}

// Certificate is what was uploaded for a key; nil for one that was made here.
func (s *Server) Certificate(email, id string) *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.accounts[email].keys[id]
	if k.origin != userProvided {
		return nil
	}
	block, _ := pem.Decode(k.cert)
	cert, _ := x509.ParseCertificate(block.Bytes) // it was read before
	return cert
}

// HideCertificate keeps the certificate of a key from being shown.
func (s *Server) HideCertificate(email, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accounts[email].keys[id].hidden = true
}

// Upload gives an account a key in a certificate, as an administrator does.
func (s *Server) Upload(t TB, email string, certificate []byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := json.Marshal(map[string][]byte{"publicKeyData": certificate})
	if err == nil {
		_, err = s.uploadKey(&exchange{body: body}, s.accounts[email])
	}
	if err != nil {
		t.Fatalf("upload a key: %v", err)
	}
}

func (s *Server) serveKeys(verb string, x *exchange) (any, error) {
	permission := verb
	if verb == "upload" {
		permission = "create"
	}
	a, err := s.accountIn(x, x.parameters["name"], "iam.serviceAccountKeys."+permission)
	if err != nil {
		return nil, err
	}
	switch verb {
	case "list":
		return s.listKeys(x, a), nil
	case "upload", "create":
		if count := len(a.shown().Keys); count >= maxKeys {
			return nil, fail(http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "Maximum number of keys on account reached.")
		}
		if verb == "upload" {
			return s.uploadKey(x, a)
		}
		k, file := s.makeKey(a)
		r := k.resource(a)
		r["privateKeyData"], r["privateKeyType"] = file, "TYPE_GOOGLE_CREDENTIALS_FILE"
		return r, nil
	}
	k := a.keys[path.Base(x.parameters["name"])]
	if k == nil || verb != "delete" && !k.known(s.now()) || verb == "delete" && k.deleted() {
		return nil, fail(http.StatusNotFound, "NOT_FOUND", "Service account key %s does not exist.", path.Base(x.parameters["name"]))
	}
	if verb == "delete" {
		k.until = s.now().Add(s.lag)
		return struct{}{}, nil
	}
	r := k.resource(a)
	if k.hidden {
		return r, nil
	}
	switch x.r.URL.Query().Get("publicKeyType") {
	case "TYPE_X509_PEM_FILE":
		r["publicKeyData"] = k.cert
	case "TYPE_RAW_PUBLIC_KEY":
		der, err := x509.MarshalPKIXPublicKey(k.public)
		if err != nil {
			return nil, err
		}
		r["publicKeyData"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return r, nil
}

// listKeys shows every account the key that Google itself signs with, unless only others are asked for.
func (s *Server) listKeys(x *exchange, a *serviceAccount) any {
	var all []any
	for _, id := range slices.Sorted(maps.Keys(a.keys)) {
		if a.keys[id].known(s.now()) {
			all = append(all, a.keys[id].resource(a))
		}
	}
	if wanted := x.r.URL.Query()["keyTypes"]; len(wanted) == 0 || slices.Contains(wanted, "SYSTEM_MANAGED") {
		all = append(all, map[string]any{"name": a.path() + "/keys/0000", "keyType": "SYSTEM_MANAGED", "keyOrigin": "GOOGLE_PROVIDED"})
	}
	if len(all) == 0 {
		return map[string]any{}
	}
	return map[string]any{"keys": all}
}

func (s *Server) uploadKey(x *exchange, a *serviceAccount) (any, error) {
	var q struct {
		PublicKeyData []byte `json:"publicKeyData"`
	}
	if err := json.Unmarshal(x.body, &q); err != nil {
		return nil, err
	}
	refused := func(why string) error {
		return fail(http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid public key data: %s", why)
	}
	block, rest := pem.Decode(q.PublicKeyData)
	if block == nil || block.Type != "CERTIFICATE" || len(rest) > 0 {
		return nil, refused("it is not one certificate in PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || cert.Version != 3 {
		return nil, refused("it is no X.509 v3 certificate")
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok || public.N.BitLen() != 2048 && public.N.BitLen() != 1024:
		return nil, refused("the key is not RSA of 1024 or 2048 bits")
	case cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil:
		return nil, refused("it is not signed by its own key")
	case !cert.NotAfter.After(s.now()):
		return nil, refused("it has ended")
	}
	sum := sha1.Sum(block.Bytes)
	k := &key{
		id: hex.EncodeToString(sum[:]), origin: userProvided, public: public, cert: q.PublicKeyData,
		notBefore: cert.NotBefore, notAfter: cert.NotAfter, existence: existence{from: s.now().Add(s.lag)},
	}
	if had := a.keys[k.id]; had != nil && !had.deleted() {
		return nil, fail(http.StatusConflict, "ALREADY_EXISTS", "The key exists.")
	}
	a.keys[k.id] = k
	s.log = append(s.log, "uploaded a key of "+cert.Subject.String()+" for "+a.email)
	return k.resource(a), nil
}

// makeKey makes a pair here and gives the private half away.
func (s *Server) makeKey(a *serviceAccount) (*key, []byte) {
	pair := pairs.take(s.made)
	s.made++
	der, err := x509.MarshalPKCS8PrivateKey(pair)
	if err != nil {
		panic(err) // a key that was just made
	}
	self := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: a.id}}
	cert, err := x509.CreateCertificate(rand.Reader, self, self, &pair.PublicKey, pair)
	if err != nil {
		panic(err) // a key that was just made
	}
	k := &key{
		cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		id:   random(20), origin: "GOOGLE_PROVIDED", public: &pair.PublicKey, notBefore: s.now().Add(-time.Minute),
		notAfter: time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC), existence: existence{from: s.now().Add(s.lag)},
	}
	a.keys[k.id] = k
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": a.project, "private_key_id": k.id,
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": a.email, "client_id": a.id, "auth_uri": "https://accounts.google.com/o/oauth2/auth",
		"token_uri": tokenAudience, "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
		"client_x509_cert_url": "https://www.googleapis.com/robot/v1/metadata/x509/" + a.email, "universe_domain": "googleapis.com",
	})
	if err != nil {
		panic(err) // texts
	}
	return k, file
}

func (k *key) resource(a *serviceAccount) map[string]any {
	return map[string]any{
		"name": a.path() + "/keys/" + k.id, "keyAlgorithm": "KEY_ALG_RSA_2048", "keyOrigin": k.origin, "keyType": "USER_MANAGED",
		"validAfterTime": k.notBefore.UTC().Format(time.RFC3339), "validBeforeTime": k.notAfter.UTC().Format(time.RFC3339),
	}
}
