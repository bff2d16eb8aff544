package engine_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/scaivault/scaivault/engine"
)

// What a source answers leads nowhere else, and nothing is reached but through the dialer.
func TestHTTPClient(t *testing.T) {
	t.Parallel()
	var other atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { other.Add(1) }))
	t.Cleanup(elsewhere.Close)
	source := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	}))
	t.Cleanup(source.Close)

	var dialed []string
	o := engine.Options{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed = append(dialed, address)
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
	get := func(trust *tls.Config) (*http.Response, error) {
		client := engine.HTTPClient(o, trust, 2)
		t.Cleanup(client.CloseIdleConnections)
		response, err := client.Get(source.URL)
		if err == nil {
			response.Body.Close()
		}
		return response, err
	}
	if _, err := get(nil); err == nil {
		t.Error("a server whose certificate nobody signed is believed")
	}
	trust := x509.NewCertPool()
	trust.AddCert(source.Certificate())
	response, err := get(&tls.Config{RootCAs: trust})
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusFound || other.Load() != 0 {
		t.Errorf("the redirect was followed: %s, %d requests elsewhere", response.Status, other.Load())
	}
	if len(dialed) != 2 || dialed[0] != source.Listener.Addr().String() {
		t.Errorf("the dialer was asked for %v", dialed)
	}
}
