package mongotest

import (
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// privilege is actions on a resource.
type privilege struct {
	on      resource
	actions []string
}

// resource is a collection, of all where the name is empty; or the cluster; or anything.
type resource struct {
	cluster, any         bool
	database, collection string
}

var cluster = resource{cluster: true}

func inDatabase(name string) resource { return resource{database: name} }

func (r resource) covers(other resource) bool {
	switch {
	case r.any:
		return true
	case r.cluster || other.cluster:
		return r.cluster && other.cluster
	}
	return (r.database == "" || r.database == other.database) && (r.collection == "" || r.collection == other.collection)
}

func (r resource) document() bson.D {
	switch {
	case r.any:
		return bson.D{{Key: "anyResource", Value: true}}
	case r.cluster:
		return bson.D{{Key: "cluster", Value: true}}
	}
	return bson.D{{Key: "db", Value: r.database}, {Key: "collection", Value: r.collection}}
}

func (p privilege) document() bson.D {
	return bson.D{{Key: "resource", Value: p.on.document()}, {Key: "actions", Value: p.actions}}
}

// The actions of the roles that MongoDB brings, as far as anything here asks for them.
var (
	reading       = []string{"find", "listCollections", "listIndexes", "killCursors"}
	writing       = append([]string{"insert", "update", "remove", "createCollection", "createIndex", "dropCollection"}, reading...)
	administering = []string{"changeCustomData", "changePassword", "createRole", "createUser", "dropRole", "dropUser", "grantRole", "revokeRole", "viewRole", "viewUser"}
	monitoring    = []string{"inprog", "serverStatus", "replSetGetStatus", "listDatabases"}
)

// builtIn are the privileges of a role that MongoDB brings; ok is false for what is none.
func builtIn(n name) (ps []privilege, ok bool) {
	switch n.Name {
	case "read":
		return []privilege{{inDatabase(n.Database), reading}}, true
	case "readWrite":
		return []privilege{{inDatabase(n.Database), writing}}, true
	case "userAdmin":
		return []privilege{{inDatabase(n.Database), administering}}, true
	case "dbOwner":
		return []privilege{{inDatabase(n.Database), slices.Concat(writing, administering)}}, true
	}
	if n.Database != adminDB {
		return nil, false
	}
	switch n.Name {
	case "readAnyDatabase":
		return []privilege{{inDatabase(""), reading}}, true
	case "readWriteAnyDatabase":
		return []privilege{{inDatabase(""), writing}}, true
	case "userAdminAnyDatabase":
		return []privilege{{inDatabase(""), administering}, {cluster, []string{"listDatabases", "authSchemaUpgrade", "invalidateUserCache", "viewUser"}}}, true
	case "clusterMonitor":
		return []privilege{{cluster, monitoring}, {inDatabase("config"), reading}}, true
	case "hostManager":
		return []privilege{{cluster, []string{"killop", "killAnySession", "invalidateUserCache"}}}, true
	case "root":
		return []privilege{{resource{any: true}, []string{"anyAction"}}}, true
	}
	return nil, false
}

// exists tells whether there is a role.
func (s *state) exists(n name) bool {
	if _, ok := builtIn(n); ok {
		return true
	}
	_, ok := s.roles[n]
	return ok
}

// privileges are those of roles, with what these inherit.
func (s *state) privileges(roles []name) []privilege {
	var all []privilege
	seen := map[name]bool{}
	for queue := slices.Clone(roles); len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		if seen[n] {
			continue
		}
		seen[n] = true
		if ps, ok := builtIn(n); ok {
			all = append(all, ps...)
			continue
		}
		all = append(all, s.roles[n].privileges...)
		queue = append(queue, s.roles[n].roles...)
	}
	return all
}

func allowed(held []privilege, wanted privilege) bool {
	return !slices.ContainsFunc(wanted.actions, func(action string) bool {
		return !slices.ContainsFunc(held, func(p privilege) bool {
			return p.on.covers(wanted.on) && (slices.Contains(p.actions, action) || slices.Contains(p.actions, "anyAction"))
		})
	})
}

// judge refuses what a mongod would: commands without a login, of users that are gone, without a right,
// and writes that are sent to a secondary.
func (c *conn) judge(cmd command) *serverError {
	switch strings.ToLower(cmd.name) {
	case "hello", "ismaster", "saslstart", "saslcontinue", "buildinfo", "ping":
		return nil
	}
	u, there := c.member.user(c.as)
	if !c.loggedIn || !there || u.id != c.id {
		return unauthorized("Command " + cmd.name + " requires authentication")
	}
	needs, known := needed[cmd.name]
	if !known {
		return unknown(cmd)
	}
	if needs != nil {
		held := c.member.sees().privileges(u.roles)
		for _, p := range needs(c, cmd) {
			if !allowed(held, p) {
				return unauthorized("not authorized on " + cmd.database + " to execute command { " + cmd.name + ": … }: it needs " + strings.Join(p.actions, ", "))
			}
		}
	}
	if writes[cmd.name] && !c.member.isPrimary() {
		return errNotPrimary
	}
	return nil
}

func unknown(cmd command) *serverError {
	return &serverError{59, "CommandNotFound", "no such command: '" + cmd.name + "'"}
}

var writes = map[string]bool{
	"createUser": true, "updateUser": true, "dropUser": true, "createRole": true, "dropRole": true, "updateRole": true, "grantRolesToUser": true, "grantPrivilegesToRole": true,
	"insert": true, "update": true, "delete": true, "create": true, "drop": true,
}

// needed are the rights that each command needs; nil for none. What is not here is not known here.
var needed = map[string]func(c *conn, cmd command) []privilege{
	"connectionStatus": nil, "endSessions": nil, "logout": nil, "whatsmyuri": nil, "atlasVersion": nil, "getMore": nil, "killCursors": nil,
	"find":      onCollection("find"),
	"count":     onCollection("find"),
	"insert":    onCollection("insert"),
	"update":    onCollection("update"),
	"delete":    onCollection("remove"),
	"create":    onCollection("createCollection"),
	"drop":      onCollection("dropCollection"),
	"aggregate": aggregateRights,

	"createUser": func(_ *conn, cmd command) []privilege {
		return append(grants(rolesIn(cmd)), privilege{inDatabase(cmd.database), []string{"createUser"}})
	},
	"updateUser":            updateRights,
	"dropUser":              onDatabase("dropUser"),
	"usersInfo":             usersRights,
	"createRole":            createRoleRights,
	"grantPrivilegesToRole": createRoleRights,
	"updateRole":            createRoleRights,
	"dropRole":              onDatabase("dropRole"),
	"rolesInfo":             rolesRights,
	"grantRolesToUser": func(_ *conn, cmd command) []privilege {
		return grants(rolesIn(cmd))
	},
	"killAllSessionsByPattern": onCluster("killAnySession"),
	"killOp":                   onCluster("killop"),
	"invalidateUserCache":      onCluster("invalidateUserCache"),
	"serverStatus":             onCluster("serverStatus"),
}

func onCollection(action string) func(*conn, command) []privilege {
	return func(_ *conn, cmd command) []privilege {
		return []privilege{{resource{database: cmd.database, collection: cmd.text()}, []string{action}}}
	}
}

func onDatabase(action string) func(*conn, command) []privilege {
	return func(_ *conn, cmd command) []privilege {
		return []privilege{{inDatabase(cmd.database), []string{action}}}
	}
}

func onCluster(action string) func(*conn, command) []privilege {
	return func(*conn, command) []privilege { return []privilege{{cluster, []string{action}}} }
}

// grants are what is needed to give roles away.
func grants(roles []name) []privilege {
	var all []privilege
	for _, n := range roles {
		all = append(all, privilege{inDatabase(n.Database), []string{"grantRole"}})
	}
	return all
}

func aggregateRights(_ *conn, cmd command) []privilege {
	if cmd.text() != "" {
		return []privilege{{resource{database: cmd.database, collection: cmd.text()}, []string{"find"}}}
	}
	return []privilege{{cluster, []string{"inprog"}}}
}

func updateRights(c *conn, cmd command) []privilege {
	var all []privilege
	if cmd.field("pwd") != nil && (name{cmd.text(), cmd.database}) != c.as {
		all = append(all, privilege{inDatabase(cmd.database), []string{"changePassword"}})
	}
	if cmd.field("pwd") != nil && (name{cmd.text(), cmd.database}) == c.as {
		all = append(all, privilege{inDatabase(cmd.database), []string{"changeOwnPassword"}})
	}
	return append(all, grants(rolesIn(cmd))...)
}

// usersRights: all users of all databases are seen with a right on the cluster; everybody sees himself.
func usersRights(c *conn, cmd command) []privilege {
	if d, ok := cmd.fields[0].Value.(bson.D); ok && d[0].Key == "forAllDBs" {
		return []privilege{{cluster, []string{"viewUser"}}}
	}
	wanted, all := selected(cmd, "user")
	if all {
		wanted = []name{{"", cmd.database}}
	}
	var needs []privilege
	for _, n := range wanted {
		if n != c.as {
			needs = append(needs, privilege{inDatabase(n.Database), []string{"viewUser"}})
		}
	}
	return needs
}

func rolesRights(_ *conn, cmd command) []privilege {
	wanted, all := selected(cmd, "role")
	if all {
		wanted = []name{{"", cmd.database}}
	}
	var needs []privilege
	for _, n := range wanted {
		needs = append(needs, privilege{inDatabase(n.Database), []string{"viewRole"}})
	}
	return needs
}

func createRoleRights(_ *conn, cmd command) []privilege {
	needs := append(grants(rolesIn(cmd)), privilege{inDatabase(cmd.database), []string{"createRole"}})
	for _, p := range readPrivileges(cmd) {
		if p.on.database != "" {
			needs = append(needs, privilege{inDatabase(p.on.database), []string{"grantRole"}})
		} else {
			needs = append(needs, privilege{inDatabase(adminDB), []string{"grantRole"}})
		}
	}
	return needs
}
