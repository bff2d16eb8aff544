package mongodb_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/mongotest"
)

// atEach opens a session of a credential at every member.
func (s *source) atEach(t *testing.T, c credential) []session {
	t.Helper()
	var all []session
	for _, address := range s.addresses() {
		opened, err := s.login(t.Context(), address, c.data)
		if err != nil {
			t.Fatalf("log in at %s: %v", address, err)
		}
		t.Cleanup(opened.Close)
		all = append(all, opened)
	}
	return all
}

func ended(t *testing.T, sessions []session) {
	t.Helper()
	for i, opened := range sessions {
		if opened.Works(t.Context()) {
			t.Errorf("a session at member %d goes on after the revocation was answered", i)
		}
	}
}

// TestSet: a credential is dead when every member of a set has heard of its end, and not before.
func TestSet(t *testing.T) {
	t.Parallel()
	s := newSource(t, mongotest.AsSet(3))
	e := s.open(t, nil)
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
		t.Errorf("health of a whole set: %+v", h)
	}
	c := issue(t, e, readApp)
	sessions := s.atEach(t, c)
	revoke(t, e, c.recipe)
	ended(t, sessions)
	s.dead(t, c)

	behind := s.server.Members[2]
	c = issue(t, e, readApp)
	sessions = s.atEach(t, c)
	behind.Lag()
	revoked := make(chan error, 1)
	go func() {
		_, err := e.Revoke(t.Context(), c.recipe)
		revoked <- err
	}()
	eventually(t, "the user is dropped at the primary", func() bool { return !sessions[0].Works(t.Context()) })
	select {
	case err := <-revoked:
		if err == nil {
			t.Error("a revocation is answered while a member has not heard of it")
		}
	default:
	}
	behind.CatchUp()
	if <-revoked != nil { // a machine so busy that half of the operation's time was over
		revoke(t, e, c.recipe)
	}
	ended(t, sessions)
	s.dead(t, c)

	s.failsOver(t, e)
	s.awayFrom(t, e)
}

// failsOver: the engine follows the primary.
func (s *source) failsOver(t *testing.T, e engine.Engine) {
	t.Helper()
	c := issue(t, e, readApp)
	s.server.StepDown(s.server.Members[1])
	var err error
	eventually(t, "a user is revoked at the new primary", func() bool {
		_, err = e.Revoke(t.Context(), c.recipe)
		return err == nil
	})
	s.dead(t, c)
	c = issue(t, e, readApp)
	s.works(t, c)
	revoke(t, e, c.recipe)
	s.server.StepDown(s.server.Members[0])
}

// awayFrom: a member that cannot be asked keeps a revocation open, until it is there or named as gone.
func (s *source) awayFrom(t *testing.T, e engine.Engine) {
	t.Helper()
	away := s.server.Members[2]
	c, d := issue(t, e, readApp), issue(t, e, readApp)
	impatient := s.open(t, map[string]any{"connect_timeout": "2s"})
	away.Stop()
	eventually(t, "a revocation says which member is away", func() bool {
		_, err := impatient.Revoke(t.Context(), c.recipe)
		if err == nil {
			t.Fatal("revoked while a member is away")
		}
		return engine.KindOf(err) == engine.Busy && strings.Contains(err.Error(), away.Addr())
	})
	eventually(t, "health says which member is away", func() bool {
		h := impatient.Check(t.Context())
		return h.Status == "healthy" && strings.Contains(strings.Join(h.Warnings, "\n"), away.Addr())
	})
	without := s.open(t, map[string]any{"gone_nodes": []string{away.Addr()}})
	revoke(t, without, c.recipe)
	away.Run(t)
	revoke(t, e, d.recipe)
	s.dead(t, c)
	s.dead(t, d)
}

// TestNoMajority: what no majority of the members confirms is not taken for done.
func TestNoMajority(t *testing.T) {
	t.Parallel()
	s := newSource(t, mongotest.AsSet(3))
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	for _, m := range s.server.Members[1:] {
		m.Stop()
	}
	p := plan(t, e, readApp)
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Uncertain {
		t.Errorf("issue without a majority: %v", err)
	}
	if _, err := e.Revoke(t.Context(), c.recipe); err == nil {
		t.Error("revoked without a majority")
	}
	for _, m := range s.server.Members[1:] {
		m.Run(t)
	}
	for _, recipe := range []engine.Recipe{c.recipe, p.Recipe} {
		revoke(t, e, recipe)
	}
	s.dead(t, c)
	s.dead(t, credential{p.Data, p.Username, p.Recipe})
}

// TestCluster: a mongos remembers users; each that the cluster knows of is made to forget, also one that
// the URL does not name, before a revocation is answered.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := newSource(t, mongotest.AsCluster(2))
	s.url = "mongodb://{{username}}:{{password}}@" + s.server.Addr()
	e := s.open(t, nil)
	h := e.Check(t.Context())
	if h.Status != "misconfigured" || !strings.Contains(strings.Join(h.MissingGrants, "\n"), "invalidateUserCache") || !strings.Contains(strings.Join(h.MissingGrants, "\n"), "mongos") {
		t.Errorf("health without the rights of a cluster: %+v", h)
	}
	for _, command := range mongotest.Guide(t) {
		if command[0].Key == "grantPrivilegesToRole" {
			s.server.Do(t, "admin", command)
		}
	}
	if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
		t.Errorf("health with the rights of the guide: %+v", h)
	}
	c := issue(t, e, readApp)
	sessions := s.atEach(t, c)
	s.server.Do(t, "admin", bson.D{{Key: "hello", Value: 1}})
	revoke(t, e, c.recipe)
	ended(t, sessions)
	s.dead(t, c)

	c = issue(t, e, readApp)
	other := s.server.Members[1]
	opened, err := s.login(t.Context(), other.Addr(), c.data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(opened.Close)
	done := make(chan error, 1)
	go func() {
		done <- opened.client.Database(appDB).RunCommand(context.Background(), bson.D{{Key: "find", Value: "things"}, {Key: "filter", Value: bson.D{{Key: "$where", Value: "sleep(60000) || true"}}}}).Err()
	}()
	eventually(t, "the command is under way", func() bool { return s.underWay(t, c.name) })
	revoke(t, e, c.recipe)
	select {
	case err := <-done:
		if err == nil {
			t.Error("a command of a dead credential has ended well")
		}
	case <-time.After(time.Minute):
		t.Error("a command goes on at another mongos")
	}
}
