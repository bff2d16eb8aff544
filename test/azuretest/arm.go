package azuretest

import (
	"net/http"
	"strings"
	"time"
)

const (
	authorization   = "/providers/Microsoft.Authorization/"
	roleAssignments = authorization + "roleAssignments/"
	roleDefinitions = authorization + "roleDefinitions/"
)

func (a *assignment) document(s *Server) map[string]any {
	return map[string]any{
		"id": a.path, "name": a.path[strings.LastIndexByte(a.path, '/')+1:], "type": "Microsoft.Authorization/roleAssignments",
		"properties": map[string]any{
			"scope": a.scope, "principalId": a.principal, "principalType": "ServicePrincipal",
			"roleDefinitionId": s.Scope() + roleDefinitions + a.definition,
		},
	}
}

func (s *Server) listAssignments(c *call) {
	if !s.mayAt(c, "Microsoft.Authorization/roleAssignments/read") {
		return
	}
	principal, own := c.filtered("principalId")
	filter := c.r.URL.Query().Get("$filter")
	if rest, ok := strings.CutPrefix(filter, "assignedTo('"); ok {
		principal = strings.TrimSuffix(rest, "')")
	} else if !own {
		c.refuse(http.StatusBadRequest, "UnsupportedQuery", "The filter is not known here.")
		return
	}
	scope := strings.ToLower("/" + c.values["scope"])
	var found []map[string]any
	for _, a := range s.directory.assignments {
		who := a.principal == principal || s.unfiltered
		if g := s.directory.groups[a.principal]; g != nil && !own {
			who = g.members[principal]
		}
		at := strings.ToLower(a.scope)
		if who && (strings.HasPrefix(scope+"/", at+"/") || strings.HasPrefix(at+"/", scope+"/")) {
			found = append(found, a.document(s))
		}
	}
	c.page(found, "nextLink")
}

func (s *Server) putAssignment(c *call) {
	var wanted struct {
		Properties struct {
			RoleDefinitionID string `json:"roleDefinitionId"`
			PrincipalID      string `json:"principalId"`
			PrincipalType    string `json:"principalType"`
		} `json:"properties"`
	}
	if !s.mayAt(c, "Microsoft.Authorization/roleAssignments/write") || !c.read(&wanted) {
		return
	}
	p := s.directory.principals[wanted.Properties.PrincipalID]
	if p == nil || !p.deleted.IsZero() || !s.shown(p.made, p.deleted) {
		c.refuse(http.StatusBadRequest, "PrincipalNotFound", "Principal does not exist in the directory.")
		return
	}
	id := wanted.Properties.RoleDefinitionID
	d := s.directory.definition(id[strings.LastIndexByte(id, '/')+1:])
	if d == nil || wanted.Properties.PrincipalType != "ServicePrincipal" {
		c.refuse(http.StatusBadRequest, "RoleDefinitionDoesNotExist", "The specified role definition does not exist.")
		return
	}
	scope := "/" + c.values["scope"]
	path := scope + roleAssignments + c.values["roleAssignmentName"]
	for other, a := range s.directory.assignments {
		if a.principal == p.id && a.definition == d.id && strings.EqualFold(a.scope, scope) && other != strings.ToLower(path) {
			c.refuse(http.StatusConflict, "RoleAssignmentExists", "The role assignment already exists.")
			return
		}
	}
	a := &assignment{path: path, scope: scope, principal: p.id, definition: d.id}
	s.directory.assignments[strings.ToLower(path)] = a
	c.answer(http.StatusCreated, a.document(s))
}

func (s *Server) deleteAssignment(c *call) {
	if !s.mayAt(c, "Microsoft.Authorization/roleAssignments/delete") {
		return
	}
	path := strings.ToLower("/" + c.values["scope"] + roleAssignments + c.values["roleAssignmentName"])
	a := s.directory.assignments[path]
	if a == nil {
		c.answer(http.StatusNoContent, nil)
		return
	}
	delete(s.directory.assignments, path)
	c.answer(http.StatusOK, a.document(s))
}

func (d *definition) document(s *Server) map[string]any {
	return map[string]any{
		"id": s.Scope() + roleDefinitions + d.id, "name": d.id, "type": "Microsoft.Authorization/roleDefinitions",
		"properties": map[string]any{
			"roleName": d.name, "type": "BuiltInRole", "assignableScopes": []string{"/"},
			"permissions": []map[string]any{{"actions": listOf(d.actions), "notActions": listOf(d.notActions)}},
		},
	}
}

func (s *Server) listDefinitions(c *call) {
	if !s.mayAt(c, "Microsoft.Authorization/roleDefinitions/read") {
		return
	}
	name, ok := c.filtered("roleName")
	if !ok {
		c.refuse(http.StatusBadRequest, "UnsupportedQuery", "The filter is not known here.")
		return
	}
	var found []map[string]any
	if d := s.directory.definitionNamed(name); d != nil {
		found = append(found, d.document(s))
	}
	c.page(found, "nextLink")
}

func (s *Server) getDefinition(c *call) {
	if !s.mayAt(c, "Microsoft.Authorization/roleDefinitions/read") {
		return
	}
	if d := s.directory.definition(c.values["roleDefinitionId"]); d != nil {
		c.answer(http.StatusOK, d.document(s))
		return
	}
	c.refuse(http.StatusNotFound, "RoleDefinitionDoesNotExist", "The specified role definition does not exist.")
}

// getResourceGroup is what credentials read to show that they work. It is in none of the documents.
func (s *Server) getResourceGroup(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	who := s.caller(r, true)
	switch {
	case who == nil:
		refuse(w, http.StatusUnauthorized, "InvalidAuthenticationToken", "The token is not valid.")
	case !s.directory.allowed(who.principal, r.URL.Path, "Microsoft.Resources/subscriptions/resourceGroups/read"):
		refuse(w, http.StatusForbidden, "AuthorizationFailed", "The client does not have authorization.")
	default:
		answer(w, http.StatusOK, map[string]any{"id": r.URL.Path, "properties": map[string]any{"provisioningState": "Succeeded"}, "at": s.now().Format(time.RFC3339)})
	}
}
