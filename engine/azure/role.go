package azure

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode"

	"github.com/scaivault/scaivault/engine"
)

const (
	maxGrants   = 32  // roles, and groups, of one role of ours: each is a request per credential
	maxNameRune = 128 // of a role or a group at Azure, where 256 is the most; people read them
)

// role is the engine's part of a role: what a new application of its own may do, or the existing one
// that gets one more password.
type role struct {
	AzureRoles          []azureRole `json:"azure_roles"`
	AzureGroups         []string    `json:"azure_groups"` // object ids or display names
	ApplicationObjectID string      `json:"application_object_id"`
	PermanentlyDelete   bool        `json:"permanently_delete"`
}

// azureRole is a role definition of Azure, by its name or its id, at a scope.
type azureRole struct {
	RoleName string `json:"role_name"`
	RoleID   string `json:"role_id"`
	Scope    string `json:"scope"`
}

// Bounds implements engine.Bounded: no password of Azure gets another end, and a new one cannot be
// handed to who has the former.
func (*role) Bounds() engine.Bounds { return engine.Bounds{Fixed: true} }

// parseRole decodes and checks a role. What only Azure knows it is asked when the role is saved.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	existing, grants := r.ApplicationObjectID != "", len(r.AzureRoles)+len(r.AzureGroups) > 0
	if err := (engine.Rules{
		{existing && grants, "application_object_id stands alone: what an existing application may do is not changed by azure_roles or azure_groups"},
		{!existing && !grants, "the role gives nothing: name azure_roles, azure_groups, or an application_object_id"},
		{existing && !guid(r.ApplicationObjectID), "application_object_id is no object id of the form 00000000-0000-0000-0000-000000000000, in lower case"},
		{existing && r.PermanentlyDelete, "permanently_delete is for applications that ScaiVault makes: an existing one is never deleted"},
		{len(r.AzureRoles) > maxGrants, "azure_roles are more than 32"},
		{len(r.AzureGroups) > maxGrants, "azure_groups are more than 32"},
	}).Check(); err != nil {
		return nil, err
	}
	for i := range r.AzureRoles {
		if why := r.AzureRoles[i].check(); why != "" {
			return nil, engine.Invalid("azure_roles: entry %d: %s", i+1, why)
		}
	}
	for i, group := range r.AzureGroups {
		if !readable(group) {
			return nil, engine.Invalid("azure_groups: entry %d is neither an object id nor a display name", i+1)
		}
	}
	return r, nil
}

// check answers what is wrong; empty if nothing is. After it RoleID is the id alone.
func (a *azureRole) check() string {
	a.RoleID = a.RoleID[strings.LastIndex(a.RoleID, "/roleDefinitions/")+1:]
	a.RoleID = strings.TrimPrefix(a.RoleID, "roleDefinitions/")
	switch {
	case (a.RoleName == "") == (a.RoleID == ""):
		return "give either role_name or role_id"
	case a.RoleID != "" && !guid(a.RoleID):
		return "role_id is neither an id of the form 00000000-0000-0000-0000-000000000000, in lower case, nor a path that ends in /roleDefinitions/ and one"
	case a.RoleName != "" && !readable(a.RoleName):
		return "role_name is no name"
	case a.Scope != "" && !scopeForm(a.Scope):
		return "scope is none of /subscriptions/ID, /subscriptions/ID/resourceGroups/NAME, that with /providers/NAMESPACE/TYPE/NAME after it, and /providers/Microsoft.Management/managementGroups/NAME"
	}
	return ""
}

func readable(name string) bool {
	return name != "" && len(name) <= maxNameRune && strings.TrimSpace(name) == name &&
		strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

var (
	groupForm    = regexp.MustCompile(`^[A-Za-z0-9_()-]([A-Za-z0-9._()-]{0,88}[A-Za-z0-9_()-])?$`)
	providerForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{0,63}(\.[A-Za-z][A-Za-z0-9]{0,63}){1,4}$`)
	segmentForm  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?$`)
)

// scopeForm tells whether a scope is one that Azure has, in the one spelling of its words. It becomes
// part of a path: no segment can be empty, or lead elsewhere.
func scopeForm(scope string) bool {
	rest, ok := strings.CutPrefix(scope, "/")
	if !ok || len(scope) > 1024 {
		return false
	}
	s := strings.Split(rest, "/")
	if len(s) == 4 && s[0] == "providers" && s[1] == "Microsoft.Management" && s[2] == "managementGroups" {
		return groupForm.MatchString(s[3])
	}
	if len(s) < 2 || s[0] != "subscriptions" || !guid(s[1]) {
		return false
	}
	if s = s[2:]; len(s) == 0 {
		return true
	}
	if len(s) < 2 || s[0] != "resourceGroups" || !groupForm.MatchString(s[1]) {
		return false
	}
	if s = s[2:]; len(s) == 0 {
		return true
	}
	if len(s) < 4 || len(s)%2 != 0 || s[0] != "providers" || !providerForm.MatchString(s[1]) {
		return false
	}
	for _, segment := range s[2:] {
		if !segmentForm.MatchString(segment) {
			return false
		}
	}
	return true
}
