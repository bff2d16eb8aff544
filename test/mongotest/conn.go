package mongotest

import (
	"net"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// conn is one connection of a client, with one to FerretDB of its own, on which the same logs in.
type conn struct {
	member         *Member
	client, server net.Conn

	claimed  name // by saslStart
	loggedIn bool
	as       name
	id       int64 // of the record that the login was for
}

// serverError is an error as MongoDB answers it.
type serverError struct {
	code       int32
	name, text string
}

func (e *serverError) Error() string { return e.text }

var (
	errNotPrimary = &serverError{10107, "NotWritablePrimary", "not primary"}
	errInterrupt  = &serverError{11601, "Interrupted", "operation was interrupted"}
)

func unauthorized(text string) *serverError { return &serverError{13, "Unauthorized", text} }
func roleNotFound(n name) *serverError {
	return &serverError{31, "RoleNotFound", "Could not find role: " + n.Name + "@" + n.Database}
}
func badValue(text string) *serverError { return &serverError{2, "BadValue", text} }

func (c *conn) run() {
	for {
		m, err := readMessage(c.client)
		if err != nil {
			return
		}
		reply, err := c.answer(m)
		if err != nil {
			return
		}
		if m.flags&moreToCome != 0 && m.op == opMsg {
			continue
		}
		if _, err := c.client.Write(reply.encode()); err != nil {
			return
		}
	}
}

// answer executes one command, whether its sender still waits or not.
func (c *conn) answer(m message) (message, error) {
	cmd, err := parseCommand(m)
	if err != nil {
		return message{}, err
	}
	if refusal := c.judge(cmd); refusal != nil {
		return m.answer(refusal.document()), nil
	}
	if h := handler(cmd.name); h != nil {
		result, err := h(c, cmd)
		switch e := err.(type) { //nolint:errorlint // handlers wrap nothing
		case nil:
		case *serverError:
			return m.answer(e.document()), nil
		default:
			return message{}, err
		}
		if result != nil {
			return m.answer(append(result, bson.E{Key: "ok", Value: 1.0})), nil
		}
	}
	return c.pass(cmd)
}

// handler answers what FerretDB lacks; nil leaves the command to FerretDB, and so does one that gives no
// answer.
func handler(name string) func(c *conn, cmd command) (bson.D, error) {
	switch name {
	case "saslStart":
		return saslStart
	case "createUser":
		return createUser
	case "updateUser":
		return updateUser
	case "dropUser":
		return dropUser
	case "grantRolesToUser":
		return grantRoles
	case "usersInfo":
		return usersInfo
	case "createRole":
		return createRole
	case "dropRole":
		return dropRole
	case "updateRole":
		return updateRole
	case "grantPrivilegesToRole":
		return grantPrivileges
	case "rolesInfo":
		return rolesInfo
	case "connectionStatus":
		return connectionStatus
	case "find":
		return findData
	case "aggregate":
		return aggregate
	case "killOp":
		return killOp
	case "killAllSessionsByPattern":
		return killSessions
	case "invalidateUserCache":
		return invalidate
	case "atlasVersion":
		return atlasVersion
	case "endSessions":
		return func(*conn, command) (bson.D, error) { return bson.D{}, nil }
	}
	return nil
}

func (e *serverError) document() bson.D {
	return bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: e.text}, {Key: "code", Value: e.code}, {Key: "codeName", Value: e.name}}
}

// command is a message as it is understood.
type command struct {
	message
	name     string
	database string
	fields   bson.D
}

func parseCommand(m message) (command, error) {
	cmd := command{message: m}
	if err := bson.Unmarshal(m.body, &cmd.fields); err != nil || len(cmd.fields) == 0 {
		return cmd, errMalformed
	}
	cmd.name = cmd.fields[0].Key
	cmd.database, _ = cmd.field("$db").(string)
	if m.op == opQuery {
		cmd.database, _, _ = strings.Cut(m.namespace, ".")
	}
	return cmd, nil
}

func (c command) field(key string) any {
	for _, e := range c.fields {
		if e.Key == key {
			return e.Value
		}
	}
	return nil
}

// text is the command's own value.
func (c command) text() string {
	s, _ := c.fields[0].Value.(string)
	return s
}

// pass forwards a command without what FerretDB does not know, and gives its answer.
func (c *conn) pass(cmd command, without ...string) (message, error) {
	drop := map[string]bool{"lsid": true, "$clusterTime": true, "txnNumber": true, "maxTimeMS": true, "writeConcern": true, "readConcern": true, "speculativeAuthenticate": true}
	for _, key := range without {
		drop[key] = true
	}
	var kept bson.D
	for _, e := range cmd.fields {
		if !drop[e.Key] {
			kept = append(kept, e)
		}
	}
	m := cmd.message
	raw, err := bson.Marshal(kept)
	if err != nil {
		return m, err
	}
	m.body = raw
	m.flags &^= moreToCome
	if _, err := c.server.Write(m.encode()); err != nil {
		return m, err
	}
	reply, err := readMessage(c.server)
	if err != nil {
		return m, err
	}
	return c.learn(cmd, reply)
}

// learn reads in FerretDB's answer who logged in, and makes a hello what this member would say.
func (c *conn) learn(cmd command, reply message) (message, error) {
	switch strings.ToLower(cmd.name) {
	case "saslcontinue":
		done, _ := reply.body.Lookup("done").BooleanOK()
		if done && succeeded(reply.body) {
			u, _ := c.member.user(c.claimed)
			c.loggedIn, c.as, c.id = true, c.claimed, u.id
		}
	case "hello", "ismaster":
		raw, err := bson.Marshal(c.member.hello(reply.body))
		if err != nil {
			return reply, err
		}
		reply.body = raw
	}
	return reply, nil
}

func succeeded(answer bson.Raw) bool {
	ok, _ := answer.Lookup("ok").AsInt64OK()
	return ok == 1
}

// hello is FerretDB's own, but for the member's part in the source.
func (m *Member) hello(said bson.Raw) bson.D {
	var fields bson.D
	if err := bson.Unmarshal(said, &fields); err != nil {
		return bson.D{{Key: "ok", Value: 0.0}}
	}
	set := func(key string, value any) {
		for i := range fields {
			if fields[i].Key == key {
				fields[i].Value = value
				return
			}
		}
		fields = append(fields, bson.E{Key: key, Value: value})
	}
	set("logicalSessionTimeoutMinutes", int32(30))
	for _, e := range m.world.form.said {
		set(e.Key, e.Value)
	}
	set("localTime", time.Now())
	switch w := m.world; {
	case w.form.routers > 0:
		set("msg", "isdbgrid")
	case w.form.set > 0:
		primary := m.isPrimary()
		var hosts []string
		for _, other := range w.members {
			hosts = append(hosts, other.addr)
		}
		set("setName", SetName)
		set("setVersion", int32(1))
		set("hosts", hosts)
		set("me", m.addr)
		set("isWritablePrimary", primary)
		set("ismaster", primary)
		set("secondary", !primary)
		w.mu.Lock()
		set("primary", w.primary.addr)
		w.mu.Unlock()
	}
	return fields
}
