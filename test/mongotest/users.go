package mongotest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

func createUser(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	roles := rolesIn(cmd)
	for _, r := range roles {
		if !w.state.exists(r) {
			return nil, roleNotFound(r)
		}
	}
	data, err := customData(cmd)
	if err != nil {
		return nil, err
	}
	if err := c.ferret(cmd, bson.D{{Key: "roles", Value: bson.A{}}}, "roles", "customData"); err != nil {
		return nil, err
	}
	w.change(func(s *state) { s.users[n] = userRecord{w.lastID.Add(1), roles, data, mechanisms(cmd)} })
	c.member.forget(n)
	return w.confirmed(cmd), nil
}

// mechanisms are those that a user may log in by; both by default.
func mechanisms(cmd command) bson.A {
	if chosen, ok := cmd.field("mechanisms").(bson.A); ok {
		return chosen
	}
	return bson.A{"SCRAM-SHA-1", "SCRAM-SHA-256"}
}

func customData(cmd command) (bson.Raw, error) {
	value := cmd.field("customData")
	if value == nil {
		return nil, nil
	}
	d, ok := value.(bson.D)
	if !ok {
		return nil, badValue("customData must be a document")
	}
	return bson.Marshal(d)
}

// updateUser changes a password at FerretDB, and roles here.
func updateUser(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	u, there := w.state.users[n]
	if !there {
		return nil, userNotFound(n)
	}
	if cmd.field("roles") != nil {
		u.roles = rolesIn(cmd)
		for _, r := range u.roles {
			if !w.state.exists(r) {
				return nil, roleNotFound(r)
			}
		}
	}
	if cmd.field("pwd") != nil {
		if err := c.ferret(cmd, nil, "roles", "customData"); err != nil {
			return nil, err
		}
	}
	w.change(func(s *state) { s.users[n] = u })
	c.member.forget(n)
	return w.confirmed(cmd), nil
}

func grantRoles(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	u, there := w.state.users[n]
	if !there {
		return nil, userNotFound(n)
	}
	for _, r := range rolesIn(cmd) {
		if !w.state.exists(r) {
			return nil, roleNotFound(r)
		}
		if !slices.Contains(u.roles, r) {
			u.roles = append(slices.Clone(u.roles), r)
		}
	}
	w.change(func(s *state) { s.users[n] = u })
	c.member.forget(n)
	return w.confirmed(cmd), nil
}

func dropUser(c *conn, cmd command) (bson.D, error) {
	w, n := c.member.world, name{cmd.text(), cmd.database}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := c.ferret(cmd, nil); err != nil {
		return nil, err
	}
	w.change(func(s *state) { delete(s.users, n) })
	c.member.forget(n)
	return w.confirmed(cmd), nil
}

func userNotFound(n name) *serverError {
	return &serverError{11, "UserNotFound", "User '" + n.Name + "@" + n.Database + "' not found"}
}

// ferret lets FerretDB do its part; what it refuses is refused.
func (c *conn) ferret(cmd command, extra bson.D, without ...string) error {
	for _, e := range extra { // in the place of what FerretDB does not take
		for i := range cmd.fields {
			if cmd.fields[i].Key == e.Key {
				cmd.fields[i].Value = e.Value
			}
		}
		without = slices.DeleteFunc(without, func(key string) bool { return key == e.Key })
	}
	reply, err := c.pass(cmd, without...)
	if err != nil || succeeded(reply.body) {
		return err
	}
	code, _ := reply.body.Lookup("code").AsInt64OK()
	codeName, _ := reply.body.Lookup("codeName").StringValueOK()
	text, _ := reply.body.Lookup("errmsg").StringValueOK()
	return &serverError{int32(code), codeName, text}
}

// confirmed is the answer to a write that is done; for who holds w.mu. Who asks for a majority is told
// if there is none.
func (w *world) confirmed(cmd command) bson.D {
	concern, _ := cmd.field("writeConcern").(bson.D)
	if len(concern) == 0 || concern[0].Value != "majority" || w.majority() {
		return bson.D{}
	}
	return bson.D{{Key: "writeConcernError", Value: bson.D{
		{Key: "code", Value: int32(64)}, {Key: "codeName", Value: "WriteConcernTimeout"}, {Key: "errmsg", Value: "waiting for replication timed out"},
	}}}
}

func usersInfo(c *conn, cmd command) (bson.D, error) {
	state := c.member.sees()
	if c.member.world.form.routers > 0 {
		state = c.member.world.now() // a mongos asks the config servers
	}
	wanted, all := selected(cmd, "user")
	d, _ := cmd.fields[0].Value.(bson.D)
	everywhere := len(d) > 0 && d[0].Key == "forAllDBs"
	filter, _ := cmd.field("filter").(bson.D)
	users := bson.A{}
	for _, n := range slices.SortedFunc(maps.Keys(state.users), compareNames) {
		u := state.users[n]
		if !everywhere && !(all && n.Database == cmd.database) && !slices.Contains(wanted, n) {
			continue
		}
		ok, err := u.matches(filter)
		if err != nil {
			return nil, err
		}
		if ok {
			users = append(users, u.document(n))
		}
	}
	return bson.D{{Key: "users", Value: users}}, nil
}

func compareNames(a, b name) int {
	return strings.Compare(a.Database+"."+a.Name, b.Database+"."+b.Name)
}

func (u userRecord) document(n name) bson.D {
	d := bson.D{{Key: "_id", Value: n.Database + "." + n.Name}, {Key: "user", Value: n.Name}, {Key: "db", Value: n.Database}}
	if u.customData != nil {
		d = append(d, bson.E{Key: "customData", Value: u.customData})
	}
	roles := bson.A{}
	for _, r := range u.roles {
		roles = append(roles, r.document("role"))
	}
	return append(d, bson.E{Key: "roles", Value: roles}, bson.E{Key: "mechanisms", Value: u.mechanisms})
}

// matches knows equality of texts in customData.
func (u userRecord) matches(filter bson.D) (bool, error) {
	for _, e := range filter {
		path, ok := strings.CutPrefix(e.Key, "customData.")
		want, isText := e.Value.(string)
		if !ok || !isText {
			return false, badValue("not emulated: a filter by " + e.Key)
		}
		if got, _ := u.customData.Lookup(strings.Split(path, ".")...).StringValueOK(); got != want {
			return false, nil
		}
	}
	return true, nil
}

// selected are the names that usersInfo or rolesInfo asks for; all for those of the database.
func selected(cmd command, key string) (wanted []name, all bool) {
	switch v := cmd.fields[0].Value.(type) {
	case int32, int64, float64:
		return nil, true
	case bson.A:
		return readNames(v, key, cmd.database), false
	default:
		return readNames(bson.A{v}, key, cmd.database), false
	}
}

// rolesIn are the roles that a command lists: each a document, or a text for one of its own database.
func rolesIn(cmd command) []name {
	list, _ := cmd.field("roles").(bson.A)
	return readNames(list, "role", cmd.database)
}

func readNames(list bson.A, key, database string) []name {
	var names []name
	for _, v := range list {
		switch v := v.(type) {
		case string:
			names = append(names, name{v, database})
		case bson.D:
			n := name{}
			for _, e := range v {
				switch e.Key {
				case key:
					n.Name = fmt.Sprint(e.Value)
				case "db":
					n.Database = fmt.Sprint(e.Value)
				}
			}
			names = append(names, n)
		}
	}
	return names
}
