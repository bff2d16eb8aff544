package gcptest

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// tokenAudience is whom assertions are for, wherever the server is.
const tokenAudience = "https://oauth2.googleapis.com/token"

// token is what a caller shows.
type token struct {
	member string // who has it
	id     string // of the account; empty for a principal of another issuer
	ends   time.Time
}

// AllowSubject lets a token of another issuer be exchanged, for the member that it is then.
func (s *Server) AllowSubject(audience, subject, member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subjects[audience+"\n"+subject] = member
}

// ExtendTokens is what an organisation does that allows longer tokens by impersonation.
func (s *Server) ExtendTokens(longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = longest
}

// TokenEnds is when a token ends.
func (s *Server) TokenEnds(text string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[text].ends
}

func (s *Server) newToken(t *token) string {
	text := "ya29.c." + random(48)
	s.tokens[text] = t
	return text
}

// authenticate finds out who asks. A token of a key that is gone works on; one of an account that is
// gone does not.
func (s *Server) authenticate(x *exchange) error {
	text, ok := strings.CutPrefix(x.r.Header.Get("Authorization"), "Bearer ")
	t := s.tokens[text]
	if !ok || t == nil || !s.now().Before(t.ends) {
		return fail(http.StatusUnauthorized, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
	}
	if a := s.accounts[strings.TrimPrefix(t.member, "serviceAccount:")]; t.id != "" && (a == nil || a.id != t.id || a.disabled || !a.until.IsZero() && !a.known(s.now())) {
		return fail(http.StatusUnauthorized, "UNAUTHENTICATED", "The service account was disabled or deleted.")
	}
	x.as = t.member
	return nil
}

// grantToken takes the assertion of a service account (RFC 7523).
func (s *Server) grantToken(x *exchange) (any, error) {
	form, err := url.ParseQuery(string(x.body))
	if err != nil || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" || x.r.Method != http.MethodPost {
		return nil, fail(http.StatusBadRequest, "invalid_request", "Invalid grant_type: %s", form.Get("grant_type"))
	}
	a, err := s.verify(form.Get("assertion"))
	if err != nil {
		return nil, err
	}
	text := s.newToken(&token{"serviceAccount:" + a.email, a.id, s.now().Add(time.Hour)})
	return map[string]any{"access_token": text, "expires_in": 3599, "token_type": "Bearer"}, nil
}

// invalidGrant says why an assertion is not taken, in Google's words.
func invalidGrant(words string) error {
	return fail(http.StatusBadRequest, "invalid_grant", "%s", words)
}

// verify finds the account whose key has signed an assertion.
func (s *Server) verify(assertion string) (*serviceAccount, error) {
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Scope    string `json:"scope"`
		Issued   int64  `json:"iat"`
		Expires  int64  `json:"exp"`
	}
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 || decode(parts[0], &header) != nil || decode(parts[1], &claims) != nil {
		return nil, invalidGrant("Bad Request")
	}
	signature, err := unpadded(parts[2])
	now, issued, expires := s.now(), time.Unix(claims.Issued, 0), time.Unix(claims.Expires, 0)
	switch a := s.accounts[claims.Issuer]; {
	case err != nil, header.Algorithm != "RS256", claims.Audience != tokenAudience, claims.Scope == "":
		return nil, invalidGrant("Bad Request")
	case a == nil || !a.known(now) || a.disabled:
		return nil, invalidGrant("Invalid grant: account not found")
	case issued.After(now.Add(5 * time.Minute)), !expires.After(now), expires.Sub(issued) > time.Hour+time.Minute:
		return nil, invalidGrant("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.")
	default:
		hash := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		for id, k := range a.keys {
			if header.KeyID != "" && header.KeyID != id || !k.known(now) || now.Before(k.notBefore) || !now.Before(k.notAfter) {
				continue
			}
			if rsa.VerifyPKCS1v15(k.public, crypto.SHA256, hash[:], signature) == nil {
				return a, nil
			}
		}
		return nil, invalidGrant("Invalid JWT Signature.")
	}
}

func decode(part string, into any) error {
	text, err := unpadded(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// unpadded takes padding, too, which older ones of Google's libraries send.
func unpadded(part string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
}

// exchangeToken takes the token of another issuer (RFC 8693). The form has the names of that RFC; the
// description has them in its own spelling.
func (s *Server) exchangeToken(m *method, x *exchange) (any, error) {
	form, err := url.ParseQuery(string(x.body))
	if err != nil {
		return nil, s.broken(err)
	}
	fields := map[string]any{}
	for name := range form {
		words := strings.Split(name, "_")
		for i := 1; i < len(words); i++ {
			words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
		}
		fields[strings.Join(words, "")] = form.Get(name)
	}
	if err := m.checkValue(m.Request, fields, true); err != nil {
		return nil, s.broken(err)
	}
	member := s.subjects[form.Get("audience")+"\n"+form.Get("subject_token")]
	if form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:token-exchange" || member == "" {
		return nil, fail(http.StatusBadRequest, "invalid_grant", "The subject token is not accepted.")
	}
	text := s.newToken(&token{member: member, ends: s.now().Add(time.Hour)})
	return map[string]any{"access_token": text, "expires_in": 3599, "token_type": "Bearer", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}, nil
}

// impersonate makes a token of an account for who may.
func (s *Server) impersonate(x *exchange) (any, error) {
	var q struct {
		Scope    []string `json:"scope"`
		Lifetime string   `json:"lifetime"`
	}
	if err := json.Unmarshal(x.body, &q); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(x.parameters["name"], "projects/-/") || len(q.Scope) == 0 {
		return nil, fail(http.StatusBadRequest, "INVALID_ARGUMENT", "Request contains an invalid argument.")
	}
	life := time.Hour
	if q.Lifetime != "" {
		var err error
		if life, err = time.ParseDuration(q.Lifetime); err != nil || life <= 0 || life > s.longest {
			return nil, fail(http.StatusBadRequest, "INVALID_ARGUMENT", "The access token lifetime cannot exceed %s.", s.longest)
		}
	}
	a, err := s.accountIn(x, x.parameters["name"], "iam.serviceAccounts.getAccessToken")
	if err != nil {
		return nil, err
	}
	if a.disabled {
		return nil, fail(http.StatusBadRequest, "FAILED_PRECONDITION", "The service account is disabled.")
	}
	ends := s.now().Add(life).UTC().Truncate(time.Second)
	return map[string]any{"accessToken": s.newToken(&token{"serviceAccount:" + a.email, a.id, ends}), "expireTime": ends.Format(time.RFC3339)}, nil
}
