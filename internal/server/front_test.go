package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/server"
)

// FuzzCheckPath compares the check with what it is for: one path, said in one way, that no reader
// takes for another.
func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{"/", "/v1/secrets/a", "//", "/a//b", "/a/../b", "/a/%2e%2e/b", "/a%2fb", "/a%00", "/a%0d%0a",
		"/a%c0%af", "/a:b", "/a%3Ab", "/a%3ab", "/ä", "/%C3%A4", "/a b", "/a%20b", `/a\b`, "/a;b", "/a?b", "/%", "*", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		err := server.CheckPath(raw)
		if err != nil {
			if fault.CodeOf(err) != fault.InvalidPath {
				t.Fatalf("%q: %v, want invalid_path", raw, err)
			}
			return
		}
		path, bad := url.PathUnescape(raw)
		switch {
		case bad != nil, !utf8.ValidString(path), !strings.HasPrefix(path, "/"), len(raw) > 1024:
			t.Fatalf("%q was accepted", raw)
		case strings.ContainsAny(path, "\\\x00\r\n\x1b\x7f "):
			t.Fatalf("%q was accepted: %q", raw, path)
		case strings.Contains(path, "//"), strings.Contains(path+"/", "/./"), strings.Contains(path+"/", "/../"):
			t.Fatalf("%q was accepted: %q", raw, path)
		case strings.Count(path, "/") != strings.Count(raw, "/"):
			t.Fatalf("%q hides a slash: %q", raw, path)
		case len(path) > 1 && strings.HasSuffix(path, "/"):
			t.Fatalf("%q ends with a slash", raw)
		}
		// The same path, escaped otherwise, is refused: there is one way to say it.
		again := (&url.URL{Path: path}).EscapedPath()
		if again != raw && again != strings.ReplaceAll(raw, "%3A", ":") {
			t.Fatalf("%q is not how %q is written: %q", raw, path, again)
		}
	})
}

// certificate writes a self-signed certificate for 127.0.0.1 under a serial number.
func certificate(t *testing.T, dir string, serial int64) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(cert)
	return certFile, keyFile, pool
}

func handshake(t *testing.T, config *tls.Config, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	s, c := tls.Server(here, config), tls.Client(there, client)
	served := make(chan error, 1)
	go func() { served <- s.HandshakeContext(t.Context()) }()
	err := c.HandshakeContext(t.Context())
	if err != nil {
		here.Close()
	}
	return c.ConnectionState(), errors.Join(err, <-served)
}

func TestTLS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		certFile, keyFile, pool := certificate(t, dir, 1)
		config, err := server.TLS(certFile, keyFile, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		client := func(pool *x509.CertPool) *tls.Config {
			return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"h2", "http/1.1"}, Time: time.Now}
		}
		state, err := handshake(t, config, client(pool))
		if err != nil || state.Version != tls.VersionTLS13 || state.NegotiatedProtocol != "h2" {
			t.Fatalf("version %x, protocol %q: %v", state.Version, state.NegotiatedProtocol, err)
		}
		old := client(pool)
		old.MaxVersion = tls.VersionTLS12
		if _, err := handshake(t, config, old); err == nil {
			t.Error("TLS 1.2 was accepted")
		}

		// A renewed certificate is used without a restart; a broken one leaves the last good one.
		_, _, renewed := certificate(t, dir, 2)
		time.Sleep(2 * time.Second)
		state, err = handshake(t, config, client(renewed))
		if err != nil || state.PeerCertificates[0].SerialNumber.Int64() != 2 {
			t.Fatalf("after renewal: %v", err)
		}
		if err := os.WriteFile(certFile, []byte("broken"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err = handshake(t, config, client(renewed)); err != nil {
			t.Errorf("the last good certificate is no longer used: %v", err)
		}
		if _, err := server.TLS(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
			t.Error("a broken certificate was accepted at the start")
		}
	})
}
