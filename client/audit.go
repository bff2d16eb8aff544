package client

import (
	"context"
	"iter"
	"time"

	"github.com/scaivault/scaivault/api"
)

// AuditFilter narrows a list of audit entries; what is empty does not.
type AuditFilter struct {
	From         time.Time
	To           time.Time
	Action       string
	IdentityID   string
	IdentityType string
	PathPrefix   string
	Success      *bool
	SourceIP     string
	RequestID    string
}

// AuditLogs walks through the entries, newest first. There may be millions:
// leave the loop when it is enough.
func (c *Client) AuditLogs(ctx context.Context, f AuditFilter) iter.Seq2[api.AuditEntry, error] {
	return c.auditEntries(ctx, f, "audit", "logs")
}

// SecretAudit is AuditLogs for one secret.
func (c *Client) SecretAudit(ctx context.Context, path string, f AuditFilter) iter.Seq2[api.AuditEntry, error] {
	return c.auditEntries(ctx, f, append([]string{"audit"}, secretPath(path)...)...)
}

// IdentityAudit is AuditLogs for one identity.
func (c *Client) IdentityAudit(ctx context.Context, id string, f AuditFilter) iter.Seq2[api.AuditEntry, error] {
	return c.auditEntries(ctx, f, "audit", "identities", id)
}

func (c *Client) auditEntries(ctx context.Context, f AuditFilter, path ...string) iter.Seq2[api.AuditEntry, error] {
	success := ""
	if f.Success != nil {
		success = "false"
		if *f.Success {
			success = "true"
		}
	}
	q := query("from", instant(f.From), "to", instant(f.To), "action", f.Action, "identity_id", f.IdentityID,
		"identity_type", f.IdentityType, "path_prefix", f.PathPrefix, "success", success,
		"source_ip", f.SourceIP, "request_id", f.RequestID)
	return list(ctx, c, q, path,
		func(l *api.AuditList) ([]api.AuditEntry, api.Page) { return l.Logs, l.Page })
}

// AuditSummary counts the entries of a period; the server's default where a time
// is zero.
func (c *Client) AuditSummary(ctx context.Context, from, to time.Time) (api.AuditSummary, error) {
	return get[api.AuditSummary](ctx, c, query("from", instant(from), "to", instant(to)), "audit", "summary")
}

// VerifyAudit recomputes the chains and names the first broken entry of each.
func (c *Client) VerifyAudit(ctx context.Context) (api.AuditVerification, error) {
	return get[api.AuditVerification](ctx, c, nil, "audit", "verify")
}
