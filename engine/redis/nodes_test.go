package redis_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/redistest"
)

// newSet sets every server of a set up, and names some of them in the URL.
func newSet(t *testing.T, set *redistest.Set, rules ...string) *source {
	t.Helper()
	s := &source{servers: set.Servers(), namer: newNamer()}
	for _, server := range s.servers {
		setUp(t, server, rules...)
	}
	seeds, scheme, name := set.Masters, "redis", ""
	if set.Name != "" {
		seeds, scheme, name = set.Sentinels, "redis+sentinel", set.Name
	}
	var addresses []string
	for _, server := range seeds {
		addresses = append(addresses, server.Addr())
	}
	s.url = scheme + "://{{username}}:{{password}}@" + strings.Join(addresses, ",") + "/" + name
	return s
}

// TestCluster: a credential is on every node of a cluster and dead on every node,
// also on one that was away while it was made or ended.
func TestCluster(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartCluster(t, kind, 3)
			s := newSet(t, set, "+cluster|nodes")
			e := s.open(t, map[string]any{"connect_timeout": "2s"})
			if h := e.Check(t.Context()); h.Status != "healthy" || len(h.MissingGrants)+len(h.Warnings) > 0 {
				t.Errorf("health of a whole cluster: %+v", h)
			}
			everywhere(t, s, e)
			fenced(t, set.Masters)
			s.returns(t, e, set.Masters[0], func() {})
			s.frozen(t, e, set.Replicas[2])
			s.neverReturns(t, e, set)
		})
	}
}

// TestSentinel is the same for a set that Sentinels watch, and over a failover.
func TestSentinel(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			set := redistest.StartWatched(t, kind, 3)
			s := newSet(t, set)
			e := s.open(t, map[string]any{"connect_timeout": "2s"})
			everywhere(t, s, e)
			former := set.Masters[0]
			s.returns(t, e, former, func() { // a master that is back too early stays the master
				eventually(t, "the Sentinels name another master", func() bool { return set.Master(t) != former })
			})
			everywhere(t, s, e)
		})
	}
}

// everywhere makes and ends a credential while all nodes are there.
func everywhere(t *testing.T, s *source, e engine.Engine) {
	t.Helper()
	c := issue(t, e)
	for _, server := range s.servers {
		works(t, server, c)
	}
	if p, err := e.Lookup(t.Context(), c.recipe); err != nil || p.State != engine.Usable {
		t.Errorf("lookup: %+v, %v", p, err)
	}
	revoke(t, e, c.recipe)
	for _, server := range s.servers {
		dead(t, server, c)
	}
}

// returns takes a node away, makes and ends credentials without it, and brings
// it back after awaiting what must come before.
func (s *source) returns(t *testing.T, e engine.Engine, away *redistest.Server, before func()) {
	t.Helper()
	kept, ended := issue(t, e), issue(t, e)
	away.Kill(t)
	eventually(t, "the others know that the node is away", func() bool {
		_, err := e.Revoke(t.Context(), ended.recipe)
		if err == nil {
			t.Fatal("a credential is said to be dead on a node that is away")
		}
		for _, server := range s.servers {
			if server != away && slices.Contains(server.Users(t), ended.username) {
				return false
			}
		}
		return engine.KindOf(err) == engine.Busy && strings.Contains(err.Error(), away.Addr())
	})
	for _, server := range s.servers {
		if server != away {
			dead(t, server, ended)
		}
	}
	var made credential
	eventually(t, "credentials are given without the node", func() bool {
		p := plan(t, e, parseRole(t, readApp))
		recipe, err := e.Issue(t.Context(), p)
		made = credential{p.Username, p.Data["password"].Reveal(), recipe}
		return err == nil
	})

	before()
	away.Run(t)
	eventually(t, "who was ended meanwhile is refused on the node that is back", func() bool { return refused(away, ended) })
	eventually(t, "who was made meanwhile is known on the node that is back", func() bool { return !refused(away, made) })
	eventually(t, "the revocation is done", func() bool { _, err := e.Revoke(t.Context(), ended.recipe); return err == nil })
	for _, server := range s.servers {
		works(t, server, kept)
		works(t, server, made)
		dead(t, server, ended)
	}
	revoke(t, e, kept.recipe)
	revoke(t, e, made.recipe)
	for _, server := range s.servers {
		dead(t, server, kept)
		dead(t, server, made)
	}
	away.Kill(t)
	away.Run(t)
	dead(t, away, made)
}

// fenced fails unless the masters took the keys of the fences, each in a slot of
// its own.
func fenced(t *testing.T, masters []*redistest.Server) {
	t.Helper()
	for _, m := range masters {
		for line := range strings.SplitSeq(flat(m.Do(t, "INFO", "commandstats")), "\r\n") {
			if strings.HasPrefix(line, "cmdstat_set:") && (!strings.Contains(line, "rejected_calls=0") || !strings.Contains(line, "failed_calls=0")) {
				t.Errorf("a fence was not taken: %s", line)
			}
		}
		if !strings.Contains(flat(m.Do(t, "INFO", "commandstats")), "cmdstat_exec:") {
			t.Error("a master made a user without a fence")
		}
	}
}

// frozen halts a node that keeps its connections: credentials are made and ended
// without it, and it executes nothing late that was not to be.
func (s *source) frozen(t *testing.T, e engine.Engine, halted *redistest.Server) {
	t.Helper()
	ended := issue(t, e)
	halted.Freeze(t)
	eventually(t, "the others refuse", func() bool {
		_, err := e.Revoke(t.Context(), ended.recipe)
		return engine.KindOf(err) == engine.Busy && strings.Contains(err.Error(), halted.Addr())
	})
	halted.Thaw(t)
	eventually(t, "the revocation is done", func() bool { _, err := e.Revoke(t.Context(), ended.recipe); return err == nil })
	for _, server := range s.servers {
		dead(t, server, ended)
	}
	everywhereSoon(t, s, e)
}

// everywhereSoon waits for the nodes to be alike.
func everywhereSoon(t *testing.T, s *source, e engine.Engine) {
	t.Helper()
	c := issue(t, e)
	for _, server := range s.servers {
		eventually(t, "the credential is known", func() bool { return !refused(server, c) })
	}
	eventually(t, "the credential is ended", func() bool { _, err := e.Revoke(t.Context(), c.recipe); return err == nil })
}

// neverReturns takes a node away for good: its lease is kept until it is said to
// be gone, or has left the cluster.
func (s *source) neverReturns(t *testing.T, e engine.Engine, set *redistest.Set) {
	t.Helper()
	named, left := issue(t, e), issue(t, e)
	gone := set.Replicas[1]
	id := flat(gone.Do(t, "CLUSTER", "MYID"))
	gone.Kill(t)
	for _, c := range []credential{named, left} {
		eventually(t, "the node is missed", func() bool {
			_, err := e.Revoke(t.Context(), c.recipe)
			return engine.KindOf(err) == engine.Busy && strings.Contains(err.Error(), gone.Addr())
		})
	}
	revoke(t, s.open(t, map[string]any{"gone_nodes": []string{gone.Addr()}}), named.recipe)
	eventually(t, "the node is forgotten", func() bool {
		for _, server := range set.Servers() {
			if server != gone {
				_, _ = server.Try("CLUSTER", "FORGET", id) // who has done so says it knows no such node
			}
		}
		_, err := e.Revoke(t.Context(), left.recipe)
		return err == nil
	})
}

// refused tells whether a server refuses the login.
func refused(s *redistest.Server, c credential) bool {
	client := s.Client(c.username, c.password)
	defer client.Close()
	err := client.Ping(bg).Err()
	return err != nil && strings.Contains(err.Error(), "WRONGPASS")
}
