package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/scaivault/scaivault/api"
)

// WhoAmI describes the caller.
func (c *Client) WhoAmI(ctx context.Context) (api.WhoAmI, error) {
	return get[api.WhoAmI](ctx, c, nil, "auth", "whoami")
}

// CreateToken makes a personal access token; its text is in this answer only.
func (c *Client) CreateToken(ctx context.Context, t api.TokenRequest) (api.Token, error) {
	var token api.Token
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"auth", "tokens"}, body: t}, &token)
	return token, err
}

// Tokens lists the caller's tokens, without their texts.
func (c *Client) Tokens(ctx context.Context) iter.Seq2[api.Token, error] {
	return list(ctx, c, nil, []string{"auth", "tokens"},
		func(l *api.TokenList) ([]api.Token, api.Page) { return l.Tokens, l.Page })
}

// DeleteToken ends a token, and with revokeLeases all that it obtained.
func (c *Client) DeleteToken(ctx context.Context, id string, revokeLeases bool) error {
	return c.removeIdentity(ctx, revokeLeases, "auth", "tokens", id)
}

// CreateServiceAccount makes an identity for programs; its secret is in this
// answer only.
func (c *Client) CreateServiceAccount(ctx context.Context, a api.ServiceAccountRequest) (api.ServiceAccount, error) {
	var account api.ServiceAccount
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"auth", "service-accounts"}, body: a}, &account)
	return account, err
}

// ServiceAccounts lists the service accounts, without their secrets.
func (c *Client) ServiceAccounts(ctx context.Context) iter.Seq2[api.ServiceAccount, error] {
	return list(ctx, c, nil, []string{"auth", "service-accounts"},
		func(l *api.ServiceAccountList) ([]api.ServiceAccount, api.Page) { return l.ServiceAccounts, l.Page })
}

// ServiceAccount reads one, without its secret.
func (c *Client) ServiceAccount(ctx context.Context, id string) (api.ServiceAccount, error) {
	return get[api.ServiceAccount](ctx, c, nil, "auth", "service-accounts", id)
}

// DeleteServiceAccount ends a service account and its tokens, and with
// revokeLeases all that they obtained.
func (c *Client) DeleteServiceAccount(ctx context.Context, id string, revokeLeases bool) error {
	return c.removeIdentity(ctx, revokeLeases, "auth", "service-accounts", id)
}

// Introspect describes any token, of which the caller needs to know the text.
func (c *Client) Introspect(ctx context.Context, token string) (api.Introspection, error) {
	var i api.Introspection
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"auth", "introspect"}, idempotent: true, body: api.IntrospectRequest{Token: token}}, &i)
	return i, err
}

func (c *Client) removeIdentity(ctx context.Context, revokeLeases bool, path ...string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path, idempotent: true, query: query("revoke_leases", flag(revokeLeases))}, nil)
	return err
}
