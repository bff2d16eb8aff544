package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/scaivault/scaivault/api"
)

// tokenSource gives the bearer token of a request.
type tokenSource interface {
	token(ctx context.Context) (string, error)
	renewable() bool // whether forget makes the next token another one
	forget()
}

type fixedToken string

func (t fixedToken) token(context.Context) (string, error) { return string(t), nil }
func (fixedToken) renewable() bool                         { return false }
func (fixedToken) forget()                                 {}

// exchange trades a service account's id and secret for tokens of an hour, and
// takes the next one when two thirds of it are over.
type exchange struct {
	client     *Client
	id, secret string

	turn    chan struct{} // of one place: one exchange at a time, and a waiting caller can leave
	current string
	until   time.Time
}

func newExchange(c *Client, id, secret string) *exchange {
	return &exchange{client: c, id: id, secret: secret, turn: make(chan struct{}, 1)}
}

func (e *exchange) renewable() bool { return true }

func (e *exchange) forget() {
	e.turn <- struct{}{}
	e.current = ""
	<-e.turn
}

func (e *exchange) token(ctx context.Context) (string, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if e.current != "" && time.Now().Before(e.until) {
		return e.current, nil
	}
	asked := time.Now()
	answer, err := e.client.ClientCredentials(ctx, e.id, e.secret)
	if err != nil {
		return "", err
	}
	e.current = answer.AccessToken
	e.until = asked.Add(time.Duration(answer.ExpiresIn) * time.Second * 2 / 3)
	return e.current, nil
}

// ClientCredentials trades a service account's id and secret for a token (RFC
// 6749 section 4.4). A client configured with them does this by itself.
func (c *Client) ClientCredentials(ctx context.Context, id, secret string) (api.AccessToken, error) {
	var token api.AccessToken
	_, err := c.do(ctx, request{
		method: http.MethodPost, path: []string{"auth", "token"}, anonymous: true, idempotent: true,
		body: url.Values{"grant_type": {"client_credentials"}, "client_id": {id}, "client_secret": {secret}},
	}, &token)
	return token, err
}
