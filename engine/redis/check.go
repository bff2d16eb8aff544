package redis

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Check implements engine.Engine. Of several nodes, one that is away is a
// warning: credentials go on being made and ended on the others.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "none"}
	if e.connector.tls != nil {
		h.TLS = "verified"
	}
	e.forgetSurvey()
	start := time.Now()
	members, err := e.survey(ctx)
	h.Latency = time.Since(start)
	if err == nil {
		err = e.examine(ctx, members, &h)
	}
	if err != nil {
		h.Error = plain(err).Reason
	}
	switch {
	case err == nil && len(h.MissingGrants) == 0:
	case err == nil:
		h.Status, h.Error = "misconfigured", "root lacks a right without which credentials cannot be made or ended"
	case engine.KindOf(err) == engine.WrongServer, engine.KindOf(err) == engine.Misconfigured, engine.KindOf(err) == engine.Refused:
		h.Status = "misconfigured"
	default:
		h.Status = "unreachable"
	}
	return h
}

func (e *Engine) examine(ctx context.Context, members []member, h *engine.Health) error {
	var mu sync.Mutex
	outcomes := onEach(members, func(m member) error {
		missing, warnings, err := e.examineNode(ctx, m)
		mu.Lock()
		defer mu.Unlock()
		h.MissingGrants = append(h.MissingGrants, missing...)
		h.Warnings = append(h.Warnings, warnings...)
		return err
	})
	var refusing error
	for _, o := range outcomes {
		if o.offset.Abs() > h.ClockOffset.Abs() {
			h.ClockOffset = o.offset
		}
		if o.member.err != nil && !away(o.member.err) {
			refusing = o.member.err
		}
		if o.err != nil && away(o.err) && len(members) > 1 {
			h.Warnings = append(h.Warnings, o.address+" cannot be reached: what was revoked meanwhile is dead there when it is back; until then its leases stay revoking. Take it out of the source, or name it in gone_nodes, if it never comes back")
		}
		if o.err == nil && e.connector.tls == nil && !onLoopback(o.address) {
			h.Warnings = append(h.Warnings, "the connection to "+o.address+" is not encrypted: use rediss://")
		}
	}
	slices.Sort(h.MissingGrants)
	h.MissingGrants = slices.Compact(h.MissingGrants)
	slices.Sort(h.Warnings)
	h.Warnings = slices.Compact(h.Warnings)
	if refusing != nil {
		return refusing
	}
	return firstError(outcomes)
}

func onLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && engine.Loopback(host)
}

// right is something that root must be able to do, and a command that shows
// whether it is, changing nothing.
type right struct {
	rule  string
	probe command
}

// nobody is no user: names of ours end with a checksum that this has not.
const nobody = "scaivault-nobody"

// rights are what every node needs. The same rules are in the guide, whose root
// is what the tests run with.
func (m member) rights(connection string) []right {
	all := []right{
		{"+acl|setuser", command{"ACL", "SETUSER", nobody, "no such rule"}},
		{"+acl|getuser", command{"ACL", "GETUSER", nobody}},
		{"+acl|deluser", command{"ACL", "DELUSER", nobody}},
		{"+acl|list", command{"ACL", "LIST"}},
		{"+client|setname", command{"CLIENT", "SETNAME", connection}},
		{"+client|list", command{"CLIENT", "LIST", "ID", "0"}},
		{"+client|kill", command{"CLIENT", "KILL", "USER", nobody}},
		{"+info", command{"INFO", "server"}},
	}
	if m.id != "" {
		all = append(all, right{"+cluster|nodes", command{"CLUSTER", "NODES"}})
	}
	return all
}

// examineNode finds what root lacks on one node.
func (e *Engine) examineNode(ctx context.Context, m member) (missing, warnings []string, err error) {
	e.mu.Lock()
	root := e.root.Username
	e.mu.Unlock()
	err = m.pool.With(ctx, engine.Revoking, func(c *conn) error {
		rights := m.rights(c.name)
		var commands []command
		for _, r := range rights {
			commands = append(commands, r.probe)
		}
		replies, err := c.send(ctx, append(commands, command{"ACL", "GETUSER", root})...)
		if err != nil {
			return asked("check the source", err)
		}
		for i, r := range rights {
			if code(replies[i].err) == codeNoPermission {
				missing = append(missing, grant(root, r.rule))
			}
		}
		if mayAll(replies[len(rights)].value) {
			warnings = append(warnings, "root may do everything: whoever gets its password owns the server. The guide to this engine shows a root with less")
		}
		key := m.fenceKey(nobody)
		if key == "" {
			return nil
		}
		c.watches = true
		fenced, err := c.send(ctx, command{"SET", key, "", "PX", 1}, command{"WATCH", key})
		if err != nil {
			return asked("check the source", err)
		}
		_, _, err = c.transact(ctx, command{"ACL", "GETUSER", nobody})
		if err != nil {
			return asked("check the source", err)
		}
		for _, r := range fenced {
			if code(r.err) == codeNoPermission {
				warnings = append(warnings, "a user whose creation arrives late is made, and ended only when that is noticed: "+grant(root, "+set +watch +multi +exec ~"+fencePrefix+"*"))
			}
		}
		return nil
	})
	if err == nil {
		err = m.persist(ctx)
	}
	if engine.KindOf(err) == engine.Misconfigured && strings.Contains(plain(err).Reason, "acl|save") {
		missing, err = append(missing, grant(root, "+acl|save")), nil
	}
	return missing, warnings, err
}

func grant(root, rules string) string {
	return fmt.Sprintf("ACL SETUSER %s %s", root, rules)
}

// mayAll tells whether the answer of ACL GETUSER shows all commands.
func mayAll(value any) bool {
	fields, _ := value.([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		if text(fields[i]) == "commands" {
			return strings.Contains(text(fields[i+1]), "+@all")
		}
	}
	return false
}
