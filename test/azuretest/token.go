package azuretest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// The audiences of tokens in the public cloud.
const (
	graphAudience = "https://graph.microsoft.com"
	armAudience   = "https://management.azure.com"
)

// issueToken is the token endpoint, for the client credentials grant with a secret.
func (s *Server) issueToken(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		refuseLogin(w, http.StatusBadRequest, "invalid_request", 900144)
		return
	}
	audience, ok := strings.CutSuffix(r.PostForm.Get("scope"), "/.default")
	if r.PostForm.Get("grant_type") != "client_credentials" || !ok || audience != graphAudience && audience != armAudience {
		refuseLogin(w, http.StatusBadRequest, "invalid_scope", 70011)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.directory.applicationOf(r.PostForm.Get("client_id"))
	if a == nil || !s.shown(a.made, time.Time{}) {
		refuseLogin(w, http.StatusBadRequest, "unauthorized_client", 700016)
		return
	}
	p := s.directory.principalOf(a.appID)
	if p == nil || !s.shown(p.made, time.Time{}) {
		refuseLogin(w, http.StatusUnauthorized, "invalid_client", 7000229)
		return
	}
	given := sha256.Sum256([]byte(r.PostForm.Get("client_secret")))
	for _, one := range a.passwords {
		switch {
		case one.text != given || !s.shown(one.made, time.Time{}):
		case !s.now().Before(one.ends):
			refuseLogin(w, http.StatusUnauthorized, "invalid_client", 7000222)
			return
		default:
			s.give(w, p, audience)
			return
		}
	}
	refuseLogin(w, http.StatusUnauthorized, "invalid_client", 7000215)
}

func (s *Server) give(w http.ResponseWriter, p *principal, audience string) {
	claims, err := json.Marshal(map[string]any{"aud": audience, "oid": p.id, "appid": p.appID, "tid": s.Tenant, "roles": p.permissions})
	if err != nil {
		panic(err) // texts always encode
	}
	part := base64.RawURLEncoding.EncodeToString
	text := part([]byte(`{"typ":"JWT"}`)) + "." + part(claims) + "." + rand.Text()
	s.directory.tokens[text] = &token{principal: p.id, audience: audience, permissions: p.permissions, ends: s.now().Add(s.lifetime)}
	answer(w, http.StatusOK, map[string]any{"token_type": "Bearer", "expires_in": int(s.lifetime / time.Second), "access_token": text})
}

func refuseLogin(w http.ResponseWriter, status int, reason string, code int) {
	answer(w, status, map[string]any{"error": reason, "error_codes": []int{code}, "error_description": "AADSTS: refused by the server of the tests."})
}
