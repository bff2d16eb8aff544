package azure

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// apiVersion of Microsoft.Authorization: the one that is stable.
const apiVersion = "2022-04-01"

const authorization = "/providers/Microsoft.Authorization/"

// definition is a role definition of Azure.
type definition struct {
	ID         string `json:"id"`   // its path
	Name       string `json:"name"` // a GUID
	Properties struct {
		RoleName    string `json:"roleName"`
		Permissions []struct {
			Actions    []string `json:"actions"`
			NotActions []string `json:"notActions"`
		} `json:"permissions"`
	} `json:"properties"`
}

// assignment is a role assignment of Azure.
type assignment struct {
	ID         string `json:"id"` // its path
	Properties struct {
		RoleDefinitionID string `json:"roleDefinitionId"`
		PrincipalID      string `json:"principalId"`
		Scope            string `json:"scope"`
	} `json:"properties"`
}

// grantAssignments is what root needs to give roles at a scope.
func grantAssignments(scope string) string {
	return `the role "Role Based Access Control Administrator" at ` + scope
}

func (c *client) definitionByID(ctx context.Context, scope, id string) (d definition, err error) {
	err = c.do(ctx, request{
		attempt: "look a role of Azure up", to: arm, method: http.MethodGet,
		path: at(scope+authorization+"roleDefinitions/"+id, "api-version", apiVersion), grant: grantAssignments(scope),
	}, &d)
	return d, err
}

func (c *client) definitionsNamed(ctx context.Context, scope, name string) ([]definition, error) {
	return list[definition](ctx, c, request{
		attempt: "look a role of Azure up", to: arm, grant: grantAssignments(scope),
		path: at(scope+authorization+"roleDefinitions", "api-version", apiVersion, "$filter", "roleName eq "+quoted(name)),
	})
}

// assign gives a principal a role at a scope. The assignment's path is decided before, so that it can be
// repeated and taken back by the path alone.
func (c *client) assign(ctx context.Context, path, definition, principal string) error {
	scope, _, _ := strings.Cut(path, authorization)
	return eventually(ctx, func() error {
		return c.do(ctx, request{
			attempt: issuing + ": assign a role at " + scope, to: arm, method: http.MethodPut, path: at(path, "api-version", apiVersion), grant: grantAssignments(scope),
			body: map[string]any{"properties": map[string]any{
				"roleDefinitionId": definition, "principalId": principal, "principalType": "ServicePrincipal",
			}},
		}, nil)
	}, func(err error) bool { // the principal is not known to Azure Resource Manager yet
		var a *answer
		return errors.As(err, &a) && a.code == "PrincipalNotFound"
	})
}

// unassign takes a role back; one that is gone is taken back.
func (c *client) unassign(ctx context.Context, path string) error {
	scope, _, _ := strings.Cut(path, authorization)
	err := c.do(ctx, request{
		attempt: "take a role back at " + scope, to: arm, method: http.MethodDelete, path: at(path, "api-version", apiVersion), grant: grantAssignments(scope),
	}, nil)
	if notFound(err) {
		return nil
	}
	return err
}

// assignmentsOf are all that a principal has in a subscription: at it, above and below. With groups,
// those that it has by its memberships, too.
func (c *client) assignmentsOf(ctx context.Context, scope, principal string, withGroups bool) ([]assignment, error) {
	filter := "principalId eq " + quoted(principal)
	if withGroups {
		filter = "assignedTo(" + quoted(principal) + ")"
	}
	return list[assignment](ctx, c, request{
		attempt: "look for role assignments", to: arm, grant: grantAssignments(scope),
		path: at(scope+authorization+"roleAssignments", "api-version", apiVersion, "$filter", filter),
	})
}
