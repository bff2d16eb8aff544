package server

import (
	"net/http"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
)

func (s *Server) policyRoutes() []route {
	const all, one = "/policies", "/policies/{id}"
	read, write := access.ScopePoliciesRead, access.ScopePoliciesWrite
	return []route{
		get(all, "List the policies that the caller may read.", s.listPolicies).needs(read).
			list(flag("include_inactive", "Show inactive policies, too.")),
		op(http.MethodPost, all, http.StatusCreated, "Create a policy.", s.createPolicy).needs(write),
		op(http.MethodPost, all+"/test", http.StatusOK, "Tell what the policies would decide for an identity.", s.testPolicies).needs(read),
		get(one, "Read a policy and its bindings.", s.getPolicy).needs(read),
		op(http.MethodPut, one, http.StatusOK, "Replace a policy; its bindings stay.", s.putPolicy).needs(write),
		op(http.MethodPatch, one, http.StatusOK, "Change a policy.", s.patchPolicy).needs(write),
		remove(one, "Delete a policy that is not bound.", s.deletePolicy).needs(write).
			query(force("End its bindings with it.")),
		get(one+"/bindings", "List to whom a policy is bound.", s.listBindings).needs(read).list(),
		op(http.MethodPost, one+"/bindings", http.StatusCreated, "Bind a policy to an identity or group.", s.bindPolicy).needs(write),
		remove(one+"/bindings/{binding_id}", "End a binding.", s.unbindPolicy).needs(write),
	}
}

func (s *Server) listPolicies(c *call) (*api.PolicyList, error) {
	return s.Policies.List(c.ctx, c.caller, c.flag("include_inactive"), c.page())
}

func (s *Server) createPolicy(c *call, req *api.PolicyRequest) (*api.Policy, error) {
	return s.Policies.Create(c.ctx, c.caller, req)
}

func (s *Server) testPolicies(c *call, req *api.PolicyTestRequest) (*api.PolicyTestResult, error) {
	return s.Policies.Test(c.ctx, c.caller, req)
}

func (s *Server) getPolicy(c *call) (*api.Policy, error) {
	return s.Policies.Policy(c.ctx, c.caller, c.path("id"))
}

func (s *Server) putPolicy(c *call, req *api.PolicyRequest) (*api.Policy, error) {
	return s.Policies.Replace(c.ctx, c.caller, c.path("id"), req)
}

func (s *Server) patchPolicy(c *call, req *api.PolicyPatch) (*api.Policy, error) {
	return s.Policies.Patch(c.ctx, c.caller, c.path("id"), req)
}

func (s *Server) deletePolicy(c *call) error {
	return s.Policies.Delete(c.ctx, c.caller, c.path("id"), c.flag("force"))
}

func (s *Server) listBindings(c *call) (*api.BindingList, error) {
	return s.Policies.Bindings(c.ctx, c.caller, c.path("id"), c.page())
}

func (s *Server) bindPolicy(c *call, req *api.BindingRequest) (*api.Binding, error) {
	return s.Policies.Bind(c.ctx, c.caller, c.path("id"), req)
}

func (s *Server) unbindPolicy(c *call) error {
	return s.Policies.Unbind(c.ctx, c.caller, c.path("id"), c.path("binding_id"))
}
