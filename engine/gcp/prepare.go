package gcp

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// need is what roles need on a resource.
type need struct {
	of          resource
	permissions []string
}

// What the permissions of a resource's policy end with.
const (
	getPolicy = ".getIamPolicy"
	setPolicy = ".setIamPolicy"
)

// fullAccount is how many keys make an account worth a warning.
const fullAccount = maxKeys - 2

var (
	keyPermissions     = []string{"iam.serviceAccountKeys.create", "iam.serviceAccountKeys.delete", "iam.serviceAccountKeys.get", "iam.serviceAccountKeys.list", "iam.serviceAccounts.get"}
	accountPermissions = []string{"iam.serviceAccounts.create", "iam.serviceAccounts.delete", "iam.serviceAccounts.get"}
	tokenPermission    = "iam.serviceAccounts.getAccessToken"
)

// needsOf are the permissions that the credentials of a role need, by resource. An account that is
// not made yet takes them from its project.
func (e *Engine) needsOf(r *role) []need {
	var needs []need
	add := func(name string, permissions ...string) {
		if of, ok := resourceOf(name); ok {
			needs = append(needs, need{of, permissions})
		}
	}
	credential := keyPermissions
	if r.CredentialType == tokenCredential {
		credential = []string{tokenPermission}
	}
	if r.Account != "" {
		add(accountOf(r.Account).path(), credential...)
		return needs
	}
	add("projects/"+e.config.Project, slices.Concat(accountPermissions, credential)...)
	for _, b := range r.Bindings {
		if of, ok := resourceOf(b.Resource); ok {
			add(b.Resource, of.permission+getPolicy, of.permission+setPolicy)
		}
	}
	return needs
}

// remember keeps what a role needs for the next look at the source's health.
func (e *Engine) remember(wish *role) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.needsOf(wish) {
		known := e.needs[n.of.name]
		known.of = n.of
		for _, p := range n.permissions {
			if !slices.Contains(known.permissions, p) {
				known.permissions = append(known.permissions, p)
			}
		}
		e.needs[n.of.name] = known
	}
}

// missing are the permissions that root lacks on a resource.
func (e *Engine) missing(ctx context.Context, attempt string, n need) ([]string, error) {
	var has struct {
		Permissions []string `json:"permissions"`
	}
	c := call{attempt: attempt, method: http.MethodPost, url: e.policyURL(n.of, "testIamPermissions"),
		in: map[string][]string{"permissions": n.permissions}, out: &has, lane: engine.Revoking, repeatable: true}
	if err := e.do(ctx, c); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(n.permissions), func(p string) bool { return slices.Contains(has.Permissions, p) }), nil
}

// PrepareRole implements engine.RolePreparer: it finds out whether root can make what the role wants.
func (e *Engine) PrepareRole(ctx context.Context, _ string, wish engine.Role) (warnings []string, err error) {
	const attempt = "try the role"
	r, ok := wish.(*role)
	if !ok {
		return nil, misconfigured(attempt+": it is not one of this engine", nil)
	}
	if r.Account != "" && r.Account == e.rootEmail() {
		return nil, misconfigured(attempt+": "+r.Account+" is the root's own account, whose keys would be keys of the root", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var lacking []string
	for _, n := range e.needsOf(r) {
		missing, err := e.missing(ctx, attempt, n)
		if gone(err) {
			return nil, misconfigured(attempt+": "+n.of.name+" does not exist", nil)
		}
		if err != nil {
			return nil, plain(err)
		}
		if len(missing) > 0 {
			lacking = append(lacking, e.grant(n.of.name, missing))
		}
	}
	if len(lacking) > 0 {
		return nil, misconfigured(attempt+": root lacks permissions: "+strings.Join(lacking, "; "), nil)
	}
	e.remember(r)
	if r.Account == "" || r.CredentialType != keyCredential {
		return nil, nil
	}
	of := accountOf(r.Account)
	all, err := e.managedKeys(ctx, attempt, of, engine.Revoking)
	if err != nil {
		return nil, plain(err)
	}
	if len(all) >= fullAccount {
		warnings = append(warnings, crowded(of.email, len(all)))
	}
	return warnings, nil
}

func crowded(email string, keys int) string {
	return fmt.Sprintf("the account %s has %d keys, and Google allows %d: each credential of the role takes one; set max_leases, delete keys that nobody uses, or use bindings or access_token", email, keys, maxKeys)
}

// grant is the command that gives root what it lacks. The permissions are for a custom role, since
// Google has none with just these.
func (e *Engine) grant(resource string, permissions []string) string {
	return fmt.Sprintf("give the custom role of %s %s on %s: gcloud iam roles update scaivault --project %s --add-permissions %s",
		cmp.Or(e.rootEmail(), "the root"), strings.Join(permissions, ", "), resource, e.config.Project, strings.Join(permissions, ","))
}

// rootEmail is the account of the root; empty for a federation that has none.
func (e *Engine) rootEmail() string { return e.tokens.of().email }
