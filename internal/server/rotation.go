package server

import (
	"net/http"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
)

func (s *Server) rotationRoutes() []route {
	const all, one = "/rotation/policies", "/rotation/policies/{id}"
	read, write, rotate := access.ScopePoliciesRead, access.ScopePoliciesWrite, access.ScopeSecretsRotate
	return []route{
		get(all, "List the rotation policies that the caller may read.", s.listRotationPolicies).needs(read).list(),
		op(http.MethodPost, all, http.StatusCreated, "Create a rotation policy.", s.createRotationPolicy).needs(write),
		get(one, "Read a rotation policy.", s.getRotationPolicy).needs(read),
		op(http.MethodPatch, one, http.StatusOK, "Change a rotation policy; the turns of its secrets are counted anew.", s.patchRotationPolicy).needs(write),
		remove(one, "Delete a rotation policy that no secret is assigned to.", s.deleteRotationPolicy).needs(write),
		act(http.MethodPost, one+"/enable", http.StatusOK, "Let a rotation policy rotate.", s.enableRotationPolicy).needs(write),
		act(http.MethodPost, one+"/disable", http.StatusOK, "Stop a rotation policy from rotating.", s.disableRotationPolicy).needs(write),
		act(http.MethodPost, one+"/rotate", http.StatusAccepted, "Rotate all secrets of a policy now.", s.rotateByPolicy).needs(rotate),
		get(one+"/secrets", "List the secrets of a rotation policy that the caller may list.", s.listRotationSecrets).needs(read).list(),
		op(http.MethodPost, one+"/secrets", http.StatusCreated, "Assign a secret to a rotation policy.", s.assignRotation).needs(rotate),
		remove(one+"/secrets/{secret_path...}", "Take a secret out of a rotation policy; slashes in its path may be escaped.", s.unassignRotation).needs(rotate),
	}
}

func (s *Server) secretPolicyRoutes() []route {
	const all, one = "/secret-policies", "/secret-policies/{id}"
	read, write := access.ScopePoliciesRead, access.ScopePoliciesWrite
	return []route{
		get(all, "List the secret policies that the caller may read.", s.listSecretPolicies).needs(read).list(),
		op(http.MethodPost, all, http.StatusCreated, "Create a secret policy.", s.createSecretPolicy).needs(write),
		op(http.MethodPost, all+"/preview", http.StatusOK, "Generate a value by a policy that is not stored; nor is the value.", s.previewSecretPolicy).needs(read),
		get(one, "Read a secret policy; the value of a static one is not shown.", s.getSecretPolicy).needs(read),
		op(http.MethodPatch, one, http.StatusOK, "Change a secret policy.", s.patchSecretPolicy).needs(write),
		remove(one, "Delete a secret policy that no rotation policy uses.", s.deleteSecretPolicy).needs(write),
		act(http.MethodPost, one+"/generate", http.StatusOK, "Generate a value, which is not stored.", s.generateSecret).needs(read),
	}
}

func (s *Server) listRotationPolicies(c *call) (*api.RotationPolicyList, error) {
	return s.Rotation.List(c.ctx, c.caller, c.page())
}

func (s *Server) createRotationPolicy(c *call, req *api.RotationPolicyRequest) (*api.RotationPolicy, error) {
	return s.Rotation.Create(c.ctx, c.caller, req)
}

func (s *Server) getRotationPolicy(c *call) (*api.RotationPolicy, error) {
	return s.Rotation.Policy(c.ctx, c.caller, c.path("id"))
}

func (s *Server) patchRotationPolicy(c *call, req *api.RotationPolicyPatch) (*api.RotationPolicy, error) {
	return s.Rotation.Patch(c.ctx, c.caller, c.path("id"), req)
}

func (s *Server) deleteRotationPolicy(c *call) error {
	return s.Rotation.Delete(c.ctx, c.caller, c.path("id"))
}

func (s *Server) enableRotationPolicy(c *call) (*api.RotationPolicy, error) {
	return s.setActive(c, true)
}

func (s *Server) disableRotationPolicy(c *call) (*api.RotationPolicy, error) {
	return s.setActive(c, false)
}

func (s *Server) setActive(c *call, active bool) (*api.RotationPolicy, error) {
	return s.Rotation.Patch(c.ctx, c.caller, c.path("id"), &api.RotationPolicyPatch{IsActive: &active})
}

func (s *Server) rotateByPolicy(c *call) (*api.RotationRequested, error) {
	return s.Secrets.RotateAll(c.ctx, c.caller, c.path("id"))
}

func (s *Server) listRotationSecrets(c *call) (*api.SecretList, error) {
	return s.Secrets.OfPolicy(c.ctx, c.caller, c.path("id"), c.page())
}

func (s *Server) assignRotation(c *call, req *api.RotationAssignment) (*api.Secret, error) {
	return s.Secrets.Assign(c.ctx, c.caller, c.path("id"), req.SecretPath)
}

func (s *Server) unassignRotation(c *call) error {
	return s.Secrets.Unassign(c.ctx, c.caller, c.path("id"), c.path("secret_path"))
}

func (s *Server) listSecretPolicies(c *call) (*api.SecretPolicyList, error) {
	return s.Rotation.SecretPolicies(c.ctx, c.caller, c.page())
}

func (s *Server) createSecretPolicy(c *call, req *api.SecretPolicyRequest) (*api.SecretPolicy, error) {
	return s.Rotation.CreateSecretPolicy(c.ctx, c.caller, req)
}

func (s *Server) previewSecretPolicy(c *call, req *api.SecretPreview) (*api.GeneratedSecret, error) {
	return s.Rotation.Preview(c.ctx, c.caller, req)
}

func (s *Server) getSecretPolicy(c *call) (*api.SecretPolicy, error) {
	return s.Rotation.SecretPolicy(c.ctx, c.caller, c.path("id"))
}

func (s *Server) patchSecretPolicy(c *call, req *api.SecretPolicyPatch) (*api.SecretPolicy, error) {
	return s.Rotation.PatchSecretPolicy(c.ctx, c.caller, c.path("id"), req)
}

func (s *Server) deleteSecretPolicy(c *call) error {
	return s.Rotation.DeleteSecretPolicy(c.ctx, c.caller, c.path("id"))
}

func (s *Server) generateSecret(c *call) (*api.GeneratedSecret, error) {
	return s.Rotation.Generate(c.ctx, c.caller, c.path("id"))
}
