package client

import (
	"context"
	"net/http"

	"github.com/scaivault/scaivault/api"
)

// Health answers as long as the server's process runs.
func (c *Client) Health(ctx context.Context) (api.Health, error) {
	return get[api.Health](ctx, c, nil, "health")
}

// Ready tells whether requests can be served; not being ready is an answer, not
// an error.
func (c *Client) Ready(ctx context.Context) (api.Readiness, error) {
	var r api.Readiness
	_, err := c.do(ctx, request{
		method: http.MethodGet, path: []string{"health", "ready"}, accept: http.StatusServiceUnavailable,
	}, &r)
	return r, err
}

// DetailedHealth is the readiness and the state of every engine.
func (c *Client) DetailedHealth(ctx context.Context) (api.DetailedHealth, error) {
	return get[api.DetailedHealth](ctx, c, nil, "health", "detailed")
}

// Resume ends the quarantine of a store that was restored or is an older copy.
func (c *Client) Resume(ctx context.Context, r api.ResumeRequest) (api.Quarantine, error) {
	var q api.Quarantine
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"sys", "resume"}, body: r, idempotent: true}, &q)
	return q, err
}

// Clock tells the time by which leases live, beside the store's clock.
func (c *Client) Clock(ctx context.Context) (api.Clock, error) {
	return get[api.Clock](ctx, c, nil, "sys", "clock")
}

// ConfirmClock states that the store's clock, which jumped, is right: what ended by it is revoked.
func (c *Client) ConfirmClock(ctx context.Context) (api.Clock, error) {
	var shown api.Clock
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"sys", "clock", "confirm"}, idempotent: true}, &shown)
	return shown, err
}

// Version names the server's build.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, nil, "version")
}

// OpenAPI is the server's own description of its interface, as YAML.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	var document []byte
	_, err := c.do(ctx, request{method: http.MethodGet, path: []string{"openapi.yaml"}, idempotent: true}, &document)
	return document, err
}
