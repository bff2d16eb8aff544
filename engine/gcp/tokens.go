package gcp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"github.com/scaivault/scaivault/engine"
)

const gettingToken = "get a token for the root"

// tokens are those of the root: one at a time, fetched when it is needed.
type tokens struct {
	client   *http.Client
	fetching chan struct{} // held by who fetches

	mu      sync.Mutex
	root    *root
	current *oauth2.Token
}

func newTokens(r *root, client *http.Client) *tokens {
	return &tokens{client: client, root: r, fetching: make(chan struct{}, 1)}
}

// get is a token that lives for a while. Its error says that nothing else was sent.
func (t *tokens) get(ctx context.Context) (string, error) {
	if token := t.living(); token != "" {
		return token, nil
	}
	select {
	case t.fetching <- struct{}{}:
		defer func() { <-t.fetching }()
	case <-ctx.Done():
		return "", failure(engine.Unreachable, gettingToken+": there was no answer in time", ctx.Err())
	}
	if token := t.living(); token != "" {
		return token, nil
	}
	r := t.of()
	token, err := r.token(ctx, t.client)
	if err != nil {
		return "", err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.root == r { // else it was rotated meanwhile
		t.current = token
	}
	return token.AccessToken, nil
}

func (t *tokens) living() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current == nil || time.Until(t.current.Expiry) < spare {
		return ""
	}
	return t.current.AccessToken
}

// of is the root whose tokens these are.
func (t *tokens) of() *root {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.root
}

// use takes another root, with a token of it.
func (t *tokens) use(r *root, token *oauth2.Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root, t.current = r, token
}

// drop forgets a token that was refused.
func (t *tokens) drop(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.current != nil && t.current.AccessToken == token {
		t.current = nil
	}
}

// token shows Google the root and gets a new token for it: Misconfigured where Google does not take
// it.
func (r *root) token(ctx context.Context, client *http.Client) (*oauth2.Token, error) {
	way := &within{ctx: ctx, next: client.Transport}
	bounded := *client
	bounded.Transport = way
	token, err := r.fetch(context.WithValue(ctx, oauth2.HTTPClient, &bounded))
	switch {
	case err == nil && token.AccessToken == "":
		return nil, misconfigured(gettingToken+": the answer holds none; is the endpoint Google's?", nil)
	case err == nil:
		return token, nil
	case way.status == 0:
		client.CloseIdleConnections()
		return nil, connectError(ctx, gettingToken, cmp.Or(way.err, err))
	case way.status == http.StatusTooManyRequests:
		return nil, failure(engine.Busy, gettingToken+": Google wants fewer requests", nil)
	case way.status >= 500:
		return nil, failure(engine.Unreachable, gettingToken+": Google answers with an error of its own", nil)
	}
	var said *oauth2.RetrieveError
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if errors.As(err, &said) {
		_ = json.Unmarshal(said.Body, &body) // what is not JSON says nothing
	}
	return nil, misconfigured(strings.TrimSpace(gettingToken+": Google does not take the root. "+scrub(body.Error+" "+body.Description)), nil)
}
