package azure

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	askingToken = "ask for an access token"
	// tokenMargin is how long before its end a token is used no more.
	tokenMargin = 5 * time.Minute
)

// The errors of the token endpoint that decide something here (AADSTS…).
const (
	errSecretInvalid  = 7000215 // also one that is not known everywhere yet
	errSecretExpired  = 7000222
	errNoApplication  = 700016 // not in this tenant, or not known everywhere yet
	errNoPrincipal    = 7000229
	errNoTenant       = 90002
	errTenantInvalid  = 900023
	errAccountStopped = 7000112
)

// login is what an application proves itself with.
type login struct {
	clientID string
	secret   statement.Secret
}

// root is the login of the engine, with the tokens that it was given.
type root struct {
	login
	key    string // id of its password; empty where the root secret does not tell
	former string // id of the password that a rotation was to replace by it
	tokens *tokens
}

type tokens struct {
	mu  sync.Mutex
	all map[string]issuedToken // by scope
}

type issuedToken struct {
	text statement.Secret
	ends time.Time
}

// newRoot reads the root secret.
func newRoot(fields map[string]statement.Secret) (root, error) {
	r := root{
		login: login{clientID: strings.ToLower(fields["client_id"].Reveal()), secret: fields["client_secret"]},
		key:   fields["key_id"].Reveal(), former: fields["former_key_id"].Reveal(),
		tokens: &tokens{all: map[string]issuedToken{}},
	}
	switch {
	case r.clientID == "" || r.secret == "":
		return r, misconfigured("the root secret lacks its field client_id or client_secret", nil)
	case !guid(r.clientID):
		return r, misconfigured("the root secret's client_id is no application id", nil)
	case r.key != "" && !guid(r.key) || r.former != "" && !guid(r.former):
		return r, misconfigured("the root secret's key_id is no id of a password", nil)
	}
	return r, nil
}

// prove logs in anew.
func (c *client) prove(ctx context.Context, r root) error {
	issued, err := c.logIn(ctx, r.login, c.cloud.graphScope)
	if err != nil {
		return rootRefused(err)
	}
	r.tokens.keep(c.cloud.graphScope, issued)
	return nil
}

// token is one for a service. Several callers may ask for one at the same time; no one waits for
// another.
func (c *client) token(ctx context.Context, r root, scope string) (statement.Secret, error) {
	if text, ok := r.tokens.find(scope); ok {
		return text, nil
	}
	issued, err := c.logIn(ctx, r.login, scope)
	if err != nil {
		return "", rootRefused(err)
	}
	r.tokens.keep(scope, issued)
	return issued.text, nil
}

func (t *tokens) find(scope string) (statement.Secret, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found, ok := t.all[scope]
	return found.text, ok && time.Now().Before(found.ends)
}

func (t *tokens) keep(scope string, issued issuedToken) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[scope] = issued
}

func (t *tokens) drop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.all)
}

// refusedLogin is the answer of the token endpoint to a login that it does not take.
type refusedLogin struct {
	codes []int
	text  string
}

func (r *refusedLogin) Error() string { return "the login is refused: " + r.text }

func (r *refusedLogin) is(codes ...int) bool {
	return slices.ContainsFunc(codes, func(code int) bool { return slices.Contains(r.codes, code) })
}

// logIn asks for a token. The error is a *refusedLogin where the login is not taken.
func (c *client) logIn(ctx context.Context, l login, scope string) (issuedToken, error) {
	q := request{attempt: askingToken, method: http.MethodGet} // it changes nothing
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {l.clientID},
		"client_secret": {l.secret.Reveal()}, "scope": {scope},
	}.Encode()
	var said struct {
		AccessToken statement.Secret `json:"access_token"`
		ExpiresIn   int64            `json:"expires_in"`
		TokenType   string           `json:"token_type"`
	}
	begun := time.Now()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.login, strings.NewReader(form))
		if err != nil {
			return issuedToken{}, misconfigured(askingToken, err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", "application/json")
		err = c.exchange(req, q, &said)
		var a *answer
		switch {
		case err == nil && (said.AccessToken == "" || !strings.EqualFold(said.TokenType, "Bearer")):
			return issuedToken{}, unreachable(askingToken+": the answer holds none", nil)
		case err == nil:
			life := time.Duration(said.ExpiresIn) * time.Second
			return issuedToken{said.AccessToken, begun.Add(life - min(tokenMargin, life/2))}, nil
		case errors.As(err, &a) && a.throttled() && engine.Wait(ctx, a.retryAfter):
		case errors.As(err, &a) && a.status < 500 && !a.throttled():
			return issuedToken{}, newRefusedLogin(a)
		default:
			return issuedToken{}, asked(askingToken, err)
		}
	}
}

// newRefusedLogin reads RFC 6749 section 5.2 with Microsoft's codes. Its text repeats ids, and may
// repeat more: only the codes are taken.
func newRefusedLogin(a *answer) *refusedLogin {
	var said struct {
		Error string `json:"error"`
		Codes []int  `json:"error_codes"`
	}
	if json.Unmarshal(a.text, &said) != nil || !codeForm.MatchString(said.Error) {
		said.Error = "no reason is given"
	}
	r := &refusedLogin{codes: said.Codes, text: said.Error}
	for _, code := range said.Codes[:min(len(said.Codes), 3)] {
		r.text += ", AADSTS" + strconv.Itoa(code)
	}
	return r
}

// rootRefused is the error of a login as root.
func rootRefused(err error) error {
	var r *refusedLogin
	if !errors.As(err, &r) {
		return err
	}
	const what = "log in to Microsoft Entra ID: it refuses the root credentials"
	switch {
	case r.is(errSecretExpired):
		return misconfigured(what+": the password has expired; make a new one and write it to the root secret", r)
	case r.is(errSecretInvalid):
		return misconfigured(what+": the password is wrong (the secret's value is wanted, not its id)", r)
	case r.is(errNoApplication, errNoPrincipal):
		return misconfigured(what+": there is no such application in the tenant", r)
	case r.is(errNoTenant, errTenantInvalid):
		return misconfigured(what+": there is no such tenant in this environment", r)
	}
	return misconfigured(what+" ("+r.text+")", r)
}

// unknownYet tells whether a login is refused as one is that Azure does not know everywhere yet.
func unknownYet(err error) bool {
	var r *refusedLogin
	return errors.As(err, &r) && r.is(errSecretInvalid, errNoApplication, errNoPrincipal, errAccountStopped)
}

// permissions are the application permissions that the root's token for Microsoft Graph tells of. Its
// form is not promised to us: where it cannot be read, known is false.
func (c *client) permissions(ctx context.Context) (names []string, known bool, err error) {
	r, err := c.present()
	if err != nil {
		return nil, false, err
	}
	token, err := c.token(ctx, r, c.cloud.graphScope)
	if err != nil {
		return nil, false, err
	}
	parts := strings.Split(token.Reveal(), ".")
	var claims struct {
		Roles []string `json:"roles"`
	}
	if len(parts) != 3 {
		return nil, false, nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return nil, false, nil //nolint:nilerr // unreadable is no failure
	}
	return claims.Roles, true, nil
}
