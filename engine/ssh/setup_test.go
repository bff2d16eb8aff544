package ssh_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	driver "golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/engine/ssh"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
)

// fields are a document or a part of one.
type fields map[string]any

func (f fields) raw(t testing.TB) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// with is f with others beside or in place of its own.
func (f fields) with(others fields) fields {
	all := fields{}
	for _, one := range []fields{f, others} {
		for name, value := range one {
			all[name] = value
		}
	}
	return all
}

var (
	ca         = fields{"root_credentials_path": "ssh/hosts/ca"}
	otp        = fields{"mode": "otp"}
	deploy     = fields{"allowed_users": []string{"deploy", "web"}, "default_user": "deploy"}
	onlyDeploy = fields{"allowed_users": []string{"deploy"}, "cidr_list": []string{"10.0.0.0/8", "2001:db8::/32"}}
)

func newOptions(t testing.TB, config fields) engine.Options {
	t.Helper()
	o := engine.Options{Installation: "inst_1", EngineID: "eng_1", EngineName: "hosts", Config: config.raw(t), MaxTTL: 24 * time.Hour,
		Namer: statement.NewNamer("inst_1", []byte("key"), nil)}
	if config["mode"] != "otp" {
		o.Root = newRoot(t, config)
	}
	return o
}

func newRoot(t testing.TB, config fields) map[string]statement.Secret {
	t.Helper()
	root, err := ssh.Type{}.MakeRoot(config.raw(t))
	if err != nil {
		t.Fatalf("make a root: %v", err)
	}
	return root
}

func open(t testing.TB, o engine.Options) *ssh.Engine {
	t.Helper()
	return enginetest.Open[*ssh.Engine](t, ssh.Type{}, o)
}

func newRole(t testing.TB, spec fields) engine.Role {
	t.Helper()
	r, err := ssh.Type{}.ParseRole(spec.raw(t))
	if err != nil {
		t.Fatalf("read a role: %v", err)
	}
	return r
}

// newKey is a caller's key, and its line.
func newKey(t testing.TB) (driver.Signer, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := driver.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(driver.MarshalAuthorizedKey(signer.PublicKey())))
}

// plan asks for a credential that lives for an hour.
func plan(t testing.TB, e *ssh.Engine, role engine.Role, wish fields) (*engine.Plan, error) {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "deploy", Role: role, Identity: "sa:ci",
		ExpiresAt: time.Now().Add(time.Hour), Params: wish.raw(t)})
	if err == nil {
		p.Deadline = time.Now().Add(time.Minute)
	}
	return p, err
}

// issue makes a credential, which must work.
func issue(t testing.TB, e *ssh.Engine, role engine.Role, wish fields) (*engine.Plan, engine.Recipe) {
	t.Helper()
	p, err := plan(t, e, role, wish)
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		t.Fatalf("issue: %v", err)
	}
	return p, recipe
}

// certificate reads what a caller was given.
func certificate(t testing.TB, data map[string]statement.Secret) *driver.Certificate {
	t.Helper()
	key, _, _, rest, err := driver.ParseAuthorizedKey([]byte(data["signed_key"].Reveal()))
	if err != nil || len(rest) > 0 {
		t.Fatalf("read the certificate: %v", err)
	}
	c, ok := key.(*driver.Certificate)
	if !ok {
		t.Fatalf("it is a %T", key)
	}
	return c
}

// host is what a credential opens: it trusts what engines publish, and knows what their leases say.
type host struct {
	mu      sync.Mutex
	keys    [][]byte // wire form of trusted CAs
	issued  map[string]engine.Recipe
	revoked map[string]engine.Recipe
}

func newHost() *host {
	return &host{issued: map[string]engine.Recipe{}, revoked: map[string]engine.Recipe{}}
}

// watched is an engine of which the host hears, as it does through leases and what is published of them.
type watched struct {
	*ssh.Engine
	host *host
}

func (w watched) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	r, err := w.Engine.Issue(ctx, p)
	if err == nil {
		w.host.mu.Lock()
		defer w.host.mu.Unlock()
		w.host.issued[p.Username] = r
		w.host.trust(w.Engine)
	}
	return r, err
}

func (w watched) Revoke(ctx context.Context, r engine.Recipe) (engine.Outcome, error) {
	o, err := w.Engine.Revoke(ctx, r)
	if err == nil {
		w.host.mu.Lock()
		defer w.host.mu.Unlock()
		w.host.revoked[nameOf(r)] = r
	}
	return o, err
}

// trust takes over what the engine publishes.
func (h *host) trust(e *ssh.Engine) {
	for rest := e.PublicKeys(); len(rest) > 0; {
		key, _, _, more, err := driver.ParseAuthorizedKey(rest)
		if err != nil {
			return
		}
		h.keys, rest = append(h.keys, key.Marshal()), more
	}
}

// nameOf is the name of the lease that a recipe is of.
func nameOf(r engine.Recipe) string {
	var doc struct {
		Serial  string `json:"serial"`
		LeaseID string `json:"lease_id"`
	}
	if json.Unmarshal(r, &doc) != nil {
		return ""
	}
	if doc.Serial != "" {
		return doc.Serial
	}
	return doc.LeaseID
}
