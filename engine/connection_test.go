package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

func TestReadLogin(t *testing.T) {
	t.Parallel()
	l, err := engine.ReadLogin("root secret", map[string]statement.Secret{"username": "root", "password": "hunter2", "url": "x"})
	if err != nil || l.Username != "root" || l.Password.Reveal() != "hunter2" {
		t.Errorf("%v, %v", l, err)
	}
	for _, fields := range []map[string]statement.Secret{nil, {"username": "root"}, {"password": "hunter2"}} {
		_, err := engine.ReadLogin("root secret", fields)
		if engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), "root secret") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%d fields: %v", len(fields), err)
		}
	}
}

func TestParseHost(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"db": "db 5432", "db:1": "db 1", "db.internal:65535": "db.internal 65535", "10.0.0.1": "10.0.0.1 5432",
		"[::1]": "::1 5432", "[::1]:7000": "::1 7000",
	} {
		host, port, err := engine.ParseHost(text, "5432")
		if got := fmt.Sprint(host, " ", port); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":5432", "db:", "db:0", "db:65536", "db:x", "db:-1", "::1", "%2Fvar%2Frun", "/var/run", "a b", "{{host}}"} {
		if host, port, err := engine.ParseHost(text, "5432"); fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("%q: %s %d, %v", text, host, port, err)
		}
	}
}

func TestLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true,
		"localhost.example.com": false, "10.0.0.1": false, "::2": false, "db": false, "": false,
	} {
		if engine.Loopback(host) != want {
			t.Errorf("%s: want %t", host, want)
		}
	}
}

// No node is taken for another, and a source shows every name as it was given.
func TestConnectionPrefix(t *testing.T) {
	t.Parallel()
	const installation = "ins_01ARZ3NDEKTSV4RRFFQ69G5FAV"
	if got := engine.ConnectionPrefix(installation, "node-1"); got != "scaivault/Q69G5FAV/node-1/" {
		t.Errorf("a plain name: %s", got)
	}
	seen := map[string]string{}
	for _, node := range []string{"", "a", "b", "a/", "a/b", "knoten-ä", "knoten-ö", "a b", strings.Repeat("n", 24), strings.Repeat("n", 25), strings.Repeat("n", 26)} {
		prefix := engine.ConnectionPrefix(installation, node)
		if other, taken := seen[prefix]; taken {
			t.Errorf("%q and %q are both %s", node, other, prefix)
		}
		seen[prefix] = node
		if len(prefix) > 44 || strings.ContainsFunc(prefix, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q: %q", node, prefix)
		}
	}
}

// A certificate that cannot be read is the configuration's fault; servers are never left unverified for it.
func TestTLSRefuses(t *testing.T) {
	t.Parallel()
	o := engine.Options{Secret: func(_ context.Context, path string) (map[string]statement.Secret, error) {
		if path == "away" {
			return nil, errors.New("no such secret")
		}
		return map[string]statement.Secret{"certificate": "hunter2", "private_key": "hunter2"}, nil
	}}
	for says, settings := range map[string]engine.TLS{
		"read the secret of tls_ca_path":          {CAPath: "away"},
		"the secret of tls_ca_path holds no PEM":  {CAPath: "text"},
		"read the secret of tls_cert_path":        {CertPath: "away"},
		"the secret of tls_cert_path holds no ma": {CertPath: "text"},
	} {
		cfg, err := settings.Load(t.Context(), o)
		if cfg != nil || engine.KindOf(err) != engine.Misconfigured || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", says, err)
		}
		if !settings.Given() {
			t.Errorf("%s: it counts as not given", says)
		}
	}
	cfg, err := engine.TLS{}.Load(t.Context(), o)
	if err != nil || cfg.RootCAs != nil || cfg.InsecureSkipVerify || (engine.TLS{}).Given() {
		t.Errorf("without settings: %v", err)
	}
}

func TestKindOf(t *testing.T) {
	t.Parallel()
	if k := engine.KindOf(nil); k != 0 {
		t.Errorf("no error: %d", k)
	}
	if k := engine.KindOf(errors.New("it broke")); k != engine.Uncertain {
		t.Errorf("an error of nobody: %d", k)
	}
	if k := engine.KindOf(fmt.Errorf("later: %w", &engine.Error{Kind: engine.Busy})); k != engine.Busy {
		t.Errorf("a wrapped one: %d", k)
	}
}
