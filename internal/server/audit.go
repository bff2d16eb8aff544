package server

import (
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/store"
)

// verifyTime is enough to recompute some ten million entries.
const verifyTime = 10 * time.Minute

func (s *Server) auditRoutes() []route {
	read := access.ScopeAuditRead
	filters := []param{
		moment("from", "From this moment on."), moment("to", "Before this moment."),
		text("action", "Of this action."), text("identity_id", "Of this identity."),
		text("identity_type", "user, service_account or system."), text("path_prefix", "On paths that begin like this."),
		flag("success", "Only what succeeded, or only what did not."), text("source_ip", "From this address."),
		text("request_id", "Of this request."),
	}
	return []route{
		get("/audit/logs", "List audit entries, newest first.", s.listAudit).needs(read).list(filters...),
		get("/audit/secrets/{path...}", "List what was done to a secret, newest first.", s.listSecretAudit).needs(read).list(filters...),
		get("/audit/identities/{id}", "List what an identity did, newest first.", s.listIdentityAudit).needs(read).list(filters...),
		get("/audit/summary", "Count entries by action: of the last day when no period is given.", s.auditSummary).needs(read).
			query(moment("from", "From this moment on."), moment("to", "Before this moment.")),
		get("/audit/verify", "Recompute the audit chains and name the first broken entry.", s.verifyAudit).needs(read).within(verifyTime),
	}
}

func (c *call) auditFilter() store.AuditFilter {
	return store.AuditFilter{From: c.moment("from"), To: c.moment("to"), Action: c.text("action"),
		IdentityID: c.text("identity_id"), IdentityType: c.text("identity_type"), PathPrefix: c.text("path_prefix"),
		Success: given[bool](c, "success"), SourceIP: c.text("source_ip"), RequestID: c.text("request_id")}
}

func (s *Server) listAudit(c *call) (*api.AuditList, error) {
	return s.Audit.Logs(c.ctx, c.caller, c.auditFilter(), c.page())
}

func (s *Server) listSecretAudit(c *call) (*api.AuditList, error) {
	f := c.auditFilter()
	f.Path = c.path("path")
	return s.Audit.Logs(c.ctx, c.caller, f, c.page())
}

func (s *Server) listIdentityAudit(c *call) (*api.AuditList, error) {
	f := c.auditFilter()
	f.IdentityID = c.path("id")
	return s.Audit.Logs(c.ctx, c.caller, f, c.page())
}

func (s *Server) auditSummary(c *call) (*api.AuditSummary, error) {
	return s.Audit.Summary(c.ctx, c.caller, c.moment("from"), c.moment("to"))
}

func (s *Server) verifyAudit(c *call) (*api.AuditVerification, error) {
	c.extend(verifyTime)
	return s.Audit.Verify(c.ctx, c.caller)
}
