package azuretest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Login is what a holder of a credential does: it gets a token, for Azure Resource Manager.
func (s *Server) Login(ctx context.Context, clientID, clientSecret string) (*Session, error) {
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM([]byte(s.CA))
	session := &Session{server: s, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12},
	}}}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_secret": {clientSecret}, "scope": {armAudience + "/.default"},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"/"+s.Tenant+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := session.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var said struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(response.Body).Decode(&said); err != nil || response.StatusCode != http.StatusOK {
		session.Close()
		return nil, fmt.Errorf("the login is refused: %s", response.Status)
	}
	session.token = said.Token
	return session, nil
}

// Session is a token that somebody holds.
type Session struct {
	server *Server
	http   *http.Client
	token  string
}

// Works tells whether the token's holder can read a resource group.
func (s *Session) Works(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.server.URL()+s.server.Scope()+"/resourceGroups/app", http.NoBody)
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	response, err := s.http.Do(req)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Close forgets the token.
func (s *Session) Close() { s.http.CloseIdleConnections() }
