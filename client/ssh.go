package client

import (
	"context"
	"net/http"

	"github.com/scaivault/scaivault/api"
)

// SSHRevokedKeys reads an engine's key revocation list, for sshd's RevokedKeys. It needs no token.
// held is the copy that the caller has; nil is answered when that is the present one.
func (c *Client) SSHRevokedKeys(ctx context.Context, engine string, held []byte) ([]byte, error) {
	return c.publicDocument(ctx, held, "dynamic", "engines", engine, "ssh", "krl")
}

// SSHPublicKey reads the public keys of an engine's CA, for sshd's TrustedUserCAKeys: two of them
// while the key is being replaced. Token and held are as in SSHRevokedKeys.
func (c *Client) SSHPublicKey(ctx context.Context, engine string, held []byte) ([]byte, error) {
	return c.publicDocument(ctx, held, "dynamic", "engines", engine, "ssh", "public-key")
}

func (c *Client) publicDocument(ctx context.Context, held []byte, path ...string) ([]byte, error) {
	r := request{method: http.MethodGet, path: path, idempotent: true, anonymous: true, most: maxDocument}
	if held != nil {
		r.held, r.accept = api.EntityTag(held), http.StatusNotModified
	}
	document := []byte{}
	status, err := c.do(ctx, r, &document)
	if err != nil || status == http.StatusNotModified {
		return nil, err
	}
	return document, nil
}

// VerifySSHPassword asks, as a host, whether a one-time password opens this login. Once the answer is
// valid it never is again.
func (c *Client) VerifySSHPassword(ctx context.Context, engine string, r api.SSHVerifyRequest) (api.SSHVerification, error) {
	var answer api.SSHVerification
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", engine, "ssh", "verify"}, body: r}, &answer)
	return answer, err
}
