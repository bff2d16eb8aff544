package azure

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// rootEndsSoon is how long before its end health warns of the root's password.
const rootEndsSoon = 30 * 24 * time.Hour

// Check implements engine.Engine.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "verified"}
	begun := time.Now()
	there, err := e.client.now(ctx)
	h.Latency = time.Since(begun)
	if err == nil {
		if offset := time.Until(there).Round(time.Second); offset.Abs() > time.Second { // it is told to the second
			h.ClockOffset = offset
		}
		err = e.examine(ctx, &h)
	}
	if err == nil {
		return h
	}
	known := mapped("check the source", err)
	h.Error = known.Reason
	switch known.Kind {
	case engine.Misconfigured, engine.Refused, engine.WrongServer:
		h.Status = "misconfigured"
	default:
		h.Status = "unreachable"
	}
	return h
}

func (e *Engine) examine(ctx context.Context, h *engine.Health) error {
	current, err := e.client.present()
	if err != nil {
		return err
	}
	names, known, err := e.client.permissions(ctx)
	if err != nil {
		return err
	}
	scopes, groups := e.demanded()
	if known {
		h.MissingGrants = append(h.MissingGrants, missingPermissions(names, groups, current.clientID)...)
		if len(h.MissingGrants) > 0 && !slices.Contains(names, permitOwned) && !slices.Contains(names, permitAll) {
			return nil // nothing else can be looked at
		}
	} else {
		h.Warnings = append(h.Warnings, "which application permissions root has cannot be told from its token")
	}
	own, err := e.ownApplication(ctx, current)
	if err != nil {
		return err
	}
	if err := e.examineRoot(ctx, h, current, own, names); err != nil {
		return err
	}
	return e.examineScopes(ctx, h, current, scopes)
}

// missingPermissions are the application permissions that root lacks at Microsoft Graph, each with the
// command that grants it.
func missingPermissions(names []string, groups bool, clientID string) (missing []string) {
	wanted := map[string][]string{permitOwned: {permitOwned, permitAll}}
	if groups {
		wanted[permitGroups] = []string{permitGroups, "Group.ReadWrite.All", "Directory.ReadWrite.All"}
	}
	for _, permission := range []string{permitOwned, permitGroups} {
		enough := wanted[permission]
		if enough != nil && !slices.ContainsFunc(enough, func(p string) bool { return slices.Contains(names, p) }) {
			missing = append(missing, permissionCommand(permission, clientID))
		}
	}
	return missing
}

// permissionIDs are those of Microsoft Graph's app roles, the same in every tenant.
func permissionID(name string) string {
	if name == permitGroups {
		return "dbaae8cf-10b5-4b86-a4a1-f871c94c6695"
	}
	return "18a4783c-866b-4cc7-a460-3d5e5662c884"
}

func permissionCommand(name, clientID string) string {
	return "az ad app permission add --id " + clientID + " --api 00000003-0000-0000-c000-000000000000 --api-permissions " + permissionID(name) +
		"=Role && az ad app permission admin-consent --id " + clientID + " # " + name
}

// examineRoot looks at the root's own application: whether it can be rotated, and when its password ends.
func (e *Engine) examineRoot(ctx context.Context, h *engine.Health, current root, own application, names []string) error {
	switch owns, err := e.mayChange(ctx, own.ID); {
	case err != nil:
		return err
	case !owns:
		h.Warnings = append(h.Warnings, "the root credentials cannot be rotated: "+ownerCommand(own.ID, current.clientID))
	}
	if slices.Contains(names, permitAll) {
		h.Warnings = append(h.Warnings, "root may change every application of the tenant: "+permitOwned+" is enough for those that ScaiVault makes")
	}
	key, err := current.keyIn(own)
	if err != nil {
		h.Warnings = append(h.Warnings, mapped(rotatingRoot, err).Reason)
		return nil
	}
	for _, p := range own.Passwords {
		if p.Key == key && p.Ends != nil && time.Until(*p.Ends) < rootEndsSoon {
			h.Warnings = append(h.Warnings, "the root's password ends at "+p.Ends.UTC().Format(time.RFC3339)+": rotate it before with rotate-root")
		}
	}
	return nil
}

// examineScopes looks whether root may give roles at the scopes that roles have asked for since the start.
func (e *Engine) examineScopes(ctx context.Context, h *engine.Health, current root, scopes []string) error {
	if len(scopes) == 0 {
		return nil
	}
	principal, err := e.client.principal(ctx, current.clientID)
	if err != nil {
		return err
	}
	for _, scope := range scopes {
		allowed, err := e.allowedAt(ctx, scope, principal)
		if err != nil && engine.KindOf(mapped("check the source", err)) != engine.Misconfigured {
			return err
		}
		for _, action := range []string{assignmentsRead, assignmentsWrite, assignmentsDelete, definitionsRead} {
			if err != nil || !slices.ContainsFunc(allowed, func(d definition) bool { return d.allows(action) }) {
				h.MissingGrants = append(h.MissingGrants, `az role assignment create --assignee-object-id `+principal+
					` --assignee-principal-type ServicePrincipal --role "Role Based Access Control Administrator" --scope `+scope)
				break
			}
		}
	}
	return nil
}

// allowedAt are the role definitions that root has at a scope, by itself or by a group.
func (e *Engine) allowedAt(ctx context.Context, scope, principal string) ([]definition, error) {
	given, err := e.client.assignmentsOf(ctx, scope, principal, true)
	if err != nil {
		return nil, err
	}
	var all []definition
	for _, a := range given {
		if !within(scope, a.Properties.Scope) {
			continue // below it
		}
		id := a.Properties.RoleDefinitionID
		d, err := e.client.definitionByID(ctx, scope, id[strings.LastIndexByte(id, '/')+1:])
		if err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, nil
}

// within tells whether what is given at a scope holds at another one. Of a management group the path does
// not tell: Azure lists what is above.
func within(scope, given string) bool {
	scope, given = strings.ToLower(scope), strings.ToLower(strings.TrimSuffix(given, "/"))
	return given == "" || scope == given || strings.HasPrefix(scope, given+"/") || strings.HasPrefix(given, "/providers/microsoft.management/")
}
