package server

import (
	"net/http"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/secret"
)

// rotateTimeout is for a secret that is rotated at a source: it is opened and changed there.
const rotateTimeout = time.Minute

func (s *Server) secretRoutes() []route {
	const at = "/secrets/{path...}"
	return []route{
		get("/secrets", "List the secrets that the caller may list.", s.listSecrets).needs(access.ScopeSecretsList).
			list(text("prefix", "Only below this path, in whole segments."), flag("include_deleted", "Show deleted secrets that can be brought back, too."),
				moment("due_before", "Only those that expire, or are to be rotated, before this moment.")),
		op(http.MethodPost, "/secrets/batch", http.StatusOK, "Read up to 100 secrets; each is judged for itself.", s.readSecrets).
			needs(access.ScopeSecretsRead),
		get(at, "Read a secret.", s.readSecret).needs(access.ScopeSecretsRead).
			query(number("version", "This version in place of the current one.")),
		op(http.MethodPut, at, http.StatusOK, "Store a new version of a secret.", s.writeSecret).needs(access.ScopeSecretsWrite),
		op(http.MethodPatch, at, http.StatusOK, "Change a secret's metadata and options.", s.patchSecret).needs(access.ScopeSecretsWrite),
		act(http.MethodDelete, at, http.StatusOK, "Delete a secret; for 30 days it can be brought back.", s.deleteSecret).
			needs(access.ScopeSecretsDelete).or(http.StatusNoContent).
			query(flag("permanent", "Destroy it with all versions, for good: 204.")),
		get(at+":versions", "List a secret's versions, newest first.", s.listSecretVersions).list().
			needs(access.ScopeSecretsRead, access.ScopeSecretsList),
		get(at+":metadata", "Read what is known of a secret, without its data.", s.readSecretMetadata).
			needs(access.ScopeSecretsRead, access.ScopeSecretsList),
		op(http.MethodPost, at+":rotate", http.StatusOK, "Replace a secret's value by a generated or given one; an engine's root is rotated at its source.", s.rotateSecret).
			needs(access.ScopeSecretsRotate).within(rotateTimeout),
		act(http.MethodPost, at+":undelete", http.StatusOK, "Bring a deleted secret back.", s.undeleteSecret).
			needs(access.ScopeSecretsWrite),
	}
}

func (s *Server) listSecrets(c *call) (*api.SecretList, error) {
	return s.Secrets.List(c.ctx, c.caller, secret.Filter{Prefix: c.text("prefix"), Deleted: c.flag("include_deleted"),
		DueBefore: c.moment("due_before")}, c.page())
}

func (s *Server) readSecrets(c *call, req *api.SecretBatchRequest) (*api.SecretBatch, error) {
	return s.Secrets.Batch(c.ctx, c.caller, req)
}

func (s *Server) readSecret(c *call) (*api.Secret, error) {
	return s.Secrets.Read(c.ctx, c.caller, c.path("path"), c.number("version"))
}

func (s *Server) writeSecret(c *call, req *api.SecretWrite) (*api.Secret, error) {
	return s.Secrets.Write(c.ctx, c.caller, c.path("path"), req)
}

func (s *Server) patchSecret(c *call, req *api.SecretPatch) (*api.Secret, error) {
	return s.Secrets.Patch(c.ctx, c.caller, c.path("path"), req)
}

func (s *Server) deleteSecret(c *call) (*api.SecretDeleted, error) {
	if c.flag("permanent") {
		return nil, s.Secrets.Destroy(c.ctx, c.caller, c.path("path"))
	}
	return s.Secrets.Delete(c.ctx, c.caller, c.path("path"))
}

func (s *Server) rotateSecret(c *call, req *api.SecretRotate) (*api.Secret, error) {
	return s.Secrets.Rotate(c.ctx, c.caller, c.path("path"), req)
}

func (s *Server) listSecretVersions(c *call) (*api.SecretVersionList, error) {
	return s.Secrets.Versions(c.ctx, c.caller, c.path("path"), c.page())
}

func (s *Server) readSecretMetadata(c *call) (*api.Secret, error) {
	return s.Secrets.Metadata(c.ctx, c.caller, c.path("path"))
}

func (s *Server) undeleteSecret(c *call) (*api.Secret, error) {
	return s.Secrets.Undelete(c.ctx, c.caller, c.path("path"))
}
