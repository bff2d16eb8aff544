package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/scaivault/scaivault/api"
)

// ReadSecret reads a secret; version 0 is the current one.
func (c *Client) ReadSecret(ctx context.Context, path string, version int) (api.Secret, error) {
	q := url.Values{}
	if version != 0 {
		q.Set("version", strconv.Itoa(version))
	}
	return get[api.Secret](ctx, c, q, secretPath(path)...)
}

// WriteSecret stores a new version, all of it: what is not in Data is gone from
// the current version. With Options.CAS it is refused unless that version is the
// current one.
func (c *Client) WriteSecret(ctx context.Context, path string, s api.SecretWrite) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodPut, path: secretPath(path), body: s})
}

// UpdateSecret changes metadata and options.
func (c *Client) UpdateSecret(ctx context.Context, path string, p api.SecretPatch) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodPatch, path: secretPath(path), idempotent: true, body: p})
}

// DeleteSecret makes a secret unreadable; it can be undeleted until the time in
// the answer.
func (c *Client) DeleteSecret(ctx context.Context, path string) (api.SecretDeleted, error) {
	var deleted api.SecretDeleted
	_, err := c.do(ctx, request{method: http.MethodDelete, path: secretPath(path), idempotent: true}, &deleted)
	return deleted, err
}

// DestroySecret removes a secret and all its versions for good.
func (c *Client) DestroySecret(ctx context.Context, path string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: secretPath(path), idempotent: true, query: query("permanent", "true")}, nil)
	return err
}

// UndeleteSecret brings a deleted secret back.
func (c *Client) UndeleteSecret(ctx context.Context, path string) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodPost, path: secretPath(path), verb: ":undelete", idempotent: true})
}

// SecretMetadata reads all but the data.
func (c *Client) SecretMetadata(ctx context.Context, path string) (api.Secret, error) {
	return c.secret(ctx, request{method: http.MethodGet, path: secretPath(path), verb: ":metadata", idempotent: true})
}

// SecretVersions lists the versions, newest first.
func (c *Client) SecretVersions(ctx context.Context, path string) ([]api.SecretVersion, error) {
	var versions api.SecretVersionList
	_, err := c.do(ctx, request{method: http.MethodGet, path: secretPath(path), verb: ":versions", idempotent: true}, &versions)
	return versions.Versions, err
}

// Secrets lists the secrets below a prefix that the caller may list.
func (c *Client) Secrets(ctx context.Context, prefix string) iter.Seq2[api.SecretListItem, error] {
	return list(ctx, c, query("prefix", prefix), []string{"secrets"},
		func(l *api.SecretList) ([]api.SecretListItem, api.Page) { return l.Secrets, l.Page })
}

// ReadSecrets reads up to 100 secrets at once; each is answered, or why not.
func (c *Client) ReadSecrets(ctx context.Context, paths ...string) ([]api.SecretBatchItem, error) {
	var batch api.SecretBatch
	_, err := c.do(ctx, request{
		method: http.MethodPost, path: []string{"secrets", "batch"}, idempotent: true,
		body: api.SecretBatchRequest{Paths: paths},
	}, &batch)
	return batch.Secrets, err
}

func (c *Client) secret(ctx context.Context, r request) (api.Secret, error) {
	var s api.Secret
	_, err := c.do(ctx, r, &s)
	return s, err
}

// secretPath splits, so that each segment is escaped by itself.
func secretPath(path string) []string {
	return append([]string{"secrets"}, strings.Split(path, "/")...)
}
