package server

import (
	"encoding/json"
	"net/http"
	"reflect"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// How long a revocation is waited for before it is answered 202.
const (
	waitOne  = 10 * time.Second
	waitMany = 30 * time.Second
)

func (s *Server) dynamicRoutes() []route {
	const engines, engine = "/dynamic/engines", "/dynamic/engines/{engine}"
	const roles, role = engine + "/roles", engine + "/roles/{role}"
	const leases, one = "/dynamic/leases", "/dynamic/leases/{id}"
	manage, read, generate := access.ScopeDynamicManage, access.ScopeDynamicRead, access.ScopeDynamicGenerate
	forceEngine := force("Revoke the living leases first; 202 until the last is dead.")
	return []route{
		op(http.MethodPost, engines, http.StatusCreated, "Create an engine; its source is connected to first.", s.createEngine).needs(manage),
		get(engines, "List the engines.", s.listEngines).needs(read).list(),
		get(engine, "Show an engine.", s.getEngine).needs(read),
		op(http.MethodPut, engine, http.StatusOK, "Create or replace an engine.", s.putEngine).needs(manage).query(forceEngine, wait()).or(http.StatusCreated, http.StatusAccepted),
		op(http.MethodPatch, engine, http.StatusOK, "Change an engine; config is merged key by key.", s.patchEngine).needs(manage).query(forceEngine, wait()).or(http.StatusAccepted),
		act(http.MethodDelete, engine, http.StatusNoContent, "Delete an engine with its roles.", s.deleteEngine).needs(manage).query(forceEngine, wait()).or(http.StatusAccepted),
		get(engine+"/health", "Look at the source now.", s.engineHealth).needs(read).within(time.Minute),
		op(http.MethodPost, engine+"/abandon", http.StatusOK, "State that the source no longer exists; its leases end.", s.abandonEngine).needs(access.ScopeAdmin),
		act(http.MethodPost, engine+"/accept-source", http.StatusOK, "State that the server behind the engine is rightly another one.", s.acceptSource).needs(manage),
		op(http.MethodPost, engine+"/reconcile", http.StatusOK, "Compare the source with the leases; remove orphans when told to.", s.reconcileEngine).needs(manage).within(10 * time.Minute),
		get(engine+"/reconcile", "Show what the last reconcile found, without asking the source.", s.lastReconcile).needs(read),
		published(engine+"/ssh/public-key", "text/plain; charset=utf-8", "The public keys of an SSH CA, as sshd reads them (TrustedUserCAKeys); anybody may ask.", s.sshPublicKey),
		published(engine+"/ssh/krl", "application/octet-stream", "The OpenSSH key revocation list of an SSH CA (RevokedKeys); anybody may ask.", s.sshKRL),
		op(http.MethodPost, engine+"/ssh/verify", http.StatusOK, "Check a one-time password that somebody presented to a host; it is used up.", s.sshVerify).needs(access.ScopeDynamicVerify),

		act(http.MethodPost, engine+"/rotate-root", http.StatusOK, "Rotate the root credentials at the source.", s.rotateRoot).needs(manage).within(time.Minute),

		twoStep(http.MethodPost, roles, http.StatusCreated, "Create a role; the source shows first that it can work.", reflect.TypeFor[api.RoleRequest](), false, s.createRole).needs(manage),
		get(roles, "List an engine's roles.", s.listRoles).needs(read).list(),
		get(role, "Show a role.", s.getRole).needs(read),
		twoStep(http.MethodPut, role, http.StatusOK, "Create or replace a role.", reflect.TypeFor[api.RoleRequest](), false, s.putRole).needs(manage).or(http.StatusCreated),
		twoStep(http.MethodPatch, role, http.StatusOK, "Change a role; null removes a field.", reflect.TypeFor[api.RoleRequest](), false, s.patchRole).needs(manage),
		act(http.MethodDelete, role, http.StatusNoContent, "Delete a role.", s.deleteRole).needs(manage).query(forceEngine, wait()).or(http.StatusAccepted),
		act(http.MethodPost, role+"/test", http.StatusOK, "Issue, verify and revoke one credential, and report each step.", s.testRole).needs(manage).within(time.Minute),
		twoStep(http.MethodPost, engine+"/creds/{role}", http.StatusCreated, "Make a credential.", reflect.TypeFor[api.CredsRequest](), true, s.generate).needs(generate),

		get(leases, "List leases, newest first.", s.listLeases).needs(read, generate).list(
			text("engine", "Of this engine."), text("role", "Of roles with this name."),
			text("identity_id", "That this identity obtained."), text("username", "Of this account at the source."),
			text("status", "issuing, active, revoking or revoked."),
			flag("residue", "Only revoked ones whose account, dead, could not be dropped."),
			moment("expires_before", "That end before this moment."), moment("expires_after", "That end after this moment.")),
		get(one, "Show a lease; never the credential again.", s.getLease).needs(read, generate),
		op(http.MethodPost, one+"/renew", http.StatusOK, "Move a lease's end, at the source too.", s.renewLease).needs(generate, manage),
		act(http.MethodDelete, one, http.StatusNoContent, "Kill a credential.", s.revokeLease).needs(generate, manage).query(wait()).or(http.StatusAccepted),
		act(http.MethodPost, one+"/revoke", http.StatusNoContent, "Kill a credential.", s.revokeLease).needs(generate, manage).query(wait()).or(http.StatusAccepted),
		op(http.MethodPost, leases+"/revoke-prefix", http.StatusOK, "Kill every credential of an engine or a role.", s.revokePrefix).needs(manage).query(wait()).or(http.StatusAccepted),
		op(http.MethodPost, leases+"/revoke", http.StatusOK, "Kill every credential that matches.", s.revokeBy).needs(manage).query(wait()).or(http.StatusAccepted),
	}
}

// twoStep is an operation whose body is partly the engine's own: the service decodes it.
func twoStep[Resp any](method, pattern string, status int, doc string, shape reflect.Type, optional bool, h func(c *call, body []byte) (*Resp, error)) route {
	rt := act(method, pattern, status, doc, func(c *call) (*Resp, error) {
		body, err := c.body(typeJSON)
		if err != nil {
			return nil, err
		}
		if len(body) == 0 && c.route.optional {
			body = []byte("{}")
		}
		return h(c, body)
	})
	rt.consumes = typeJSON
	return rt.shaped(shape, optional)
}

func (s *Server) createEngine(c *call, req *api.EngineRequest) (*api.Engine, error) {
	return s.Sources.CreateEngine(c.ctx, c.caller, req)
}

func (s *Server) listEngines(c *call) (*api.EngineList, error) {
	p := c.page()
	after, err := p.After("engines")
	if err != nil {
		return nil, err
	}
	list, err := s.Sources.ListEngines(c.ctx, c.caller, after, p.Size())
	if err == nil && list.HasMore {
		list.Page = page.Next("engines", *list.Cursor)
	}
	return list, err
}

func (s *Server) getEngine(c *call) (*api.Engine, error) {
	return s.Sources.GetEngine(c.ctx, c.caller, c.path("engine"))
}

func (s *Server) putEngine(c *call, req *api.EngineRequest) (*api.Engine, error) {
	e, created, moving, err := s.Sources.PutEngine(c.ctx, c.caller, c.path("engine"), req, c.flag("force"), c.wait(waitMany))
	if created {
		c.created()
	}
	if moving {
		c.accepted()
	}
	return e, err
}

func (s *Server) patchEngine(c *call, req *api.EnginePatch) (*api.Engine, error) {
	e, moving, err := s.Sources.PatchEngine(c.ctx, c.caller, c.path("engine"), req, c.flag("force"), c.wait(waitMany))
	if moving {
		c.accepted()
	}
	return e, err
}

func (s *Server) deleteEngine(c *call) (*api.Engine, error) {
	left, err := s.Sources.DeleteEngine(c.ctx, c.caller, c.path("engine"), c.flag("force"), c.wait(waitMany))
	if left != nil {
		c.accepted()
	}
	return left, err
}

func (s *Server) engineHealth(c *call) (*api.EngineHealth, error) {
	return s.Sources.Health(c.ctx, c.caller, c.path("engine"))
}

func (s *Server) abandonEngine(c *call, req *api.AbandonRequest) (*api.AbandonResult, error) {
	return s.Leases.Abandon(c.ctx, c.caller, c.path("engine"), *req)
}

func (s *Server) acceptSource(c *call) (*api.Engine, error) {
	return s.Sources.AcceptSource(c.ctx, c.caller, c.path("engine"))
}

func (s *Server) reconcileEngine(c *call, req *api.ReconcileRequest) (*api.ReconcileResult, error) {
	removal := lease.RemoveNone
	switch {
	case req.DryRun == nil || *req.DryRun:
	case req.Restored:
		removal = lease.RemoveRestored
	default:
		removal = lease.RemoveOld
	}
	return s.Leases.Reconcile(c.ctx, c.caller, c.path("engine"), removal)
}

func (s *Server) lastReconcile(c *call) (*api.ReconcileReport, error) {
	return s.Sources.LastReconcile(c.ctx, c.caller, c.path("engine"))
}

func (s *Server) rotateRoot(c *call) (*api.Engine, error) {
	return s.Sources.RotateRoot(c.ctx, c.caller, c.path("engine"))
}

func (s *Server) createRole(c *call, body []byte) (*api.Role, error) {
	return s.Sources.CreateRole(c.ctx, c.caller, c.path("engine"), body)
}

func (s *Server) listRoles(c *call) (*api.RoleList, error) {
	p := c.page()
	after, err := p.After("roles")
	if err != nil {
		return nil, err
	}
	list, err := s.Sources.ListRoles(c.ctx, c.caller, c.path("engine"), after, p.Size())
	if err == nil && list.HasMore {
		list.Page = page.Next("roles", *list.Cursor)
	}
	return list, err
}

func (s *Server) getRole(c *call) (*api.Role, error) {
	return s.Sources.GetRole(c.ctx, c.caller, c.path("engine"), c.path("role"))
}

func (s *Server) putRole(c *call, body []byte) (*api.Role, error) {
	r, created, err := s.Sources.PutRole(c.ctx, c.caller, c.path("engine"), c.path("role"), body)
	if created {
		c.created()
	}
	return r, err
}

func (s *Server) patchRole(c *call, body []byte) (*api.Role, error) {
	return s.Sources.PatchRole(c.ctx, c.caller, c.path("engine"), c.path("role"), body)
}

func (s *Server) deleteRole(c *call) (*api.Role, error) {
	left, err := s.Sources.DeleteRole(c.ctx, c.caller, c.path("engine"), c.path("role"), c.flag("force"), c.wait(waitMany))
	if left != nil {
		c.accepted()
	}
	return left, err
}

func (s *Server) testRole(c *call) (*api.RoleTest, error) {
	return s.Leases.TestRole(c.ctx, c.caller, c.path("engine"), c.path("role"), waitOne)
}

// generate answers the credential once. When the answer cannot begin, the credential is revoked.
func (s *Server) generate(c *call, body []byte) (*api.Credential, error) {
	req, params, err := splitCreds(body)
	if err != nil {
		return nil, err
	}
	c.extend(s.Sources.Patience(c.caller.Tenant, c.path("engine")))
	made, err := s.Leases.Issue(c.ctx, c.caller, c.path("engine"), c.path("role"), *req, params)
	if err != nil {
		return nil, err
	}
	c.onUndelivered(func() { s.Leases.Undelivered(c.ctx, c.caller.Tenant, made.LeaseID) })
	return made, nil
}

// splitCreds reads the common fields of a request for a credential; the others are the engine's.
func splitCreds(body []byte) (*api.CredsRequest, json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := strictjson.Decode(body, &fields); err != nil {
		return nil, nil, err
	}
	common := map[string]json.RawMessage{}
	for _, name := range []string{"ttl", "metadata"} {
		if v, ok := fields[name]; ok {
			common[name] = v
			delete(fields, name)
		}
	}
	raw, err := json.Marshal(common)
	if err != nil {
		return nil, nil, err
	}
	req := new(api.CredsRequest)
	if err := strictjson.Decode(raw, req); err != nil {
		return nil, nil, err
	}
	if len(fields) == 0 {
		return req, nil, nil
	}
	params, err := json.Marshal(fields)
	return req, params, err
}

func (s *Server) listLeases(c *call) (*api.LeaseList, error) {
	p := c.page()
	before, err := p.After("leases")
	if err != nil {
		return nil, err
	}
	f := lease.Filter{Engine: c.text("engine"), Role: c.text("role"), Identity: c.text("identity_id"), Username: c.text("username"),
		Status: api.LeaseStatus(c.text("status")), Residue: c.flag("residue"), ExpiresBefore: c.moment("expires_before"), ExpiresAfter: c.moment("expires_after")}
	switch f.Status {
	case "", api.LeaseIssuing, api.LeaseActive, api.LeaseRevoking, api.LeaseRevoked:
	default:
		return nil, fault.New(fault.InvalidRequest, "read the query: parameter status is issuing, active, revoking or revoked")
	}
	list, next, err := s.Leases.List(c.ctx, c.caller, f, before, p.Size())
	if err != nil {
		return nil, err
	}
	out := &api.LeaseList{Leases: list}
	if next != "" {
		out.Page = page.Next("leases", next)
	}
	return out, nil
}

func (s *Server) getLease(c *call) (*api.Lease, error) {
	return s.Leases.Get(c.ctx, c.caller, c.path("id"))
}

func (s *Server) renewLease(c *call, req *api.RenewRequest) (*api.Lease, error) {
	return s.Leases.Renew(c.ctx, c.caller, c.path("id"), *req)
}

func (s *Server) revokeLease(c *call) (*api.Lease, error) {
	pending, err := s.Leases.Revoke(c.ctx, c.caller, c.path("id"), c.wait(waitOne))
	if pending != nil {
		c.accepted()
	}
	return pending, err
}

func (s *Server) revokePrefix(c *call, req *api.RevokePrefixRequest) (*api.RevokeResult, error) {
	return revoked(c)(s.Leases.RevokePrefix(c.ctx, c.caller, req.Prefix, c.wait(waitMany)))
}

func (s *Server) revokeBy(c *call, req *api.RevokeFilterRequest) (*api.RevokeResult, error) {
	return revoked(c)(s.Leases.RevokeBy(c.ctx, c.caller, *req, c.wait(waitMany)))
}

// revoked answers 200 when all are dead, 202 when some are still being killed.
func revoked(c *call) func(api.RevokeResult, error) (*api.RevokeResult, error) {
	return func(r api.RevokeResult, err error) (*api.RevokeResult, error) {
		if err != nil {
			return nil, err
		}
		if r.Pending > 0 {
			c.accepted()
		}
		return &r, nil
	}
}
