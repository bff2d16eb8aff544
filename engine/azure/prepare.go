package azure

import (
	"context"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
)

// PrepareRole implements engine.RolePreparer. Every name is looked up, and whether root may do what the
// role asks for.
func (e *Engine) PrepareRole(ctx context.Context, _ string, er engine.Role) ([]string, error) {
	r, ok := er.(*role)
	if !ok {
		return nil, misconfigured("try the role: it is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	warnings, err := e.prepare(ctx, r)
	if err != nil {
		return nil, plainRole(asked("try the role", err))
	}
	e.demand(r)
	return warnings, nil
}

// plainRole makes what cannot work the role's fault.
func plainRole(err error) error {
	if known := mapped("try the role", err); known.Kind == engine.Refused {
		return misconfigured(known.Reason, known.Err)
	}
	return err
}

func (e *Engine) prepare(ctx context.Context, r *role) (warnings []string, err error) {
	if r.ApplicationObjectID != "" {
		return e.prepareExisting(ctx, r.ApplicationObjectID)
	}
	if !r.PermanentlyDelete {
		warnings = append(warnings, "applications of this role stay in the recycle bin for 30 days, and Microsoft lets an application that is no administrator make 250 objects, those counted: two a credential. Set permanently_delete where there are many")
	}
	for _, a := range r.AzureRoles {
		d, err := e.definitionOf(ctx, a)
		if err != nil {
			return nil, err
		}
		if d.allows(assignmentsWrite) {
			warnings = append(warnings, "credentials of this role may give roles to others ("+d.Properties.RoleName+"), which live on when the credential is revoked")
		}
	}
	for _, group := range r.AzureGroups {
		g, err := e.groupOf(ctx, group)
		switch {
		case err != nil:
			return nil, err
		case slices.Contains(g.Types, "DynamicMembership"):
			return nil, refused("azure_groups: the members of " + quoted(group) + " are found by a rule: nobody can be added")
		case g.Synced != nil && *g.Synced:
			return nil, refused("azure_groups: " + quoted(group) + " comes from another directory: nobody can be added here")
		case g.RoleBearing != nil && *g.RoleBearing:
			warnings = append(warnings, "group "+quoted(group)+" may bear roles of Microsoft Entra ID: root needs the application permission RoleManagement.ReadWrite.Directory to add members, which makes it an administrator of the tenant")
		}
	}
	return warnings, nil
}

// prepareExisting looks whether root may give an application passwords.
func (e *Engine) prepareExisting(ctx context.Context, id string) ([]string, error) {
	a, err := e.client.application(ctx, id)
	if notFound(err) {
		return nil, refused("application_object_id: there is no application " + id + "; its object id is wanted, not its application (client) id")
	} else if err != nil {
		return nil, err
	}
	if err := e.mayUse(a); err != nil {
		return nil, err
	}
	owns, err := e.mayChange(ctx, a.ID)
	if err != nil || owns {
		return nil, err
	}
	return nil, misconfigured("application_object_id: root may not change the application: "+ownerCommand(a.ID, e.rootClientID()), nil)
}

// mayChange tells whether root may change an application: any, or this one because it owns it.
func (e *Engine) mayChange(ctx context.Context, applicationID string) (bool, error) {
	names, known, err := e.client.permissions(ctx)
	if err != nil || !known || slices.Contains(names, permitAll) {
		return true, err
	}
	principal, err := e.client.principal(ctx, e.rootClientID())
	if err != nil {
		return false, err
	}
	owners, err := e.client.owners(ctx, applicationID)
	return slices.Contains(owners, principal), err
}

func (e *Engine) rootClientID() string {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	return e.client.root.clientID
}

// ownerCommand makes root an owner of an application.
func ownerCommand(applicationID, rootClientID string) string {
	return "az ad app owner add --id " + applicationID + ` --owner-object-id "$(az ad sp show --id ` + rootClientID + ` --query id --output tsv)"`
}

const (
	assignmentsWrite  = "Microsoft.Authorization/roleAssignments/write"
	assignmentsDelete = "Microsoft.Authorization/roleAssignments/delete"
	assignmentsRead   = "Microsoft.Authorization/roleAssignments/read"
	definitionsRead   = "Microsoft.Authorization/roleDefinitions/read"
)

// allows tells whether a role definition allows an action.
func (d definition) allows(action string) bool {
	for _, p := range d.Properties.Permissions {
		covered := func(pattern string) bool { return covers(pattern, action) }
		if slices.ContainsFunc(p.Actions, covered) && !slices.ContainsFunc(p.NotActions, covered) {
			return true
		}
	}
	return false
}

// covers tells whether a pattern of Azure, in which * stands for anything, names an action.
func covers(pattern, action string) bool {
	parts := strings.Split(strings.ToLower(pattern), "*")
	rest, ok := strings.CutPrefix(strings.ToLower(action), parts[0])
	for _, part := range parts[1:] {
		if !ok {
			return false
		}
		at := strings.Index(rest, part)
		if at < 0 {
			return false
		}
		rest = rest[at+len(part):]
	}
	return ok && (rest == "" || strings.HasSuffix(pattern, "*"))
}
