package gcp_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"maps"
	"math/big"
	"os"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
)

// What Google cannot do, by subtest.
var (
	always = map[string]string{
		"LateExecution": "Google executes what comes late; the manager looks again, and what was made bears an end",
		"Renew":         "the end of a certificate, a token and a condition cannot be moved: the roles say so",
		"RevokeBatch":   "there is no call for many",
		"Clock":         "the API tells no time but in a header of whole seconds",
		"WrongServer":   "projects are told by their id, which the recipe holds",
	}
	tokensGoOn = map[string]string{
		"NameTaken":               "keys have no names that could be taken",
		"RevokeEndsSessions":      "tokens that were made with a key live on for an hour; the outcome says so",
		"RevokeBeatsReconnecting": "tokens that were made with a key live on for an hour; the outcome says so",
	}
	madeByGoogle = map[string]string{
		"Lookup": "a key that Google made and nobody confirmed is held by nobody: it is looked up as unusable",
	}
)

// differing are the subtests in which a kind of credential differs from a key of its own account.
var differing = []string{"Issue", "NoSecretInRecipe", "LostAnswer", "RevokeTwice", "RevokeEndsSessions", "SecretsStayOutOfTheLog"}

// full tells whether the long forms are asked for.
func full() bool { return os.Getenv("SCAIVAULT_TEST_FULL") != "" }

// TestConformance runs the suite for every kind of credential that can be ended.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		role       string
		exceptions []map[string]string
		short      []string // what differs from the kinds above; nil for all
	}{
		"key of an account":           {keyOfAnAccount, []map[string]string{always, tokensGoOn}, nil},
		"key of its own account":      {keyOfItsOwn, []map[string]string{always}, nil},
		"Google's key of its own":     {googleKeyOfOwn, []map[string]string{always, madeByGoogle}, differing},
		"access token of its account": {tokenOfItsOwn, []map[string]string{always, madeByGoogle}, differing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !full() && kind.short != nil {
				for _, c := range kind.short {
					t.Run(c, func(t *testing.T) {
						t.Parallel()
						enginetest.RunCase(t, c, newSource(t).target(t, kind.role))
					})
				}
				return
			}
			enginetest.Run(t, func(t *testing.T) *enginetest.Target {
				target := newSource(t).target(t, kind.role)
				for _, e := range kind.exceptions {
					maps.Copy(target.Exceptions, e)
				}
				return target
			})
		})
	}
}

func (s *source) target(t *testing.T, role string) *enginetest.Target {
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			extra := map[string]any{}
			if o.Address != "" {
				extra["endpoints"] = endpoints("https://" + o.Address)
			}
			if o.OperationTimeout != 0 {
				// A credential takes several requests, which a busy machine does not make in the suite's time.
				patience := 4 * o.OperationTimeout
				extra["operation_timeout"], extra["connect_timeout"] = patience.String(), o.OperationTimeout.String()
			}
			options := s.options(extra)
			options.Node, options.Epoch = enginetest.Node, o.Epoch
			if o.Root != nil {
				options.Root = o.Root
			}
			return open(t, options)
		},
		Address: s.Address,
		Role:    parseRole(t, role),
		Public:  []string{"service_account_email"},
		Login: func(ctx context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			h, err := s.login(ctx, data)
			return h, err
		},
		Sessions: map[string]func(*testing.T, map[string]statement.Secret) enginetest.Session{
			"a token": func(t *testing.T, data map[string]statement.Secret) enginetest.Session {
				h, err := s.login(t.Context(), data)
				if err != nil {
					t.Fatalf("log in: %v", err)
				}
				return h
			},
		},
		Exists: func(_ *testing.T, name string) bool { return s.exists(name) },
		Plant: func(t *testing.T, name string) {
			if role == keyOfAnAccount {
				s.plantKey(t, name)
				return
			}
			s.AddAccount(name)
		},
		Log:        func(*testing.T) string { return s.Log() },
		Say:        func(_ *testing.T, text string) { s.Say(text) },
		Exceptions: map[string]string{},
		End: func(t *testing.T, name string) time.Time {
			email, id, found := s.find(name)
			switch {
			case !found:
				t.Fatalf("there is no %s", name)
			case role == keyOfAnAccount || role == keyOfItsOwn:
				return s.KeyEnds(email, id)
			}
			return s.conditionOf(t, email)
		},
	}
}

// plantKey uploads a stranger's key, in a certificate that has our name on it.
func (s *source) plantKey(t *testing.T, name string) {
	t.Helper()
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, pair.Public(), pair)
	if err != nil {
		t.Fatal(err)
	}
	s.Upload(t, s.app.Email, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
