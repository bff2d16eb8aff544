package redis

import (
	"context"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Redis replicates no users, so a node that was away lacks the users that were
// made meanwhile and has those that were ended. When it is back, the former are
// copied to it from a node that was there, by their hashes, and the latter are
// switched off there; ending them is for the lease manager, which tries until
// all nodes have done it.
//
// A revocation must not meet a copy that brings its user back. It switches the
// user off on all nodes before it deletes it on any (revoke.go), and a copy is
// made off, is looked up once more where it came from, and only then switched on,
// by a change that names no password: on a user that is gone it makes an empty
// shell, which nobody can log in to and the copy takes away.
const (
	repairPace  = time.Second      // while a node is known to have been away
	repairEvery = 30 * time.Second // else: also a node that was away while ScaiVault was
)

// mismatch is a user that a node lacks, or has, as those that were there do not.
type mismatch struct {
	address, name string
	missing       bool
}

// repairAlways compares the nodes until the engine is closed.
func (e *Engine) repairAlways(ctx context.Context) {
	tick := time.NewTicker(repairPace)
	defer tick.Stop()
	last := time.Now().Add(-repairEvery) // the first comparison is soon
	for {
		select {
		case <-e.closed:
			return
		case <-tick.C:
		}
		due := time.Since(last) >= repairEvery
		if due {
			last = time.Now()
		}
		if err := e.repair(ctx, due); err != nil {
			e.log.Warn("the nodes of a source could not be compared", "reason", plain(err).Reason)
		}
	}
}

// listing is a node with its users.
type listing struct {
	member
	users  map[string]account
	behind bool // known to have been away, or new
}

// repair compares all nodes once, if that is due or one of them was away, and
// mends what the last comparison has found, too: what differs but once is an
// issuance or a revocation under way.
func (e *Engine) repair(ctx context.Context, due bool) error {
	if !due && !e.pressing() {
		return nil
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return err
	}
	if !e.comparable(members, due) {
		return nil
	}
	listings := e.listAll(ctx, members)
	found := map[mismatch]bool{}
	for _, m := range compare(listings, e.isCluster()) {
		found[m] = true
	}
	e.mu.Lock()
	before := e.suspected
	e.suspected = found
	e.mu.Unlock()
	for _, l := range listings {
		e.mend(ctx, l, listings, found, before)
	}
	return nil
}

// pressing tells whether a node may have to be repaired.
func (e *Engine) pressing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.behind)+len(e.suspected) > 0
}

// comparable tells whether there is anything to compare: of one node there is
// not, and one that is still away must come back first. Nodes that have left the
// source are forgotten.
func (e *Engine) comparable(members []member, due bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(members) == 1 {
		clear(e.behind)
		return false
	}
	back, here := false, map[string]bool{}
	for _, m := range members {
		here[m.address] = true
		back = back || m.err == nil && e.behind[m.address]
	}
	for address := range e.behind {
		if !here[address] {
			delete(e.behind, address)
		}
	}
	return due || back || len(e.suspected) > 0
}

// listAll lists the users of ours on each node that can be asked.
func (e *Engine) listAll(ctx context.Context, members []member) []listing {
	users := make(map[*node]map[string]account, len(members))
	for _, m := range members {
		users[m.node] = map[string]account{}
	}
	outcomes := onEach(members, func(m member) error {
		all, err := m.users(ctx)
		for _, u := range all {
			if e.ours(u) {
				users[m.node][u.name] = u // each node has a map of its own
			}
		}
		return err
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	var listings []listing
	for _, o := range outcomes {
		if o.err == nil {
			behind := e.behind[o.address] || e.marker != "" && !o.marked
			listings = append(listings, listing{o.member, users[o.node], behind})
		}
	}
	return listings
}

// compare finds what each node lacks, and what it alone has. The others know
// better: those that were there all the time. Where nobody is known to have been
// away, as after a start of ours, all others must agree, a master among them.
func compare(listings []listing, cluster bool) []mismatch {
	names := map[string]bool{}
	for _, l := range listings {
		for name := range l.users {
			names[name] = true
		}
	}
	var found []mismatch
	for i, l := range listings {
		var others []listing
		master := cluster
		for k, other := range listings {
			if k != i && !other.behind {
				others = append(others, other)
				master = master || !other.replica
			}
		}
		if len(others) == 0 || !l.behind && !master {
			continue
		}
		for name := range names {
			_, has := l.users[name]
			on, off := count(others, name)
			switch {
			case !has && on == len(others):
				found = append(found, mismatch{l.address, name, true})
			case has && on+off == 0:
				found = append(found, mismatch{l.address, name, false})
			}
		}
	}
	return found
}

func count(listings []listing, name string) (on, off int) {
	for _, l := range listings {
		switch a, has := l.users[name]; {
		case has && a.on:
			on++
		case has:
			off++
		}
	}
	return on, off
}

// mend makes one node like the others. One that needs nothing more is no longer
// behind, and bears the source's identity if it is new.
func (e *Engine) mend(ctx context.Context, l listing, listings []listing, found, before map[mismatch]bool) {
	open, changed := 0, false
	for m := range found {
		if m.address != l.address {
			continue
		}
		open++
		if !before[m] {
			continue
		}
		var err error
		if m.missing {
			err = e.copyUser(ctx, l.member, m.name, listings)
		} else {
			err = e.switchOff(ctx, l.member, l.users[m.name])
		}
		changed = true
		if err != nil {
			e.log.Warn("a node could not be repaired, it is tried again", "address", l.address, "username", m.name, "reason", plain(err).Reason)
			continue
		}
		open--
		e.log.Info("a node that was away was repaired", "address", l.address, "username", m.name, "copied", m.missing)
	}
	if changed {
		if err := l.persist(ctx); err != nil {
			open++
		}
	}
	if open == 0 && e.marker != "" && !l.marked {
		if err := l.bear(ctx, e.marker); err != nil {
			open++
		}
	}
	if open == 0 {
		e.mu.Lock()
		delete(e.behind, l.address)
		e.mu.Unlock()
	}
}

// copyUser brings a user to a node from one that has it.
func (e *Engine) copyUser(ctx context.Context, to member, name string, listings []listing) error {
	const attempt = "copy a user to a node that was away"
	var from []listing
	for _, l := range listings {
		if a, has := l.users[name]; has && a.on && l.node != to.node {
			from = append(from, l)
		}
	}
	user := []any{"ACL", "SETUSER", name, "reset"}
	for _, rule := range from[0].users[name].rules {
		if rule != "on" && rule != "off" {
			user = append(user, rule)
		}
	}
	return to.pool.With(ctx, engine.Revoking, func(c *conn) error {
		if _, err := c.do(ctx, append(user, "off")...); err != nil {
			return mapped(attempt, err)
		}
		alive := true
		for _, l := range from {
			err := l.pool.With(ctx, engine.Revoking, func(other *conn) error {
				answer, err := other.do(ctx, "ACL", "GETUSER", name)
				a, _ := readUser(name, answer)
				alive = alive && a.on && err == nil
				return mapped(attempt, err)
			})
			alive = alive && err == nil
		}
		if alive {
			replies, err := c.send(ctx, command{"ACL", "SETUSER", name, "on"}, command{"ACL", "GETUSER", name})
			if err != nil {
				return sentError(attempt, err)
			}
			a, _ := readUser(name, replies[1].value)
			alive = slices.Contains(a.hashes, markOf(e.options.Namer, name))
		}
		if alive {
			return nil
		}
		_, err := c.do(ctx, "ACL", "DELUSER", name)
		return mapped(attempt, err)
	})
}

// switchOff takes the login from a user that no node has which was there; one
// that is off already is deleted.
func (e *Engine) switchOff(ctx context.Context, m member, a account) error {
	if a.on {
		return e.disable(ctx, m, []string{a.name})
	}
	return e.remove(ctx, m, []string{a.name})
}
