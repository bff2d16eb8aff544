package mongodb

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// role is the engine's part of a role: what its users may do. Where it has privileges of its own, a
// role at the source holds all of it, and its users get that one.
type role struct {
	Database   string      `json:"database"` // in which users are, and against which they log in
	Roles      []grant     `json:"roles"`
	Privileges []privilege `json:"privileges"`
}

// privilege is what MongoDB calls so: actions on a resource.
type privilege struct {
	Resource resource `json:"resource" bson:"resource"`
	Actions  []string `json:"actions" bson:"actions"`
}

// resource is a database, or one collection or all, or the cluster.
type resource struct {
	Database   *string `json:"db" bson:"db,omitempty"`
	Collection *string `json:"collection" bson:"collection,omitempty"`
	Cluster    bool    `json:"cluster" bson:"cluster,omitempty"`
	Any        bool    `json:"anyResource" bson:"anyResource,omitempty"`
}

// parseRole decodes and checks a role. Which roles and actions there are, the source is asked when the
// role is saved.
func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{Database: adminDB}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	if why := badDatabase(r.Database); why != "" {
		return nil, engine.Invalid("database %s", why)
	}
	if len(r.Roles)+len(r.Privileges) == 0 {
		return nil, engine.Invalid(`roles and privileges give nothing: name at least one role, such as [{"role": "read", "db": "app"}]`)
	}
	for i, g := range r.Roles {
		if why := badGrant(g); why != "" {
			return nil, engine.Invalid("roles: entry %d, %.60q, %s", i+1, g.Role, why)
		}
	}
	if i := slices.IndexFunc(r.Roles, func(g grant) bool { return g.Database != r.Database }); i >= 0 && len(r.Privileges) > 0 && r.Database != adminDB {
		return nil, engine.Invalid("roles: entry %d, %.60q, is outside of database %s: together with privileges it would be inherited, which MongoDB allows across databases only in admin", i+1, r.Roles[i].Role, r.Database)
	}
	for i, p := range r.Privileges {
		if why := badPrivilege(p, r.Database); why != "" {
			return nil, engine.Invalid("privileges: entry %d %s", i+1, why)
		}
	}
	return r, nil
}

func badGrant(g grant) string {
	switch {
	case g.Role == "":
		return `names no role: write {"role": "read", "db": "app"}`
	case strings.ContainsRune(g.Role, 0):
		return "holds a NUL"
	case g.Database == "":
		return `lacks db, the database of the role: write {"role": "read", "db": "app"}`
	case badDatabase(g.Database) != "":
		return "names a database that " + badDatabase(g.Database)
	case g.Role == "__system":
		return "is the members' own role, which no user should have"
	case strings.HasPrefix(g.Role, fencePrefix), strings.HasPrefix(g.Role, identityPrefix), strings.HasPrefix(g.Role, bundlePrefix):
		return "is a role of ScaiVault's own"
	}
	return ""
}

func badPrivilege(p privilege, home string) string {
	r := p.Resource
	named := r.Database != nil || r.Collection != nil
	switch {
	case len(p.Actions) == 0:
		return `has no actions: write {"resource": {"db": "app", "collection": "orders"}, "actions": ["find"]}`
	case slices.ContainsFunc(p.Actions, badAction):
		return "has an action that is none: they are words such as find or insert"
	case r.Any:
		return "is of anyResource, which MongoDB keeps for itself"
	case r.Cluster && named, !r.Cluster && (r.Database == nil || r.Collection == nil):
		return `has a resource that is neither {"db": …, "collection": …}, where "" stands for all, nor {"cluster": true}`
	case !r.Cluster && *r.Database != "" && badDatabase(*r.Database) != "":
		return "names a database that " + badDatabase(*r.Database)
	case !r.Cluster && strings.ContainsRune(*r.Collection, 0):
		return "names a collection that holds a NUL"
	case home != adminDB && (r.Cluster || *r.Database != home):
		return "is outside of database " + home + ": roles that are not in admin have privileges in their own database only"
	}
	return ""
}

func badAction(action string) bool {
	return action == "" || strings.Trim(action, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != ""
}

// bundlePrefix begins the names of roles that hold what a ScaiVault role grants.
const bundlePrefix = "scaivault-role-"

// bundle is the role at the source that holds what a role grants; zero where it has no privileges of its
// own. Its name tells its content, so that an edited role gets another one.
func (e *Engine) bundle(roleName string, r *role) grant {
	if len(r.Privileges) == 0 {
		return grant{}
	}
	content, err := bson.Marshal(struct {
		Roles      []grant
		Privileges []privilege
	}{r.Roles, r.Privileges})
	if err != nil {
		panic(err) // it was decoded from JSON
	}
	sum := sha256.Sum256(content)
	id := e.options.EngineID[max(0, len(e.options.EngineID)-10):]
	return grant{e.options.Namer.Mark(bundlePrefix + id + "-" + roleName + "-" + hex.EncodeToString(sum[:8])), r.Database}
}
