package mongotest

import (
	"maps"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func createRole(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	list, isList := cmd.field("privileges").(bson.A)
	if _, ok := cmd.field("roles").(bson.A); !ok || !isList {
		return nil, badValue("privileges and roles must be arrays")
	}
	if w.state.exists(n) {
		return nil, &serverError{51002, "Location51002", "Role \"" + n.Name + "@" + n.Database + "\" already exists"}
	}
	made := roleRecord{roles: rolesIn(cmd), privileges: readPrivileges(cmd)}
	for _, r := range made.roles {
		if !w.state.exists(r) {
			return nil, roleNotFound(r)
		}
		if n.Database != adminDB && r.Database != n.Database {
			return nil, badValue("Roles on the '" + n.Database + "' database cannot be granted roles from other databases")
		}
	}
	if len(made.privileges) != len(list) {
		return nil, badValue("a privilege has a resource and actions")
	}
	for _, p := range made.privileges {
		if slices.ContainsFunc(p.actions, func(action string) bool { return !slices.Contains(actions, action) }) {
			return nil, badValue("Unrecognized action privilege string")
		}
		if n.Database != adminDB && p.on.database != n.Database {
			return nil, badValue("Roles on the '" + n.Database + "' database cannot be granted privileges that target other databases or the cluster")
		}
	}
	w.change(func(s *state) { s.roles[n] = made })
	return w.confirmed(cmd), nil
}

// actions are those of privileges, as far as anything here uses them.
var actions = append([]string{
	"changeOwnPassword", "changeOwnCustomData", "killAnySession", "killop", "inprog", "invalidateUserCache", "serverStatus", "replSetGetStatus", "listDatabases", "collStats",
}, slices.Concat(writing, administering)...)

// updateRole sets the privileges of a role.
func updateRole(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	r, there := w.state.roles[n]
	if !there {
		return nil, roleNotFound(n)
	}
	r.privileges = readPrivileges(cmd)
	w.change(func(s *state) { s.roles[n] = r })
	return w.confirmed(cmd), nil
}

func grantPrivileges(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	r, there := w.state.roles[n]
	if !there {
		return nil, roleNotFound(n)
	}
	r.privileges = slices.Concat(r.privileges, readPrivileges(cmd))
	w.change(func(s *state) { s.roles[n] = r })
	return w.confirmed(cmd), nil
}

// dropRole takes the role from all users and roles that have it.
func dropRole(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.state.roles[n]; !there {
		return nil, roleNotFound(n)
	}
	w.change(func(s *state) {
		delete(s.roles, n)
		for other, u := range s.users {
			u.roles = slices.DeleteFunc(slices.Clone(u.roles), func(r name) bool { return r == n })
			s.users[other] = u
		}
		for other, r := range s.roles {
			r.roles = slices.DeleteFunc(slices.Clone(r.roles), func(r name) bool { return r == n })
			s.roles[other] = r
		}
	})
	return w.confirmed(cmd), nil
}

func rolesInfo(c *conn, cmd command) (bson.D, error) {
	state := c.member.sees()
	wanted, all := selected(cmd, "role")
	if all {
		for _, n := range slices.SortedFunc(maps.Keys(state.roles), compareNames) {
			if n.Database == cmd.database {
				wanted = append(wanted, n)
			}
		}
	}
	found := bson.A{}
	for _, n := range wanted {
		if !state.exists(n) {
			continue
		}
		_, brought := builtIn(n)
		roles := bson.A{}
		for _, r := range state.roles[n].roles {
			roles = append(roles, r.document("role"))
		}
		found = append(found, append(n.document("role"), bson.E{Key: "isBuiltin", Value: brought}, bson.E{Key: "roles", Value: roles}))
	}
	return bson.D{{Key: "roles", Value: found}}, nil
}

func connectionStatus(c *conn, cmd command) (bson.D, error) {
	u, _ := c.member.user(c.as)
	roles, privileges := bson.A{}, bson.A{}
	for _, r := range u.roles {
		roles = append(roles, r.document("role"))
	}
	info := bson.D{{Key: "authenticatedUsers", Value: bson.A{c.as.document("user")}}, {Key: "authenticatedUserRoles", Value: roles}}
	if show, _ := cmd.field("showPrivileges").(bool); show {
		for _, p := range c.member.sees().privileges(u.roles) {
			privileges = append(privileges, p.document())
		}
		info = append(info, bson.E{Key: "authenticatedUserPrivileges", Value: privileges})
	}
	return bson.D{{Key: "authInfo", Value: info}}, nil
}

// readPrivileges reads those of a createRole, and leaves out what is none.
func readPrivileges(cmd command) []privilege {
	list, _ := cmd.field("privileges").(bson.A)
	var all []privilege
	for _, v := range list {
		raw, err := bson.Marshal(v)
		if err != nil {
			continue
		}
		var d struct {
			Resource struct {
				Database   *string `bson:"db"`
				Collection *string `bson:"collection"`
				Cluster    bool    `bson:"cluster"`
			} `bson:"resource"`
			Actions []string `bson:"actions"`
		}
		if bson.Unmarshal(raw, &d) != nil || len(d.Actions) == 0 {
			continue
		}
		switch r := d.Resource; {
		case r.Cluster && r.Database == nil && r.Collection == nil:
			all = append(all, privilege{cluster, d.Actions})
		case !r.Cluster && r.Database != nil && r.Collection != nil:
			all = append(all, privilege{resource{database: *r.Database, collection: *r.Collection}, d.Actions})
		}
	}
	return all
}
