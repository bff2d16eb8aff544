package engine

import (
	"crypto/tls"
	"net/http"
	"time"
)

// Limits of an engine's HTTP client.
const (
	httpIdle       = 30 * time.Second // shorter than what clouds keep open, so that no answer is lost to a close
	httpMaxHeaders = 64 << 10
)

// HTTPClient is a client for sources that speak HTTP. All it connects to is reached through o.Dial,
// which checks the address after DNS. It knows no proxy and no environment, keeps no cookies, and
// follows no redirect, since the next host would be given what was meant for this one: the answer
// that redirects is what the caller gets. TLS is 1.2 at least and verified, by the system's
// certificates where trust is nil. The body of an answer is the caller's to bound.
func HTTPClient(o Options, trust *tls.Config, connections int) *http.Client {
	if trust == nil {
		trust = &tls.Config{}
	}
	trust = trust.Clone()
	trust.MinVersion = max(trust.MinVersion, tls.VersionTLS12)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            o.Dial,
			TLSClientConfig:        trust,
			ForceAttemptHTTP2:      true,
			MaxConnsPerHost:        connections,
			MaxIdleConnsPerHost:    connections,
			IdleConnTimeout:        httpIdle,
			MaxResponseHeaderBytes: httpMaxHeaders,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
