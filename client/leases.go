package client

import (
	"context"
	"iter"
	"net/http"
	"time"

	"github.com/scaivault/scaivault/api"
)

// LeaseFilter narrows a list of leases; what is empty does not.
type LeaseFilter struct {
	Engine        string
	Role          string
	IdentityID    string
	Status        api.LeaseStatus
	Username      string
	Residue       bool // only those whose account, dead, could not be dropped
	ExpiresBefore time.Time
	ExpiresAfter  time.Time
}

// GenerateCredential asks for a credential; most programs want [Client.Generate],
// whose answer revokes itself.
func (c *Client) GenerateCredential(ctx context.Context, engine, role string, r api.CredsRequest) (api.Credential, error) {
	var credential api.Credential
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", engine, "creds", role}, body: r}, &credential)
	return credential, err
}

// Leases lists leases that the caller may read.
func (c *Client) Leases(ctx context.Context, f LeaseFilter) iter.Seq2[api.Lease, error] {
	q := query("engine", f.Engine, "role", f.Role, "identity_id", f.IdentityID, "status", string(f.Status),
		"username", f.Username, "residue", flag(f.Residue), "expires_before", instant(f.ExpiresBefore), "expires_after", instant(f.ExpiresAfter))
	return list(ctx, c, q, []string{"dynamic", "leases"},
		func(l *api.LeaseList) ([]api.Lease, api.Page) { return l.Leases, l.Page })
}

// Lease reads a lease's record, which does not hold the credential.
func (c *Client) Lease(ctx context.Context, id string) (api.Lease, error) {
	return get[api.Lease](ctx, c, nil, "dynamic", "leases", id)
}

// RenewLease moves a lease's end. The zero request asks for the role's default.
func (c *Client) RenewLease(ctx context.Context, id string, r api.RenewRequest) (api.Lease, error) {
	var lease api.Lease
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "leases", id, "renew"}, idempotent: true, body: r}, &lease)
	return lease, err
}

// RevokeLease ends a credential. A nil lease means that it is dead at its source;
// else it is the lease as it stands, and the server goes on until it is dead.
// wait is how long the server may take to answer; its default when 0.
func (c *Client) RevokeLease(ctx context.Context, id string, wait time.Duration) (*api.Lease, error) {
	var lease api.Lease
	status, err := c.do(ctx, request{
		method: http.MethodDelete, path: []string{"dynamic", "leases", id}, idempotent: true,
		query: query("wait", seconds(wait)), wait: wait,
	}, &lease)
	if err != nil || status != http.StatusAccepted {
		return nil, err
	}
	return &lease, nil
}

// RevokePrefix ends all leases of "<engine>" or "<engine>/<role>", those being
// issued at this moment included. Where some are still alive after wait, the
// result counts and names them as pending.
func (c *Client) RevokePrefix(ctx context.Context, prefix string, wait time.Duration) (api.RevokeResult, error) {
	return c.revokeMany(ctx, "revoke-prefix", api.RevokePrefixRequest{Prefix: prefix}, wait)
}

// RevokeBy ends all leases that match every given field; wait as in RevokePrefix.
func (c *Client) RevokeBy(ctx context.Context, f api.RevokeFilterRequest, wait time.Duration) (api.RevokeResult, error) {
	return c.revokeMany(ctx, "revoke", f, wait)
}

func (c *Client) revokeMany(ctx context.Context, how string, body any, wait time.Duration) (api.RevokeResult, error) {
	var result api.RevokeResult
	_, err := c.do(ctx, request{
		method: http.MethodPost, path: []string{"dynamic", "leases", how}, idempotent: true,
		query: query("wait", seconds(wait)), wait: wait, body: body,
	}, &result)
	return result, err
}

func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
