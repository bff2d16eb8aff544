// Package client talks to a ScaiVault server.
//
// Every call answers the types of package api, or an error that matches its
// code on the wire:
//
//	if errors.Is(err, client.LeaseExpired) { … }
//
// A [Lease] holds one credential and revokes it when closed; [Lease.KeepAlive]
// renews it for as long as it is needed.
package client

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxAnswer bounds what is read of an answer: far above the largest page.
	maxAnswer = 16 << 20
	// maxDocument bounds a public document: a list of some 8 million revoked certificates.
	maxDocument = 64 << 20

	// requestTimeout ends a request whose context has no deadline of its own. It
	// is longer than the server's own default limit.
	requestTimeout = time.Minute
)

// Config says where the server is and who is asking. Only URL is needed; without
// a token only the calls work that need none.
type Config struct {
	// URL of the server, for instance https://vault.example.com; a path in front of
	// /v1 is kept.
	URL string

	// Token is sent as it is. Instead of it, ClientID and ClientSecret of a service
	// account are exchanged for tokens, which the client renews by itself.
	Token        string
	ClientID     string
	ClientSecret string

	// Tenant that the requests run in; the token's own when empty.
	Tenant string

	// Retries is how often a request that can be repeated safely is sent again
	// after 429 or 503; 2 when 0, none when negative.
	Retries int

	// HTTPClient replaces the default one, for instance for a private CA or a proxy.
	// The default one ignores the proxy variables of the environment: a token is not
	// handed to whom they name. Redirects are never followed, whatever it says.
	HTTPClient *http.Client

	// UserAgent is written into the server's audit trail.
	UserAgent string
}

// Client is safe for concurrent use.
type Client struct {
	base      string
	tenant    string
	userAgent string
	retries   int
	http      *http.Client
	token     tokenSource
}

// New makes a client; it does not connect.
func New(c Config) (*Client, error) {
	base, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	client := &Client{
		base:      base,
		tenant:    c.Tenant,
		userAgent: c.UserAgent,
		retries:   c.Retries,
		http:      withoutRedirects(c.HTTPClient),
	}
	if client.retries == 0 {
		client.retries = 2
	}
	if client.userAgent == "" {
		client.userAgent = "scaivault-go"
	}
	switch {
	case c.Token != "" && c.ClientID != "":
		return nil, errors.New("configure the client: give a token or a client id, not both")
	case c.ClientID != "":
		client.token = newExchange(client, c.ClientID, c.ClientSecret)
	default:
		client.token = fixedToken(c.Token)
	}
	return client, nil
}

// URL is the server's address without a trailing slash.
func (c *Client) URL() string { return c.base }

func parseURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return "", errors.New("configure the client: the URL of the server must look like https://vault.example.com")
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return "", fmt.Errorf("configure the client: the URL of the server at %s holds more than scheme, host and path", u.Host)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// withoutRedirects copies the client: a redirect would carry the token, or lose
// the method, and no ScaiVault server answers one.
func withoutRedirects(given *http.Client) *http.Client {
	var c http.Client
	if given != nil {
		c = *given
	} else {
		c.Transport = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     90 * time.Second,
			MaxIdleConnsPerHost: 16,
			ForceAttemptHTTP2:   true,
		}
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}
