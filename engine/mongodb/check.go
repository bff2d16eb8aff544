package mongodb

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// Check implements engine.Engine. Of several members, one that is away is a warning: credentials go on
// being made.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "none"}
	if e.connector.tls != nil {
		h.TLS = "verified"
	}
	err := e.examine(ctx, &h)
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

func (e *Engine) examine(ctx context.Context, h *engine.Health) error {
	s, err := e.whole(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	said, err := s.hello(ctx)
	if err != nil {
		return err
	}
	h.Latency = time.Since(start)
	h.ClockOffset = said.LocalTime.Sub(start.Add(h.Latency / 2))
	held, err := s.privileges(ctx)
	if err != nil {
		return err
	}
	router := said.Message == "isdbgrid"
	p, err := e.connector.place(ctx)
	if err != nil {
		return err
	}
	for _, right := range e.rights(router) {
		if !held.have(right) {
			h.MissingGrants = append(h.MissingGrants, right.statement())
		}
	}
	if all := on("", "viewUser"); !held.have(all) {
		h.Warnings = append(h.Warnings, "reconcile finds users only in the databases that are in use: run "+all.statement())
	}
	if own := on(p.authSource, "changeOwnPassword"); !held.have(own) {
		h.Warnings = append(h.Warnings, "the root credentials cannot be rotated: run "+own.statement())
	}
	if held.have(privilege{resource{Any: true}, []string{"anyAction"}}) {
		h.Warnings = append(h.Warnings, "root may do everything: whoever gets its password owns the server. The guide to this engine shows a root with less")
	}
	if len(h.MissingGrants) > 0 {
		return nil
	}
	if _, err := e.recognise(ctx, s, "check the source"); err != nil {
		return err
	}
	return e.examineMembers(ctx, s, h)
}

// examineMembers looks whether each can be reached, by root and in time.
func (e *Engine) examineMembers(ctx context.Context, s *server, h *engine.Health) error {
	members, err := e.survey(ctx, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, e.config.ConnectTimeout.Std())
	defer cancel()
	errs := onEach(members, func(m member) error { return m.welcomes(ctx) })
	for i, err := range errs {
		address := members[i].address
		switch host, _, _ := net.SplitHostPort(address); {
		case err != nil && away(err) && len(members) > 1:
			h.Warnings = append(h.Warnings, address+" cannot be reached: leases stay revoking until it has been asked. Take it out of the source, or name it in gone_nodes, if it never comes back")
		case err != nil:
			return err
		case e.connector.tls == nil && !engine.Loopback(host):
			h.Warnings = append(h.Warnings, "the connection to "+address+" is not encrypted: use tls=true")
		}
	}
	slices.Sort(h.Warnings)
	return nil
}

// welcomes tells whether root can log in at a member.
func (m member) welcomes(ctx context.Context) error {
	if _, err := m.run(ctx, adminDB, bson.D{{Key: "connectionStatus", Value: 1}}); err != nil {
		return asked("check the member "+m.address, err)
	}
	return nil
}

// rights are what root cannot do without: for the source as a whole, and in each database in which roles
// have their users. The same stand in the guide, whose root is what the tests run with.
func (e *Engine) rights(router bool) []privilege {
	all := []privilege{
		on("", "killAnySession", "inprog", "killop"),
		on(adminDB, "createRole", "viewRole"),
	}
	if router {
		all = append(all, on("", "invalidateUserCache"), privilege{resource{Database: new("config"), Collection: new("mongos")}, []string{"find"}})
	}
	for _, database := range e.known() {
		all = append(all, on(database, userRights...))
	}
	return all
}

// userRights are what root needs in a database that is to have users.
var userRights = []string{"createUser", "dropUser", "viewUser", "createRole", "dropRole", "viewRole", "grantRole"}

// on is a privilege on a database; on the cluster where it is empty.
func on(database string, actions ...string) privilege {
	if database == "" {
		return privilege{resource{Cluster: true}, actions}
	}
	return privilege{resource{Database: &database, Collection: new("")}, actions}
}

// statement is what an administrator runs in mongosh to grant it to the role of the guide.
func (p privilege) statement() string {
	target := map[string]any{"cluster": true}
	if !p.Resource.Cluster {
		target = map[string]any{"db": *p.Resource.Database, "collection": *p.Resource.Collection}
	}
	text, err := json.Marshal([]any{map[string]any{"resource": target, "actions": p.Actions}})
	if err != nil {
		panic(err) // texts always encode
	}
	return fmt.Sprintf(`db.getSiblingDB("admin").grantPrivilegesToRole("scaivault", %s)`, text)
}

// privileges are those that somebody holds.
type privileges []privilege

// privileges asks the source what root may do.
func (s *server) privileges(ctx context.Context) (privileges, error) {
	const attempt = "ask what root may do"
	answer, err := s.run(ctx, adminDB, bson.D{{Key: "connectionStatus", Value: 1}, {Key: "showPrivileges", Value: true}})
	if err != nil {
		return nil, asked(attempt, err)
	}
	var found struct {
		Info struct {
			Privileges privileges `bson:"authenticatedUserPrivileges"`
		} `bson:"authInfo"`
	}
	if err := bson.Unmarshal(answer, &found); err != nil {
		return nil, refusedAnswer(attempt, err)
	}
	return found.Info.Privileges, nil
}

// have tells whether all actions of a privilege are held, by whichever of them together.
func (ps privileges) have(wanted privilege) bool {
	return !slices.ContainsFunc(wanted.Actions, func(action string) bool {
		return !slices.ContainsFunc(ps, func(p privilege) bool {
			return p.Resource.covers(wanted.Resource) && (slices.Contains(p.Actions, action) || slices.Contains(p.Actions, "anyAction"))
		})
	})
}

// covers tells whether a privilege on r is one on the other resource, too. An empty name stands for all
// of them, but not for collections whose name begins with "system.".
func (r resource) covers(other resource) bool {
	switch {
	case r.Any:
		return true
	case other.Any, r.Cluster || other.Cluster:
		return r.Cluster && other.Cluster
	case r.Database == nil || r.Collection == nil:
		return false
	}
	return (*r.Database == "" || *r.Database == *other.Database) && (*r.Collection == "" || *r.Collection == *other.Collection)
}
