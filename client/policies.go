package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/scaivault/scaivault/api"
)

// Policies lists policies; those that are switched off only when asked for.
func (c *Client) Policies(ctx context.Context, includeInactive bool) iter.Seq2[api.PolicyListItem, error] {
	return list(ctx, c, query("include_inactive", flag(includeInactive)), []string{"policies"},
		func(l *api.PolicyList) ([]api.PolicyListItem, api.Page) { return l.Policies, l.Page })
}

// Policy reads one policy by its id.
func (c *Client) Policy(ctx context.Context, id string) (api.Policy, error) {
	return get[api.Policy](ctx, c, nil, "policies", id)
}

// CreatePolicy makes a policy, bound to nobody.
func (c *Client) CreatePolicy(ctx context.Context, p api.PolicyRequest) (api.Policy, error) {
	return c.policy(ctx, request{method: http.MethodPost, path: []string{"policies"}, body: p})
}

// ReplacePolicy replaces all but the bindings.
func (c *Client) ReplacePolicy(ctx context.Context, id string, p api.PolicyRequest) (api.Policy, error) {
	return c.policy(ctx, request{method: http.MethodPut, path: []string{"policies", id}, idempotent: true, body: p})
}

// UpdatePolicy changes what is given.
func (c *Client) UpdatePolicy(ctx context.Context, id string, p api.PolicyPatch) (api.Policy, error) {
	return c.policy(ctx, request{method: http.MethodPatch, path: []string{"policies", id}, idempotent: true, body: p})
}

// DeletePolicy removes a policy; with force also one that is bound.
func (c *Client) DeletePolicy(ctx context.Context, id string, force bool) error {
	_, err := c.remove(ctx, force, "policies", id)
	return err
}

// Bindings lists to whom a policy is bound.
func (c *Client) Bindings(ctx context.Context, policy string) iter.Seq2[api.Binding, error] {
	return list(ctx, c, nil, []string{"policies", policy, "bindings"},
		func(l *api.BindingList) ([]api.Binding, api.Page) { return l.Bindings, l.Page })
}

// BindPolicy gives the policy's rules to an identity or group.
func (c *Client) BindPolicy(ctx context.Context, policy string, b api.BindingRequest) (api.Binding, error) {
	var binding api.Binding
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"policies", policy, "bindings"}, body: b}, &binding)
	return binding, err
}

// UnbindPolicy takes them away.
func (c *Client) UnbindPolicy(ctx context.Context, policy, binding string) error {
	_, err := c.remove(ctx, false, "policies", policy, "bindings", binding)
	return err
}

// TestPolicies asks what the policies would decide about an identity.
func (c *Client) TestPolicies(ctx context.Context, t api.PolicyTestRequest) (api.PolicyTestResult, error) {
	var result api.PolicyTestResult
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"policies", "test"}, idempotent: true, body: t}, &result)
	return result, err
}

func (c *Client) policy(ctx context.Context, r request) (api.Policy, error) {
	var p api.Policy
	_, err := c.do(ctx, r, &p)
	return p, err
}
