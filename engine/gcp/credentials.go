package gcp

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google/externalaccount"
	"golang.org/x/oauth2/jwt"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/strictjson"
)

const (
	googleToken = "https://oauth2.googleapis.com/token"
	googleSTS   = "https://sts.googleapis.com/v1/token"
	universe    = "googleapis.com"

	// maxRoot bounds each field of the root secret.
	maxRoot = 16 << 10
	// spare is how long a token must still live to be used: a request may wait for a connection.
	spare = time.Minute
)

// root is what the engine shows Google: a key of a service account, or a token of another issuer.
type root struct {
	email string                                           // of its account; empty for a federation that has none
	key   *keyFile                                         // nil for a federation
	pair  *rsa.PrivateKey                                  // of the key
	fetch func(ctx context.Context) (*oauth2.Token, error) // by the client in the context
}

// keyFile is a service account's key as Google hands it out.
type keyFile struct {
	Type         string `json:"type"`
	ProjectID    string `json:"project_id"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	ClientEmail  string `json:"client_email"`
	ClientID     string `json:"client_id"`
	AuthURI      string `json:"auth_uri"`
	TokenURI     string `json:"token_uri"`
	ProviderURL  string `json:"auth_provider_x509_cert_url"`
	ClientURL    string `json:"client_x509_cert_url"`
	Universe     string `json:"universe_domain"`
}

// federation is the file of a workload identity federation, as far as it is taken. The source of the
// token is not: one names files, URLs, programs and environments of this machine, which whoever writes
// the secret must not choose.
type federation struct {
	Type             string          `json:"type"`
	Audience         string          `json:"audience"`
	SubjectTokenType string          `json:"subject_token_type"`
	TokenURL         string          `json:"token_url"`
	TokenInfoURL     string          `json:"token_info_url"` // not used
	ImpersonationURL string          `json:"service_account_impersonation_url"`
	Universe         string          `json:"universe_domain"`
	CredentialSource json.RawMessage `json:"credential_source"` // refused
}

var (
	audienceForm      = regexp.MustCompile(`^//iam\.googleapis\.com/projects/[0-9]{1,20}/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}/providers/[a-z0-9-]{4,32}$`)
	impersonationForm = regexp.MustCompile(`^https://iamcredentials\.googleapis\.com(/v1/projects/-/serviceAccounts/([^/:]+):generateAccessToken)$`)
)

// readRoot takes the root out of its secret. The addresses in it count for nothing but to be refused
// where they are not Google's: where the root is sent is the configuration's to say.
func readRoot(c *config, fields map[string]statement.Secret) (*root, error) {
	text := []byte(fields["credentials"].Reveal())
	var head struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(text, &head) != nil || len(text) > maxRoot {
		return nil, badRoot("its field credentials does not hold the JSON of a service account's key, or of a workload identity federation")
	}
	switch head.Type {
	case "service_account":
		return readKeyRoot(c, text)
	case "external_account":
		return readFederation(c, text, fields["subject_token"])
	}
	return nil, badRoot("credentials of this type are not taken: only a key of a service account, and a workload identity federation of type external_account")
}

func badRoot(why string) *engine.Error {
	return misconfigured("read the root secret: "+why, nil)
}

func readKeyRoot(c *config, text []byte) (*root, error) {
	file := &keyFile{}
	if json.Unmarshal(text, file) != nil || accountOf(file.ClientEmail) == nil {
		return nil, badRoot("client_email is not the address of a service account")
	}
	if file.Universe != "" && file.Universe != universe {
		return nil, badRoot("its universe_domain is not googleapis.com")
	}
	if !slices.Contains([]string{"", googleToken, "https://accounts.google.com/o/oauth2/token", "https://www.googleapis.com/oauth2/v4/token"}, file.TokenURI) {
		return nil, badRoot("its token_uri is not Google's: the key would be shown to somebody else")
	}
	pair, err := readPair(file.PrivateKey)
	if err != nil {
		return nil, badRoot(err.Error())
	}
	assertion := jwt.Config{
		Email: file.ClientEmail, PrivateKey: []byte(file.PrivateKey), PrivateKeyID: file.PrivateKeyID,
		Scopes: []string{cloudPlatform}, TokenURL: c.Endpoints.OAuth + "/token", Audience: googleToken,
	}
	return &root{email: file.ClientEmail, key: file, pair: pair, fetch: func(ctx context.Context) (*oauth2.Token, error) {
		return assertion.TokenSource(ctx).Token()
	}}, nil
}

func readPair(text string) (*rsa.PrivateKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(rest) > 0 {
		return nil, errors.New("private_key is not one PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	pair, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || pair.N.BitLen() < 2048 {
		return nil, errors.New("private_key is not an RSA key of 2,048 bits or more")
	}
	return pair, nil
}

// given is a subject token that the secret holds.
type given statement.Secret

func (g given) SubjectToken(context.Context, externalaccount.SupplierOptions) (string, error) {
	return statement.Secret(g).Reveal(), nil
}

func readFederation(c *config, text []byte, token statement.Secret) (*root, error) {
	var f federation
	if err := strictjson.Decode(text, &f); err != nil {
		return nil, badRoot("a federation with other fields than audience, subject_token_type, token_url, service_account_impersonation_url and universe_domain is not taken")
	}
	impersonation := impersonationForm.FindStringSubmatch(f.ImpersonationURL)
	kinds := []string{"urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:saml2"}
	for _, rule := range []struct {
		broken bool
		why    string
	}{
		{len(f.CredentialSource) > 0 && string(f.CredentialSource) != "null", "credential_source is not taken, since it makes the server read files, call addresses, or run programs of whoever writes the secret: leave it out, and put the token into the secret's field subject_token"},
		{f.Universe != "" && f.Universe != universe, "its universe_domain is not googleapis.com"},
		{f.TokenURL != "" && f.TokenURL != googleSTS, "its token_url is not Google's: the token would be shown to somebody else"},
		{!audienceForm.MatchString(f.Audience), "its audience is not the provider of a workload identity pool"},
		{!slices.Contains(kinds, f.SubjectTokenType), "its subject_token_type is none of jwt, id_token and saml2"},
		{f.ImpersonationURL != "" && (impersonation == nil || accountOf(impersonation[2]) == nil), "its service_account_impersonation_url is not that of a service account at Google"},
		{token == "", "its field subject_token, with the token of the other issuer, is missing"},
		{len(token) > maxRoot, "its subject_token is too long"},
	} {
		if rule.broken {
			return nil, badRoot(rule.why)
		}
	}
	exchange := externalaccount.Config{
		Audience: f.Audience, SubjectTokenType: f.SubjectTokenType, TokenURL: c.Endpoints.STS + "/v1/token",
		Scopes: []string{cloudPlatform}, SubjectTokenSupplier: given(token),
	}
	made := &root{}
	if impersonation != nil {
		made.email = impersonation[2]
		exchange.ServiceAccountImpersonationURL = c.Endpoints.Credentials + impersonation[1]
	}
	made.fetch = func(ctx context.Context) (*oauth2.Token, error) {
		source, err := externalaccount.NewTokenSource(ctx, exchange)
		if err != nil {
			return nil, err
		}
		return source.Token()
	}
	return made, nil
}

// within bounds what oauth2 sends by a context, which it does not do of its own, and remembers how the
// last request ended, of which oauth2 makes mere text at times.
type within struct {
	ctx    context.Context
	next   http.RoundTripper
	status int   // 0 without an answer
	err    error // why there was none
}

func (w *within) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := w.next.RoundTrip(r.WithContext(w.ctx))
	w.status, w.err = 0, err
	if err == nil {
		w.status = answer.StatusCode
	}
	return answer, err
}
