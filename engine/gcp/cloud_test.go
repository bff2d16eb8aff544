//go:build cloud

package gcp_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/oauth2/jwt"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/statement"
)

// TestCloud makes, uses and ends a credential of every kind in a real project, which the
// environment names. It leaves nothing, unless it fails.
func TestCloud(t *testing.T) {
	of := func(name string) string { return os.Getenv("SCAIVAULT_TEST_GCP_" + name) }
	root, err := os.ReadFile(of("ROOT"))
	if err != nil {
		t.Fatalf("read the key of the root: %v", err)
	}
	config, err := json.Marshal(map[string]string{"project": of("PROJECT"), "root_credentials_path": "infra/root", "operation_timeout": "3m"})
	if err != nil {
		t.Fatal(err)
	}
	var dialer net.Dialer
	e := open(t, engine.Options{Installation: "installation-1", EngineID: "eng_1", Node: "node-1", Epoch: 1, Config: config,
		Root: map[string]statement.Secret{"credentials": statement.Secret(root)}, Namer: enginetest.NewNamer(), Dial: dialer.DialContext})
	if h := e.Check(t.Context()); h.Status != "healthy" {
		t.Errorf("health: %+v", h)
	}
	bindings := fmt.Sprintf(`"bindings": [{"resource": "projects/%s", "roles": [%q]}]`, of("PROJECT"), cmp.Or(of("ROLE"), "roles/browser"))
	account := fmt.Sprintf(`"service_account_email": %q`, of("ACCOUNT"))
	for _, role := range []string{
		`{"credential_type": "service_account_key", ` + account + `}`, `{"credential_type": "access_token", ` + account + `}`,
		`{"credential_type": "service_account_key", ` + bindings + `}`, `{"credential_type": "access_token", ` + bindings + `}`,
	} {
		t.Run(role, func(t *testing.T) {
			if _, err := e.PrepareRole(t.Context(), "reader", parseRole(t, role)); err != nil {
				t.Fatalf("try the role: %v", err)
			}
			p := plan(t, e, role)
			p.Deadline = time.Now().Add(3 * time.Minute)
			r, err := e.Issue(t.Context(), p)
			if err != nil {
				t.Errorf("issue: %v", err)
				r = p.Recipe
			}
			t.Cleanup(func() {
				outcome, err := e.Revoke(context.Background(), r)
				t.Logf("revoked: %+v, %v", outcome, err)
				eventually(t, "it is gone", func() bool {
					found, err := e.Lookup(context.Background(), p.Recipe)
					return err == nil && found.State == engine.Absent
				})
			})
			if key := p.Data["private_key_data"]; key != "" {
				eventually(t, "the key is taken", func() bool { return getsToken(t, key) == nil })
			}
			if found, err := e.Lookup(t.Context(), r); err != nil || found.State != engine.Usable {
				t.Errorf("looked up as %d, %v", found.State, err)
			}
		})
	}
}

// getsToken shows Google a key.
func getsToken(t *testing.T, encoded statement.Secret) error {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(encoded.Reveal())
	if err != nil {
		return err
	}
	var file map[string]string
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	c := jwt.Config{Email: file["client_email"], PrivateKey: []byte(file["private_key"]), PrivateKeyID: file["private_key_id"],
		Scopes: []string{"https://www.googleapis.com/auth/cloud-platform"}, TokenURL: file["token_uri"]}
	_, err = c.TokenSource(t.Context()).Token()
	t.Logf("a token for the key: %v", err)
	return err
}

// eventually waits as long as Google's changes take to be known everywhere.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Minute); !holds(); time.Sleep(5 * time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
