package mongodb

import (
	"context"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// PrepareRole implements engine.RolePreparer. The source is asked whether it has the roles, and whether
// root may grant them; where the role has privileges of its own, the role that holds them is made.
func (e *Engine) PrepareRole(ctx context.Context, roleName string, er engine.Role) ([]string, error) {
	const attempt = "try the role"
	r, ok := er.(*role)
	if !ok {
		return nil, misconfigured(attempt+": the role is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return nil, err
	}
	held, err := s.privileges(ctx)
	if err != nil {
		return nil, plain(err)
	}
	for _, right := range r.rights() {
		if !held.have(right) {
			return nil, misconfigured(attempt+": root lacks a right: run "+right.statement(), nil)
		}
	}
	there, err := e.recognise(ctx, s, attempt, r.Roles...)
	if err != nil {
		return nil, plain(err)
	}
	for _, g := range r.Roles {
		if !there[g] {
			return nil, misconfigured("roles: there is no role "+g.Role+" in database "+g.Database, nil)
		}
	}
	if bundle := e.bundle(roleName, r); bundle.Role != "" {
		if err := s.makeRole(ctx, bundle, r.Privileges, r.Roles); err != nil {
			return nil, sentError("privileges", err)
		}
	}
	if r.outlives() {
		return []string{"credentials of this role may make users of their own, who live on when the credential is revoked: give them roles without user administration"}, nil
	}
	return nil, nil
}

// rights are what root needs to make users of the role.
func (r *role) rights() []privilege {
	all := []privilege{on(r.Database, userRights...)}
	for _, g := range r.Roles {
		all = append(all, on(g.Database, "grantRole", "viewRole"))
	}
	for _, p := range r.Privileges {
		if !p.Resource.Cluster && *p.Resource.Database != "" {
			all = append(all, on(*p.Resource.Database, "grantRole"))
		}
	}
	return all
}

// outlives tells whether users of the role may make users themselves, which no revocation ends.
func (r *role) outlives() bool {
	return slices.ContainsFunc(r.Roles, func(g grant) bool {
		return slices.Contains([]string{"userAdmin", "userAdminAnyDatabase", "dbOwner", "root", "restore"}, g.Role)
	}) || slices.ContainsFunc(r.Privileges, func(p privilege) bool {
		return slices.ContainsFunc(p.Actions, func(action string) bool {
			return strings.EqualFold(action, "createUser") || strings.EqualFold(action, "anyAction") || strings.EqualFold(action, "changePassword")
		})
	})
}
