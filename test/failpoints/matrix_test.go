package failpoints_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrix kills the server at every point and compares what everybody
// knows when it, or the other node of its store, has gone on.
func TestCrashMatrix(t *testing.T) {
	all := scenarios()
	for _, p := range failpoint.Points() {
		if !slices.ContainsFunc(all, func(s scenario) bool { return s.point == p }) {
			t.Errorf("no scenario reaches %s", p)
		}
	}
	sources := []int{17}
	if full() {
		sources = pgtest.Majors()
	}
	var m matrix
	t.Run("points", func(t *testing.T) {
		store := pgtest.Start(t, 17)
		for _, major := range sources {
			source := startSource(t, major)
			for _, p := range []place{{source: source}, {store: store, source: source}} {
				for _, s := range all {
					if p.store != nil && !s.short && !full() {
						continue
					}
					t.Run(strings.ReplaceAll(fmt.Sprintf("%s %s %s", s.point, s.how, p), " ", "_"), func(t *testing.T) {
						t.Parallel()
						m.play(t, s, p)
					})
				}
			}
		}
	})
	t.Log(t.Name() + ":" + m.table() + remarks)
}

// startSource starts a server whose log tells what was asked of it.
func startSource(t *testing.T, major int) *pgtest.Server {
	t.Helper()
	return pgtest.Start(t, major, pgtest.WithSetting("log_statement", "all"))
}

// matrix collects what was found.
type matrix struct {
	mu   sync.Mutex
	rows []row
}

type row struct {
	scenario scenario
	place    string
	found    string
	settled  time.Duration // from ready until nothing was open
	root     time.Duration // from ready until the root was seen to work
	ok       bool
}

// record keeps the row as it is at the end of the test.
func (m *matrix) record(t *testing.T, r *row) {
	t.Helper()
	t.Cleanup(func() {
		r.ok = !t.Failed()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.rows = append(m.rows, *r)
	})
}

// play goes through one scenario.
func (m *matrix) play(t *testing.T, s scenario, p place) {
	t.Helper()
	r := row{scenario: s, place: p.String(), found: "not reached"}
	m.record(t, &r)
	if s.alone {
		p.source = startSource(t, p.source.Major)
	}
	w := newWorld(t, p, s.form())
	admin := w.first().Admin(t)
	subject, err := w.issue(t.Context(), admin)
	if err != nil {
		t.Fatalf("have a credential: %v", err)
	}
	w.known = map[string]bool{}
	for _, l := range w.leases(t, w.first()) {
		w.known[l.LeaseID] = true
	}

	s.reach(t, w, string(s.point)+" kill", subject)

	// Of a shared store the other node must set things right, while the first is
	// dead; if that died, too, it comes back.
	node := w.other()
	if !node.Running() {
		node.Run(t)
	}
	ready := time.Now()
	w.workingRoot(t, node)
	r.root = time.Since(ready)
	w.settle(t, node)
	r.settled = time.Since(ready)
	leases := w.leases(t, node)
	w.compare(t, node, leases)
	r.found = s.found(t, w, leases, subject)

	if len(w.nodes) > 1 {
		w.first().Run(t)
		w.workingRoot(t, w.first())
		w.compare(t, w.first(), w.leases(t, w.first()))
	}
	w.revokeAll(t, w.first())
}

// table is what was found, in the order of the points.
func (m *matrix) table() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	order := failpoint.Points()
	slices.SortStableFunc(m.rows, func(a, b row) int {
		if c := slices.Index(order, a.scenario.point) - slices.Index(order, b.scenario.point); c != 0 {
			return c
		}
		return strings.Compare(a.scenario.how+a.place, b.scenario.how+b.place)
	})
	failed := 0
	var out strings.Builder
	fmt.Fprintf(&out, "\n%-13s %-16s %-28s %-55s %9s %9s  %s\n", "point", "", "place", "found", "settled", "root", "ok")
	for _, r := range m.rows {
		verdict := "ok"
		if !r.ok {
			verdict = "FAILED"
			failed++
		}
		fmt.Fprintf(&out, "%-13s %-16s %-28s %-55s %8.1fs %8.1fs  %s\n", r.scenario.point, r.scenario.how, r.place, r.found,
			r.settled.Seconds(), r.root.Seconds(), verdict)
	}
	fmt.Fprintf(&out, "%d scenarios, %d points of %d, failed: %d\n", len(m.rows), len(m.points()), len(order), failed)
	return out.String()
}

func (m *matrix) points() map[failpoint.Point]bool {
	points := map[failpoint.Point]bool{}
	for _, r := range m.rows {
		points[r.scenario.point] = true
	}
	return points
}

// workingRoot waits until the node makes credentials again, and its engine is
// healthy.
func (w *world) workingRoot(t *testing.T, node *vaulttest.Server) {
	t.Helper()
	admin := node.Admin(t)
	var err error
	took := eventually(t, func() string { return fmt.Sprintf("the root works: %v; output: %s", err, tail(node.Output())) }, func() bool {
		var health api.EngineHealth
		if health, err = admin.EngineHealth(t.Context(), "db"); err == nil && health.Status != api.EngineHealthy {
			err = fmt.Errorf("the engine is %s", health.Status)
		}
		return err == nil
	})
	if full() && took > 10*time.Second {
		t.Errorf("the root worked after %s only", took)
	}
	c, err := w.issue(t.Context(), admin)
	if err != nil {
		t.Fatalf("have a credential after the kill: %v", err)
	}
	w.known[c.LeaseID] = true
	if err := w.login(t, c.Data["username"], c.Data["password"], "SELECT FROM items"); err != nil {
		t.Errorf("a credential from after the kill does not work: %v", err)
	}
}

// settle waits until all that a kill cut off is decided, and the source has the
// end of every lease.
func (w *world) settle(t *testing.T, node *vaulttest.Server) {
	t.Helper()
	open := ""
	eventually(t, func() string { return open + "; output: " + tail(node.Output()) }, func() bool {
		accounts := w.accounts(t)
		for _, l := range w.leases(t, node) {
			a, there := accounts[l.Username]
			if l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking || there && l.Status == api.LeaseActive && a.until.Sub(l.ExpiresAt).Abs() > time.Second {
				open = fmt.Sprintf("lease %s of %s is %s until %s, %+v; at the source: %v %+v", l.LeaseID, l.Username, l.Status, l.ExpiresAt, l.Revocation, there, a)
				return false
			}
		}
		return true
	})
}

// compare fails for every difference between leases, accounts and the trail.
func (w *world) compare(t *testing.T, node *vaulttest.Server, leases []api.Lease) {
	t.Helper()
	accounts := w.accounts(t)
	for _, l := range leases {
		a, there := accounts[l.Username]
		delete(accounts, l.Username)
		switch {
		case l.Status == api.LeaseActive && (!there || !a.login):
			t.Errorf("lease %s lives, and its account does not", l.LeaseID)
		case l.Status == api.LeaseRevoked && there:
			t.Errorf("lease %s is revoked, and its account is there: %+v", l.LeaseID, a)
		case there && a.until.After(l.MaxExpiresAt.Add(time.Second)):
			t.Errorf("account %s lives until %s, and its lease at most until %s", l.Username, a.until, l.MaxExpiresAt)
		}
	}
	for name := range accounts {
		t.Errorf("account %s has no lease", name)
	}
	w.compareTrail(t, node, leases)
}

// compareTrail wants one entry of a lease's request, one of what came of it, one
// of its end if it has ended, and whole chains.
func (w *world) compareTrail(t *testing.T, node *vaulttest.Server, leases []api.Lease) {
	t.Helper()
	admin := node.Admin(t)
	entries := map[string]map[string]int{} // by lease, by action and outcome
	for entry, err := range admin.AuditLogs(t.Context(), client.AuditFilter{}) {
		if err != nil {
			t.Fatalf("read the audit trail: %v", err)
		}
		id, _ := entry.ExtraData["lease_id"].(string)
		if entries[id] == nil {
			entries[id] = map[string]int{}
		}
		entries[id][fmt.Sprint(entry.Action, " ", entry.ExtraData["outcome"])]++
	}
	delete(entries, "") // of nothing that has a lease
	for _, l := range leases {
		of := entries[l.LeaseID]
		delete(entries, l.LeaseID)
		made := of["dynamic_generate issued"] + of["dynamic_generate recovered"] + of["dynamic_generate failed"]
		ended := l.Status == api.LeaseRevoked
		if absent := ended && l.Revocation.Reason == api.ReasonIssueFailed; absent {
			ended = of["dynamic_revoke revoked"] > 0 // where nothing was made, nothing is revoked
		}
		if of["dynamic_generate requested"] != 1 || made != 1 || of["dynamic_revoke revoked"] > 1 || ended != (of["dynamic_revoke revoked"] == 1) {
			t.Errorf("lease %s is %s and has the entries %v", l.LeaseID, l.Status, of)
		}
	}
	for id, of := range entries {
		t.Errorf("there are entries of lease %s, which does not exist: %v", id, of)
	}
	verified, err := admin.VerifyAudit(t.Context())
	if err != nil || !verified.OK || len(verified.Chains) < len(w.nodes) {
		t.Errorf("the audit chains do not verify: %+v, %v", verified.Chains, err)
	}
}

// revokeAll shows that what is left can be revoked.
func (w *world) revokeAll(t *testing.T, node *vaulttest.Server) {
	t.Helper()
	result, err := node.Admin(t).RevokePrefix(t.Context(), "db/"+w.role, patience/2)
	if err != nil || result.Pending != 0 {
		t.Errorf("revoke what is left: %+v, %v", result, err)
	}
	if left := w.accounts(t); len(left) != 0 {
		t.Errorf("accounts are left after all was revoked: %v", left)
	}
}
