package client

import (
	"context"
	"iter"
	"net/http"

	"github.com/scaivault/scaivault/api"
)

// Document is a JSON object whose fields depend on the engine: a role is the
// common fields of api.RoleRequest and the engine's own beside them.
type Document map[string]any

// Engines lists all engines that the caller may read.
func (c *Client) Engines(ctx context.Context) iter.Seq2[api.Engine, error] {
	return list(ctx, c, nil, []string{"dynamic", "engines"},
		func(l *api.EngineList) ([]api.Engine, api.Page) { return l.Engines, l.Page })
}

// Engine reads one engine.
func (c *Client) Engine(ctx context.Context, name string) (api.Engine, error) {
	return get[api.Engine](ctx, c, nil, "dynamic", "engines", name)
}

// CreateEngine makes an engine. The server tries its connection first and stores
// nothing when that fails.
func (c *Client) CreateEngine(ctx context.Context, e api.EngineRequest) (api.Engine, error) {
	var engine api.Engine
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines"}, body: e}, &engine)
	return engine, err
}

// ReplaceEngine makes an engine or replaces it. With force, leases on another
// server than the new one are revoked there first.
func (c *Client) ReplaceEngine(ctx context.Context, name string, e api.EngineRequest, force bool) (api.Engine, error) {
	return c.writeEngine(ctx, http.MethodPut, name, e, force)
}

// UpdateEngine changes what is given; force as in ReplaceEngine.
func (c *Client) UpdateEngine(ctx context.Context, name string, e api.EnginePatch, force bool) (api.Engine, error) {
	return c.writeEngine(ctx, http.MethodPatch, name, e, force)
}

func (c *Client) writeEngine(ctx context.Context, method, name string, body any, force bool) (api.Engine, error) {
	var engine api.Engine
	_, err := c.do(ctx, request{
		method: method, path: []string{"dynamic", "engines", name}, idempotent: true,
		query: query("force", flag(force)), body: body,
	}, &engine)
	return engine, err
}

// DeleteEngine removes an engine. With force its leases are revoked first;
// pending tells that some are not dead yet and the engine goes with the last.
func (c *Client) DeleteEngine(ctx context.Context, name string, force bool) (pending bool, err error) {
	return c.remove(ctx, force, "dynamic", "engines", name)
}

// EngineHealth looks at the source now.
func (c *Client) EngineHealth(ctx context.Context, name string) (api.EngineHealth, error) {
	return get[api.EngineHealth](ctx, c, nil, "dynamic", "engines", name, "health")
}

// AcceptSource states that the server behind the engine, another one than its
// leases were made on, is the right one.
func (c *Client) AcceptSource(ctx context.Context, name string) (api.Engine, error) {
	var engine api.Engine
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", name, "accept-source"}, idempotent: true}, &engine)
	return engine, err
}

// Abandon states that the source no longer exists and ends its leases without
// asking it.
func (c *Client) Abandon(ctx context.Context, name, reason string) (api.AbandonResult, error) {
	var result api.AbandonResult
	_, err := c.do(ctx, request{
		method: http.MethodPost, path: []string{"dynamic", "engines", name, "abandon"},
		body: api.AbandonRequest{Reason: reason, Confirm: name},
	}, &result)
	return result, err
}

// Reconcile compares the accounts at the source with the leases; with remove it
// removes those of ours that no lease bears and that a run ten minutes ago saw, but
// none in the first day after a restore.
func (c *Client) Reconcile(ctx context.Context, name string, remove bool) (api.ReconcileResult, error) {
	dry := !remove
	return c.reconcile(ctx, name, api.ReconcileRequest{DryRun: &dry})
}

// LastReconcile reads what the engine's last reconcile found, by a schedule or by
// somebody. The source is not asked.
func (c *Client) LastReconcile(ctx context.Context, name string) (api.ReconcileReport, error) {
	return get[api.ReconcileReport](ctx, c, nil, "dynamic", "engines", name, "reconcile")
}

// ReconcileRestored is Reconcile with removal, on the first day after a restore, too:
// what was made since the backup is removed.
func (c *Client) ReconcileRestored(ctx context.Context, name string) (api.ReconcileResult, error) {
	dry := false
	return c.reconcile(ctx, name, api.ReconcileRequest{DryRun: &dry, Restored: true})
}

func (c *Client) reconcile(ctx context.Context, name string, body api.ReconcileRequest) (api.ReconcileResult, error) {
	var result api.ReconcileResult
	_, err := c.do(ctx, request{
		method: http.MethodPost, path: []string{"dynamic", "engines", name, "reconcile"}, idempotent: true,
		body: body,
	}, &result)
	return result, err
}

// RotateRoot gives the engine's root a new password at the source and writes it
// as the new version of the root secret. A server that dies meanwhile finishes
// or undoes it by itself.
func (c *Client) RotateRoot(ctx context.Context, name string) (api.Engine, error) {
	var engine api.Engine
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", name, "rotate-root"}}, &engine)
	return engine, err
}

// Roles lists the roles of an engine.
func (c *Client) Roles(ctx context.Context, engine string) iter.Seq2[api.Role, error] {
	return list(ctx, c, nil, []string{"dynamic", "engines", engine, "roles"},
		func(l *api.RoleList) ([]api.Role, api.Page) { return l.Roles, l.Page })
}

// Role reads one role.
func (c *Client) Role(ctx context.Context, engine, name string) (api.Role, error) {
	return get[api.Role](ctx, c, nil, "dynamic", "engines", engine, "roles", name)
}

// CreateRole makes a role, which the engine proves first as far as it can.
func (c *Client) CreateRole(ctx context.Context, engine string, role Document) (api.Role, error) {
	var r api.Role
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", engine, "roles"}, body: role}, &r)
	return r, err
}

// ReplaceRole makes a role or replaces it; living leases keep what they have.
func (c *Client) ReplaceRole(ctx context.Context, engine, name string, role Document) (api.Role, error) {
	var r api.Role
	_, err := c.do(ctx, request{method: http.MethodPut, path: []string{"dynamic", "engines", engine, "roles", name}, idempotent: true, body: role}, &r)
	return r, err
}

// UpdateRole changes what is given.
func (c *Client) UpdateRole(ctx context.Context, engine, name string, changes Document) (api.Role, error) {
	var r api.Role
	_, err := c.do(ctx, request{method: http.MethodPatch, path: []string{"dynamic", "engines", engine, "roles", name}, idempotent: true, body: changes}, &r)
	return r, err
}

// DeleteRole removes a role; force and pending as in DeleteEngine.
func (c *Client) DeleteRole(ctx context.Context, engine, name string, force bool) (pending bool, err error) {
	return c.remove(ctx, force, "dynamic", "engines", engine, "roles", name)
}

// TestRole issues, verifies and revokes one credential and reports each step.
func (c *Client) TestRole(ctx context.Context, engine, name string) (api.RoleTest, error) {
	var test api.RoleTest
	_, err := c.do(ctx, request{method: http.MethodPost, path: []string{"dynamic", "engines", engine, "roles", name, "test"}}, &test)
	return test, err
}

// remove deletes an object; 202 says that it goes when its last lease is dead.
func (c *Client) remove(ctx context.Context, force bool, path ...string) (pending bool, err error) {
	status, err := c.do(ctx, request{
		method: http.MethodDelete, path: path, idempotent: true, query: query("force", flag(force)),
	}, nil)
	return status == http.StatusAccepted, err
}
