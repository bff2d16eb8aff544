package lease_test

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/store"
)

// check is the oracle for a world at rest.
func (s *sim) check(when string) {
	s.w.process = s.present.Load()
	fail := func(format string, args ...any) {
		s.w.t.Helper()
		s.w.t.Errorf(when+": "+format, args...)
	}
	rows := s.w.rows()
	byName, byID := map[string]*store.Lease{}, map[string]*store.Lease{}
	for _, l := range rows {
		byName[l.Username], byID[l.ID] = l, l
	}
	now := s.w.clock.Now()
	away := time.Since(now) // of the sources' time before the agreed
	// A source tells what time it is to a second, and how far its clock was from ours was told to a second, too.
	const told = 2 * time.Second
	for _, src := range []*leasetest.Source{s.w.one, s.w.two} {
		for _, name := range src.Taken() {
			if !src.CanLogin(name) {
				fail("somebody else's account %s was touched", name)
			}
		}
		for _, a := range src.Accounts() {
			l := byName[a.Name]
			switch {
			case a.Mark == "":
			case l == nil:
				fail("orphan %s: no lease bears it", a.Name)
			case l.Status != api.LeaseActive:
				fail("orphan %s: its lease is %s (%+v, due %v, deadline %v)", a.Name, l.Status, l.Revocation, l.DueAt, l.Deadline)
			case l.DueAt == nil:
				fail("the lease of %s leads nobody to it", a.Name)
			case a.Until.After(l.MaxExpiresAt.Add(away + told)):
				fail("%s ends at %s at the source, after %s", a.Name, a.Until, l.MaxExpiresAt)
			case a.Until.Before(l.ExpiresAt.Add(away - told)):
				fail("%s ends at %s at the source, before its lease at %s", a.Name, a.Until, l.ExpiresAt)
			}
		}
	}
	for _, l := range rows {
		switch {
		case l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking:
			fail("%s is still %s (%+v, due %v, claim %+v)", l.ID, l.Status, l.Revocation, l.DueAt, l.Claim)
		case l.Status == api.LeaseActive && !l.ExpiresAt.After(now):
			fail("%s lives on after its end at %s", l.ID, l.ExpiresAt)
		case l.Status == api.LeaseActive && l.PendingExpiresAt != nil:
			fail("%s still has an end that was never decided", l.ID)
		case l.Status == api.LeaseRevoked && l.DueAt != nil:
			fail("%s is closed and still due at %s (looks %d)", l.ID, l.DueAt, l.LateLooks)
		case l.ExpiresAt.After(l.MaxExpiresAt):
			fail("%s ends after its longest life", l.ID)
		}
	}
	for _, g := range s.given {
		s.checkGiven(fail, g, byID[g.LeaseID], now)
	}
	s.checkCounters(fail, rows)
	s.checkAudit(fail, when, byID)
}

// checkNotEarly wants a credential that nobody asked the end of to live until its end, in the time that
// truly passes, whatever the store's clock says. A source tells what time it is to a second, and how far
// its clock was from ours was told to a second, too.
func (s *sim) checkNotEarly(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.given {
		if g.Data["username"] == name && !g.asked && !g.moved && !s.prefix[g.Engine] && !s.byOwner[g.owner] && time.Until(g.ends) > 2*time.Second {
			s.w.t.Errorf("%s is revoked %s before its end", g.LeaseID, time.Until(g.ends))
		}
	}
}

// checkGiven wants a credential that was answered alive, or dead by a named cause.
func (s *sim) checkGiven(fail func(string, ...any), g *given, l *store.Lease, now time.Time) {
	name := g.Data["username"]
	switch {
	case l == nil:
		fail("%s was answered and has no lease", g.LeaseID)
	case l.Username != name:
		fail("%s was answered with %s and is of %s", g.LeaseID, name, l.Username)
	case l.Status == api.LeaseActive:
		if g.dead {
			fail("%s was answered to be dead and is active", g.LeaseID)
		}
		if !s.w.at(g.Engine).CanLogin(name) {
			fail("%s is active and does not work", g.LeaseID)
		}
	case l.Status == api.LeaseRevoked:
		why := l.Revocation.Reason
		ok := false
		switch why {
		case api.ReasonExpired:
			ok = !l.RevokedAt.Before(l.ExpiresAt) && !now.Before(l.ExpiresAt)
		case api.ReasonRevoked, api.ReasonUndelivered:
			ok = g.asked
		case api.ReasonPrefix:
			ok = s.prefix[g.Engine]
		case api.ReasonIdentityRevoked:
			ok = s.byOwner[g.owner]
		}
		if !ok {
			fail("%s was answered and is dead by %s, which nobody asked for (%+v)", g.LeaseID, why, l)
		}
	}
}

func (s *sim) checkCounters(fail func(string, ...any), rows []*store.Lease) {
	want := map[store.LeaseCount]int64{}
	for _, l := range rows {
		want[store.LeaseCount{EngineID: l.EngineID, Role: l.Role, Status: l.Status}]++
	}
	s.w.must(s.w.base.Read(context.Background(), func(r store.Reader) error {
		kept, err := r.LeaseCounts("")
		for _, c := range kept {
			n := c.N
			c.N = 0
			if want[c] != n {
				fail("the counter of %+v is %d, there are %d", c, n, want[c])
			}
			delete(want, c)
		}
		if len(want) > 0 {
			fail("no counter for %+v", want)
		}
		return err
	}))
}

// checkAudit proves the chain, and that each state of each lease has its entry.
func (s *sim) checkAudit(fail func(string, ...any), when string, leases map[string]*store.Lease) {
	seen := map[string][]string{}
	s.w.must(s.w.base.Read(context.Background(), func(r store.Reader) error {
		rows, err := r.AuditChain(s.w.base.Node(), 1, 0)
		var prev []byte
		for k, row := range rows {
			mac := chain(prev, store.AuditMessage(row))
			if !bytes.Equal(mac, row.MAC) || row.Seq != int64(k+1) {
				fail("the audit chain breaks at %d", row.Seq)
				return nil
			}
			prev = mac
			if id, ok := row.Entry.ExtraData["lease_id"].(string); ok {
				outcome, _ := row.Entry.ExtraData["outcome"].(string)
				seen[id] = append(seen[id], row.Entry.Action+" "+outcome)
			}
		}
		return err
	}))
	for id, l := range leases {
		if slices.Contains(seen[id], "dynamic_revoke looked_again") {
			fail("%s was closed before late execution was excluded: %q", id, seen[id])
			for _, c := range append(s.w.one.Touches(), s.w.two.Touches()...) {
				if c.Name == l.Username || c.Op == "settle" {
					s.w.t.Logf("%s %s", c.Op, c.At.Format("04:05.000000000"))
				}
			}
			for _, e := range s.w.entries() {
				if e.ExtraData["lease_id"] == id {
					s.w.t.Logf("%s %v %v", e.Timestamp.Format("04:05.000000"), e.Action, e.ExtraData)
				}
			}
		}
		has := func(options ...string) bool {
			return slices.ContainsFunc(options, func(o string) bool { return slices.Contains(seen[id], o) })
		}
		if !has("dynamic_generate requested") {
			fail("%s has no entry of its request: %q", id, seen[id])
		}
		if l.Status == api.LeaseActive && !has("dynamic_generate issued", "dynamic_generate recovered") {
			fail("%s is active and has no entry of it: %q", id, seen[id])
		}
		if l.Status == api.LeaseRevoked && !has("dynamic_revoke revoked", "dynamic_generate failed") {
			fail("%s is revoked and has no entry of it: %q", id, seen[id])
		}
	}
	if len(s.given) > 0 && when == atTheEnd {
		for _, all := range seen {
			for _, one := range all {
				met.add(one)
			}
		}
	}
	for _, g := range s.given {
		if !slices.Contains(seen[g.LeaseID], "dynamic_generate issued") {
			fail("%s was answered and has no entry of it: %q", g.LeaseID, seen[g.LeaseID])
		}
	}
}

// checkAllEnded wants nothing of ours left when every life is over.
func (s *sim) checkAllEnded() {
	for _, src := range []*leasetest.Source{s.w.one, s.w.two} {
		for _, a := range src.Accounts() {
			if a.Mark != "" {
				s.w.t.Errorf("%s outlived everything", a.Name)
			}
		}
	}
	for _, l := range s.w.rows() {
		if l.Status != api.LeaseRevoked {
			s.w.t.Errorf("%s is %s when every life is over", l.ID, l.Status)
			continue
		}
		met.add("end " + l.Revocation.Reason)
		if l.Unconfirmed {
			met.add("unconfirmed")
		}
	}
}
