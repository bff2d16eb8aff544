package mongotest

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// operations are those under way, of all members.
type operations struct {
	mu      sync.Mutex
	running map[int64]*operation
}

type operation struct {
	member  *Member
	as      name
	session bool // it has an lsid
	killed  chan struct{}
	once    sync.Once
}

func (o *operation) kill() { o.once.Do(func() { close(o.killed) }) }

// sleepForm is what stands in a $where that takes its time.
var sleepForm = regexp.MustCompile(`\bsleep\((\d+)\)`)

// sleep is how long a find is to take.
func sleep(cmd command) time.Duration {
	filter, _ := cmd.field("filter").(bson.D)
	for _, e := range filter {
		if text, ok := e.Value.(string); e.Key == "$where" && ok {
			if match := sleepForm.FindStringSubmatch(text); match != nil {
				ms, _ := strconv.Atoi(match[1])
				return time.Duration(ms) * time.Millisecond
			}
		}
	}
	return 0
}

// findData passes a find on; one that sleeps is under way until it ends or is ended.
func findData(c *conn, cmd command) (bson.D, error) {
	if cmd.database == "config" && cmd.text() == "mongos" {
		return c.member.listRouters(), nil
	}
	duration := sleep(cmd)
	if duration == 0 {
		return nil, nil
	}
	ops := &c.member.world.operations
	o := &operation{member: c.member, as: c.as, session: cmd.field("lsid") != nil, killed: make(chan struct{})}
	id := c.member.world.lastID.Add(1)
	ops.mu.Lock()
	ops.running[id] = o
	ops.mu.Unlock()
	defer func() {
		ops.mu.Lock()
		delete(ops.running, id)
		ops.mu.Unlock()
	}()
	select {
	case <-time.After(duration):
		return cursor(cmd.database+"."+cmd.text(), bson.A{}), nil
	case <-o.killed:
		return nil, errInterrupt
	}
}

func cursor(namespace string, batch bson.A) bson.D {
	return bson.D{{Key: "cursor", Value: bson.D{{Key: "id", Value: int64(0)}, {Key: "ns", Value: namespace}, {Key: "firstBatch", Value: batch}}}}
}

func (m *Member) listRouters() bson.D {
	batch := bson.A{}
	for _, other := range m.world.members {
		if other.running() {
			batch = append(batch, bson.D{{Key: "_id", Value: other.addr}, {Key: "ping", Value: time.Now()}})
		}
	}
	return cursor("config.mongos", batch)
}

// aggregate answers $currentOp by those of its stages that the tests use; all else is FerretDB's.
func aggregate(c *conn, cmd command) (bson.D, error) {
	pipeline, _ := cmd.field("pipeline").(bson.A)
	if len(pipeline) == 0 {
		return nil, nil
	}
	first, _ := pipeline[0].(bson.D)
	if len(first) == 0 || first[0].Key != "$currentOp" {
		return nil, nil
	}
	wanted := map[string]bool{}
	for _, stage := range pipeline[1:] {
		d, _ := stage.(bson.D)
		switch {
		case len(d) == 1 && d[0].Key == "$project":
		case len(d) == 1 && d[0].Key == "$match":
			match, _ := d[0].Value.(bson.D)
			if len(match) != 1 || match[0].Key != "effectiveUsers.user" {
				return nil, badValue("not emulated: $match of $currentOp by another field")
			}
			in, _ := match[0].Value.(bson.D)
			names, _ := in[0].Value.(bson.A)
			for _, n := range names {
				wanted[fmt.Sprint(n)] = true
			}
		default:
			return nil, badValue("not emulated: another stage after $currentOp")
		}
	}
	ops := &c.member.world.operations
	ops.mu.Lock()
	defer ops.mu.Unlock()
	batch := bson.A{}
	for id, o := range ops.running {
		if wanted[o.as.Name] && o.on(c.member) {
			batch = append(batch, bson.D{{Key: "opid", Value: id}, {Key: "effectiveUsers", Value: bson.A{o.as.document("user")}}})
		}
	}
	return cursor("admin.$cmd.aggregate", batch), nil
}

// on tells whether a member knows of an operation: a mongod of its own, a mongos of all in the cluster.
func (o *operation) on(m *Member) bool { return o.member == m || m.world.form.routers > 0 }

func killOp(c *conn, cmd command) (bson.D, error) {
	ops := &c.member.world.operations
	id, _ := cmd.field("op").(int64)
	ops.mu.Lock()
	defer ops.mu.Unlock()
	if o := ops.running[id]; o != nil && o.on(c.member) {
		o.kill()
	}
	return bson.D{{Key: "info", Value: "attempting to kill op"}}, nil
}

// killSessions takes patterns that name the digest of a user, as MongoDB computes it.
func killSessions(c *conn, cmd command) (bson.D, error) {
	patterns, _ := cmd.fields[0].Value.(bson.A)
	if len(patterns) == 0 {
		return nil, badValue("not emulated: the end of all sessions")
	}
	digests := map[string]bool{}
	for _, p := range patterns {
		d, _ := p.(bson.D)
		if len(d) != 1 || d[0].Key != "uid" {
			return nil, badValue("not emulated: a pattern without uid")
		}
		uid, ok := d[0].Value.(bson.Binary)
		if !ok || len(uid.Data) != sha256.Size {
			return nil, badValue("a uid is a SHA-256")
		}
		digests[string(uid.Data)] = true
	}
	ops := &c.member.world.operations
	ops.mu.Lock()
	defer ops.mu.Unlock()
	for _, o := range ops.running {
		digest := sha256.Sum256([]byte(o.as.Name + "@" + o.as.Database))
		if o.session && o.on(c.member) && digests[string(digest[:])] {
			o.kill()
		}
	}
	return bson.D{}, nil
}

// atlasVersion is a command of MongoDB's own service alone.
func atlasVersion(c *conn, cmd command) (bson.D, error) {
	if !c.member.world.form.atlas {
		return nil, unknown(cmd)
	}
	return bson.D{{Key: "atlasVersion", Value: "20261101.0.0"}}, nil
}

func invalidate(c *conn, _ command) (bson.D, error) {
	c.member.forget()
	return bson.D{}, nil
}

// document is a name as MongoDB writes it.
func (n name) document(key string) bson.D {
	return bson.D{{Key: key, Value: n.Name}, {Key: "db", Value: n.Database}}
}

// saslStart notes who says to log in: GS2 header, then n=<user>,r=<nonce> (RFC 5802).
func saslStart(c *conn, cmd command) (bson.D, error) {
	payload, _ := cmd.field("payload").(bson.Binary)
	c.claimed, c.loggedIn = name{}, false
	for part := range strings.SplitSeq(string(payload.Data), ",") {
		if user, ok := strings.CutPrefix(part, "n="); ok && user != "" {
			c.claimed = name{strings.NewReplacer("=2C", ",", "=3D", "=").Replace(user), cmd.database}
		}
	}
	return nil, nil
}
