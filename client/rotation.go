package client

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/scaivault/scaivault/api"
)

// RotateSecret replaces a secret's value by a generated one, or by the data given. An engine's root
// is rotated at its source. version_conflict when somebody else does it now.
func (c *Client) RotateSecret(ctx context.Context, path string, r api.SecretRotate) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodPost, path: secretPath(path), verb: ":rotate", body: r, wait: time.Minute})
}

// SecretsDue lists the secrets below a prefix that expire, or are to be rotated, before a moment.
func (c *Client) SecretsDue(ctx context.Context, prefix string, before time.Time) iter.Seq2[api.SecretListItem, error] {
	return list(ctx, c, query("prefix", prefix, "due_before", before.UTC().Format(time.RFC3339)), []string{"secrets"},
		func(l *api.SecretList) ([]api.SecretListItem, api.Page) { return l.Secrets, l.Page })
}

// RotationPolicies lists the rotation policies.
func (c *Client) RotationPolicies(ctx context.Context) iter.Seq2[api.RotationPolicy, error] {
	return list(ctx, c, nil, rotationPath(),
		func(l *api.RotationPolicyList) ([]api.RotationPolicy, api.Page) { return l.Data, l.Page })
}

// RotationPolicy reads one by its id.
func (c *Client) RotationPolicy(ctx context.Context, id string) (api.RotationPolicy, error) {
	return get[api.RotationPolicy](ctx, c, nil, rotationPath(id)...)
}

// CreateRotationPolicy makes a rotation policy.
func (c *Client) CreateRotationPolicy(ctx context.Context, p api.RotationPolicyRequest) (api.RotationPolicy, error) {
	return c.rotationPolicy(ctx, request{method: http.MethodPost, path: rotationPath(), body: p})
}

// UpdateRotationPolicy changes what is given.
func (c *Client) UpdateRotationPolicy(ctx context.Context, id string, p api.RotationPolicyPatch) (api.RotationPolicy, error) {
	return c.rotationPolicy(ctx, request{method: http.MethodPatch, path: rotationPath(id), idempotent: true, body: p})
}

// EnableRotationPolicy lets it rotate.
func (c *Client) EnableRotationPolicy(ctx context.Context, id string) (api.RotationPolicy, error) {
	return c.rotationPolicy(ctx, request{method: http.MethodPost, path: rotationPath(id, "enable"), idempotent: true})
}

// DisableRotationPolicy stops it.
func (c *Client) DisableRotationPolicy(ctx context.Context, id string) (api.RotationPolicy, error) {
	return c.rotationPolicy(ctx, request{method: http.MethodPost, path: rotationPath(id, "disable"), idempotent: true})
}

// DeleteRotationPolicy removes one that no secret is assigned to.
func (c *Client) DeleteRotationPolicy(ctx context.Context, id string) error {
	_, err := c.remove(ctx, false, rotationPath(id)...)
	return err
}

// RotationSecrets lists the secrets of a rotation policy.
func (c *Client) RotationSecrets(ctx context.Context, id string) iter.Seq2[api.SecretListItem, error] {
	return list(ctx, c, nil, rotationPath(id, "secrets"),
		func(l *api.SecretList) ([]api.SecretListItem, api.Page) { return l.Secrets, l.Page })
}

// AssignRotation puts a secret under a rotation policy.
func (c *Client) AssignRotation(ctx context.Context, id, path string) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodPost, path: rotationPath(id, "secrets"), idempotent: true,
		body: api.RotationAssignment{SecretPath: path}})
}

// UnassignRotation takes it out.
func (c *Client) UnassignRotation(ctx context.Context, id, path string) error {
	_, err := c.remove(ctx, false, rotationPath(id, "secrets", path)...)
	return err
}

// RotateByPolicy has all secrets of a policy rotated now, and tells how many; the server does it after
// its answer.
func (c *Client) RotateByPolicy(ctx context.Context, id string) (api.RotationRequested, error) {
	var r api.RotationRequested
	_, err := c.do(ctx, request{method: http.MethodPost, path: rotationPath(id, "rotate")}, &r)
	return r, err
}

// SecretPolicies lists the secret policies.
func (c *Client) SecretPolicies(ctx context.Context) iter.Seq2[api.SecretPolicy, error] {
	return list(ctx, c, nil, secretPolicyPath(),
		func(l *api.SecretPolicyList) ([]api.SecretPolicy, api.Page) { return l.SecretPolicies, l.Page })
}

// SecretPolicy reads one by its id.
func (c *Client) SecretPolicy(ctx context.Context, id string) (api.SecretPolicy, error) {
	return get[api.SecretPolicy](ctx, c, nil, secretPolicyPath(id)...)
}

// CreateSecretPolicy makes a secret policy.
func (c *Client) CreateSecretPolicy(ctx context.Context, p api.SecretPolicyRequest) (api.SecretPolicy, error) {
	return c.secretPolicy(ctx, request{method: http.MethodPost, path: secretPolicyPath(), body: p})
}

// UpdateSecretPolicy changes what is given.
func (c *Client) UpdateSecretPolicy(ctx context.Context, id string, p api.SecretPolicyPatch) (api.SecretPolicy, error) {
	return c.secretPolicy(ctx, request{method: http.MethodPatch, path: secretPolicyPath(id), idempotent: true, body: p})
}

// DeleteSecretPolicy removes one that no rotation policy uses.
func (c *Client) DeleteSecretPolicy(ctx context.Context, id string) error {
	_, err := c.remove(ctx, false, secretPolicyPath(id)...)
	return err
}

// GenerateSecret makes a value by a secret policy; it is not stored.
func (c *Client) GenerateSecret(ctx context.Context, id string) (api.GeneratedSecret, error) {
	return c.generated(ctx, request{method: http.MethodPost, path: secretPolicyPath(id, "generate"), idempotent: true})
}

// PreviewSecret makes a value by a generator that is not stored.
func (c *Client) PreviewSecret(ctx context.Context, p api.SecretPreview) (api.GeneratedSecret, error) {
	return c.generated(ctx, request{method: http.MethodPost, path: secretPolicyPath("preview"), idempotent: true, body: p})
}

func rotationPath(rest ...string) []string { return append([]string{"rotation", "policies"}, rest...) }

func secretPolicyPath(rest ...string) []string { return append([]string{"secret-policies"}, rest...) }

func (c *Client) rotationPolicy(ctx context.Context, r request) (p api.RotationPolicy, err error) {
	_, err = c.do(ctx, r, &p)
	return p, err
}

func (c *Client) secretPolicy(ctx context.Context, r request) (p api.SecretPolicy, err error) {
	_, err = c.do(ctx, r, &p)
	return p, err
}

func (c *Client) generated(ctx context.Context, r request) (g api.GeneratedSecret, err error) {
	_, err = c.do(ctx, r, &g)
	return g, err
}
