package access

import (
	"regexp"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// The types of identities, as callers and bindings name them.
const (
	TypeUser           = "user"
	TypeServiceAccount = "service_account"
	TypeGroup          = "group"
	TypeSystem         = "system"
)

// User is what is stored of a user; the object's key is the name behind "user:".
type User struct {
	DisplayName string `json:"display_name"`
}

// ServiceAccount is what is stored of one; the object's id is the client id, its key the name.
type ServiceAccount struct {
	SecretHash []byte   `json:"secret_hash"`
	Scopes     []string `json:"scopes"`
}

var (
	namePattern     = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	outsiderPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}$`) // users and groups: another directory's names
)

// ValidName tells whether s may name a policy or a service account.
func ValidName(s string) bool { return namePattern.MatchString(s) }

// identityType is the type that an identity's prefix says; "" for none. Dynamic identities, under
// which engines read, are system ones: nobody can authenticate as either.
func identityType(identity string) string {
	kind, _, _ := strings.Cut(identity, ":")
	switch kind {
	case "user":
		return TypeUser
	case "sa":
		return TypeServiceAccount
	case "group":
		return TypeGroup
	case "system", "dynamic":
		return TypeSystem
	default:
		return ""
	}
}

// checkIdentity refuses an identity that is not well formed, or not of its type.
func checkIdentity(kind, identity string) error {
	switch kind {
	case TypeUser, TypeServiceAccount, TypeGroup, TypeSystem:
	default:
		return fault.New(fault.InvalidRequest, "read identity_type: it must be user, service_account, group or system")
	}
	_, name, _ := strings.Cut(identity, ":")
	pattern := namePattern
	if kind == TypeUser || kind == TypeGroup {
		pattern = outsiderPattern
	}
	if identityType(identity) != kind || !pattern.MatchString(name) {
		return fault.New(fault.InvalidRequest,
			"read identity_id: it must be user:NAME, sa:NAME, group:NAME, or, as identity_type system, system:NAME or dynamic:ENGINE, and fit identity_type")
	}
	return nil
}

// Subject is the stored object behind an identity that can authenticate; nil when there is none.
func Subject(cfg *store.Config, tenant, identity string) *store.Object {
	_, name, _ := strings.Cut(identity, ":")
	if kind, ok := subjectKind(identity); ok {
		return cfg.ByKey(tenant, kind, name)
	}
	return nil
}

// Owner is whom a token belongs to; nil when that is gone, though another bears the name since.
func Owner(cfg *store.Config, tenant string, t *Token) *store.Object {
	if kind, ok := subjectKind(t.Identity); ok {
		return cfg.Object(tenant, kind, t.Subject)
	}
	return nil
}

func subjectKind(identity string) (store.Kind, bool) {
	switch identityType(identity) {
	case TypeUser:
		return store.KindUser, true
	case TypeServiceAccount:
		return store.KindServiceAccount, true
	default:
		return "", false
	}
}

// groupsOf are the groups of an identity that do not come with its token.
func groupsOf(identity string) []string {
	if strings.HasPrefix(identity, "dynamic:") {
		return []string{EnginesGroup}
	}
	return nil
}
