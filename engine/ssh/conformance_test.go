package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	driver "golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	nobodyToAsk = "there is no source: a certificate is where its holder keeps it"
	noNetwork   = "there is no source that could be away"
	noSessions  = "open SSH sessions are not ended: nothing tells the host"
)

// exceptions are what an engine without a source cannot do, or cannot fail at.
func exceptions() map[string]string {
	return map[string]string{
		"NameTaken": nobodyToAsk, "Lookup": nobodyToAsk, "WrongServer": nobodyToAsk,
		"LateExecution": noNetwork, "LostAnswer": noNetwork, "Unreachable": noNetwork, "BlackHole": noNetwork, "Frozen": noNetwork,
		"RevokeEndsSessions": noSessions, "RevokeBeatsReconnecting": noSessions,
		"SecretsStayOutOfTheLog": "there is no source that could have a log",
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for mode, newTarget := range map[string]func(*testing.T) *enginetest.Target{"ca": certificates, "otp": passwords} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			enginetest.Run(t, newTarget)
		})
	}
}

// certificates are accepted by a host that reads the list of what is revoked.
func certificates(t *testing.T) *enginetest.Target {
	t.Helper()
	h, options := newHost(), newOptions(t, ca)
	key, line := newKey(t)
	return &enginetest.Target{
		Open: func(t *testing.T, o enginetest.Opening) engine.Engine {
			t.Helper()
			options := options
			if o.Root != nil {
				options.Root = o.Root
			}
			return watched{open(t, options), h}
		},
		Role:   newRole(t, deploy),
		Params: fields{"public_key": line}.raw(t),
		Login: func(_ context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			return session{}, h.login(t, key, "deploy", data)
		},
		Exists: func(t *testing.T, name string) bool {
			t.Helper()
			h.mu.Lock()
			defer h.mu.Unlock()
			serial, err := strconv.ParseUint(name, 10, 64)
			return err == nil && h.issued[name] != nil && !slices.Contains(serials(t, h.list(t)), serial)
		},
		Exceptions: exceptions(),
	}
}

// passwords are accepted by a host that asks.
func passwords(t *testing.T) *enginetest.Target {
	t.Helper()
	h, options, declared := newHost(), newOptions(t, otp), exceptions()
	declared["RotateRoot"] = "passwords need no key"
	alive := func(name string) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		r := h.issued[name]
		return r != nil && h.revoked[nameOf(r)] == nil
	}
	return &enginetest.Target{
		Open: func(t *testing.T, _ enginetest.Opening) engine.Engine {
			t.Helper()
			return watched{open(t, options), h}
		},
		Role:   newRole(t, onlyDeploy),
		Params: fields{"ip": "10.1.2.3"}.raw(t),
		Public: []string{"username", "ip", "port"},
		Login: func(_ context.Context, data map[string]statement.Secret) (enginetest.Session, error) {
			name := ssh.Type{}.NameIn(data["otp"])
			if !alive(name) || !(ssh.Type{}).Accepts(h.issued[name], engine.Presented{Secret: data["otp"], Username: "deploy", Address: "10.1.2.3"}) {
				return nil, errors.New("refused")
			}
			return session{}, nil
		},
		Exists:     func(_ *testing.T, name string) bool { return alive(name) },
		Exceptions: declared,
	}
}

// session is one that needs no connection.
type session struct{}

func (session) Works(context.Context) bool { return true }
func (session) Close()                     {}

// login is what sshd does with a certificate.
func (h *host) login(t *testing.T, key driver.Signer, user string, data map[string]statement.Secret) error {
	if data["signed_key"] == "" {
		return errors.New("there is no certificate")
	}
	c := certificate(t, data)
	h.mu.Lock()
	defer h.mu.Unlock()
	checker := driver.CertChecker{
		IsUserAuthority: func(k driver.PublicKey) bool {
			return slices.ContainsFunc(h.keys, func(trusted []byte) bool { return bytes.Equal(trusted, k.Marshal()) })
		},
		IsRevoked: func(c *driver.Certificate) bool { return slices.Contains(serials(t, h.list(t)), c.Serial) },
	}
	if !bytes.Equal(c.Key.Marshal(), key.PublicKey().Marshal()) {
		return errors.New("the certificate is for another key")
	}
	_, err := checker.Authenticate(connection{user: user}, c)
	return err
}

// connection is what a checker wants to know of one.
type connection struct {
	driver.ConnMetadata
	user string
}

func (c connection) User() string { return c.user }

// list is the list of what is revoked.
func (h *host) list(t *testing.T) []byte {
	t.Helper()
	var revoked []engine.Recipe
	for _, r := range h.revoked {
		revoked = append(revoked, r)
	}
	return krl(t, revoked)
}

// A recipe is not the business of another engine's.
func TestForeignRecipe(t *testing.T) {
	t.Parallel()
	e := open(t, newOptions(t, ca))
	for _, raw := range []string{`{}`, `{"nonsense": true}`, `{"lease_id": "lease_1"}`, `[]`, ``, `{"lease_id": "lease_1", "serial": 7}`} {
		if _, err := e.Revoke(t.Context(), engine.Recipe(raw)); engine.KindOf(err) != engine.Misconfigured {
			t.Errorf("revoke %s: %v", raw, err)
		}
		if _, err := e.Lookup(t.Context(), engine.Recipe(raw)); engine.KindOf(err) != engine.Misconfigured {
			t.Errorf("look %s up: %v", raw, err)
		}
		if _, err := (ssh.Type{}).RevocationList(noon, []engine.Recipe{engine.Recipe(raw)}); err == nil {
			t.Errorf("%s is listed", raw)
		}
	}
}
