package failpoints_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/servertest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// target is a source that is no PostgreSQL, as far as a kill of the server at any point needs to
// know it.
type target struct {
	engine  string                                           // the type of its document
	config  client.Document                                  // without timeout and path of the root
	form    client.Document                                  // of the role, without its name and ends
	params  map[string]any                                   // of a request for a credential
	root    map[string]string                                // the root's fields; nil for a source without one
	users   func(t *testing.T) []string                      // the accounts of the role; nil where the source keeps none
	ends    func(t *testing.T) map[string]time.Time          // of each account; nil where the source is told none
	login   func(t *testing.T, data map[string]string) error // uses what a caller was given
	restart func(t *testing.T)                               // with kill -9; nil where other tests use the source, too

	lasting bool                                                    // what is revoked goes on when a test has ended: its lease says until when
	ended   func(t *testing.T, l api.Lease, data map[string]string) // tries what was revoked; nil where that is not told by accounts
	denied  func(t *testing.T) []string                             // leases whose credentials may do nothing until they end; nil where none can be kept from it
}

// rootOf is the root of a guide under a name.
func rootOf(username string) map[string]string {
	return map[string]string{"username": username, "password": servertest.GuidePassword}
}

// variant is one way to play the scenarios of a source.
type variant struct {
	name      string
	shared    bool              // by two nodes of a shared store: the other settles what the dead one has left
	scenarios []scenario        // all that are played in full
	short     []failpoint.Point // those of which are played otherwise, too
	target    func(t *testing.T, role string) target
}

// both are a variant on either store; its short form is on the embedded one.
func both(v variant) []variant {
	other := v
	other.name, other.shared, other.short = v.name+", shared", true, nil
	return []variant{v, other}
}

// playAll plays the scenarios of a source. Every point is reached by one of them, or is an exception with
// a reason.
func playAll(t *testing.T, variants []variant, exceptions map[failpoint.Point]string) {
	t.Helper()
	for _, p := range failpoint.Points() {
		played := slices.ContainsFunc(variants, func(v variant) bool { return reaching(v.scenarios, p) })
		if reason, excepted := exceptions[p]; played == excepted {
			t.Errorf("%s is reached: %t, and is an exception: %t %s", p, played, excepted, reason)
		}
	}
	var m matrix
	var store *pgtest.Server
	if full() {
		store = pgtest.Start(t, 17)
		t.Cleanup(func() { t.Logf("%s:%sexceptions: %v", t.Name(), m.table(), exceptions) }) // behind all subtests
	}
	for _, v := range variants {
		for _, s := range v.scenarios {
			if !full() && !slices.Contains(v.short, s.point) {
				continue
			}
			t.Run(strings.ReplaceAll(strings.TrimSpace(fmt.Sprintf("%s %s %s", v.name, s.point, s.how)), " ", "_"), func(t *testing.T) {
				t.Parallel()
				var nodes []*vaulttest.Server
				if v.shared {
					nodes = vaulttest.StartNodes(t, vaulttest.Failing(t), 2, store.SuperURL(store.CreateDB(t)))
				} else {
					nodes = append(nodes, vaulttest.StartProgram(t, vaulttest.Failing(t)))
				}
				r := row{scenario: s, place: v.name, found: "not reached"}
				m.record(t, &r)
				role := newRole()
				r = v.target(t, role).play(t, s, role, nodes...)
				r.place = v.name
			})
		}
	}
}

func reaching(scenarios []scenario, p failpoint.Point) bool {
	return slices.ContainsFunc(scenarios, func(s scenario) bool { return s.point == p })
}

// of keeps the scenarios of some points.
func of(scenarios []scenario, points ...failpoint.Point) []scenario {
	return slices.DeleteFunc(scenarios, func(s scenario) bool { return !slices.Contains(points, s.point) })
}

// newRole is a name that no other test gives a role: names of accounts hold it.
func newRole() string { return "r" + strings.ToLower(rand.Text()[:8]) }

// everywhere are the points with what leads to them, and what must have become of it, whatever the
// source is. Where a source has no transactions, a message of several, or an answer that was not
// read, leaves either of two.
func everywhere() []scenario {
	all := []scenario{
		{point: failpoint.F1, reach: issuing, found: nothing},
		{point: failpoint.IntentOpen, reach: issuing, found: nothing},
		{point: failpoint.F2, reach: issuing, found: absent},
		{point: failpoint.F3, reach: issuing, found: decided},
		{point: failpoint.F4, reach: issuing, found: decided},
		{point: failpoint.F5, reach: issuing, found: decided},
		{point: failpoint.F6, reach: issuing, found: unconfirmed},
		{point: failpoint.Found, reach: recovering, found: unconfirmed},
		{point: failpoint.F7, reach: issuing, found: confirmed},
		{point: failpoint.F8, reach: issuing, found: confirmed},
		{point: failpoint.F9, reach: issuing, found: confirmed},
		{point: failpoint.Fenced, reach: revokingPrefix, found: closed, ends: true},
		{point: failpoint.N1, reach: renewing, found: formerEnd},
		{point: failpoint.N2, reach: renewing, found: formerEnd},
		{point: failpoint.N3, reach: renewing, found: newEnd},
	}
	for _, p := range []failpoint.Point{failpoint.R1, failpoint.Disabled, failpoint.R2, failpoint.R3, failpoint.R4, failpoint.R5} {
		all = append(all, scenario{point: p, reach: revoking, found: closed, ends: true})
	}
	for _, p := range []failpoint.Point{failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSent, failpoint.RootSet,
		failpoint.RootProved, failpoint.RootPromoted, failpoint.RootDone} {
		all = append(all, scenario{point: p, reach: rotating, found: rotatable})
	}
	return all
}

// decided wants what was cut off at the source either there or not.
func decided(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	if only(t, w, leases).Status == api.LeaseActive {
		return unconfirmed(t, w, leases, subject)
	}
	return absent(t, w, leases, subject)
}

// rotatable wants no leases that nobody asked for, and that the root can be rotated again.
func rotatable(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	var err error
	eventually(t, func() string { return fmt.Sprintf("the root is rotated again: %v", err) }, func() bool {
		_, err = w.other().Admin(t).RotateRoot(t.Context(), "db")
		return err == nil
	})
	nothing(t, w, leases, subject)
	return "the root works, and is rotated again"
}

// play kills the first of the nodes and compares users, leases and the trail when it, or the other
// node of its store, has gone on.
func (s target) play(t *testing.T, at scenario, role string, nodes ...*vaulttest.Server) row {
	t.Helper()
	r := row{scenario: at}
	w := &world{nodes: nodes, role: role, known: map[string]bool{}, params: s.params}
	s.config["operation_timeout"] = operationTimeout
	if err := w.configure(t.Context(), w.first().Admin(t), s.engine, s.config, s.root, s.form); err != nil {
		t.Fatalf("set the server up: %v; its output: %s", err, tail(w.first().Output()))
	}
	subject := s.credential(t, w, w.first())
	w.known[subject.LeaseID] = true

	at.reach(t, w, string(at.point)+" kill", subject)
	node := w.other()
	if !node.Running() {
		node.Run(t)
	}
	ready := time.Now()
	leases := s.decided(t, w, node, at.ends)
	r.settled = time.Since(ready)
	if s.restart != nil { // before anything else makes it save what it has
		s.restart(t)
	}
	s.compare(t, leases)
	w.compareTrail(t, node, leases)
	r.found = at.found(t, w, leases, subject)
	if l := leaseOf(leases, subject); l != nil && at.ends && s.ended != nil {
		s.ended(t, *l, subject.Data)
	}

	ready = time.Now()
	s.credential(t, w, node)
	r.root = time.Since(ready)
	if len(w.nodes) > 1 {
		w.first().Run(t)
		s.credential(t, w, w.first())
	}
	admin := w.first().Admin(t) // one: each has connections, of which a server takes so many
	for range 2 {               // the second time nothing is left to do
		var result api.RevokeResult
		var err error
		eventually(t, func() string { return fmt.Sprintf("what is left is revoked: %+v, %v", result, err) }, func() bool {
			result, err = admin.RevokePrefix(t.Context(), "db/"+w.role, patience/2)
			if err == nil && result.Pending > 0 && s.lasting {
				return !slices.ContainsFunc(w.leases(t, node), func(l api.Lease) bool { return l.Status == api.LeaseActive || s.open(l) })
			}
			return err == nil && result.Pending == 0 // a source may say that it is dead a little later
		})
	}
	s.compare(t, w.leases(t, w.first()))
	return r
}

// credential is a new one, by which somebody logs in.
func (s target) credential(t *testing.T, w *world, node *vaulttest.Server) api.Credential {
	t.Helper()
	var c api.Credential
	var err error
	eventually(t, func() string { return fmt.Sprintf("a credential is made: %v; output: %s", err, tail(node.Output())) }, func() bool {
		c, err = w.issue(t.Context(), node.Admin(t))
		return err == nil
	})
	if err := s.login(t, c.Data); err != nil {
		t.Errorf("the credential of lease %s is not accepted: %v", c.LeaseID, err)
	}
	return c
}

// open tells whether something is left to do of a lease: neither does it live, nor is it closed, nor has it only to
// wait for a moment that is known.
func (s target) open(l api.Lease) bool {
	promised := s.lasting && l.Status == api.LeaseRevoking && l.Revocation.EffectiveAt != nil
	return l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking && !promised
}

// decided waits until all that the kill cut off is decided, all that lived before has ended if that was asked, and
// the source has the end of every lease.
func (s target) decided(t *testing.T, w *world, node *vaulttest.Server, ends bool) (leases []api.Lease) {
	t.Helper()
	eventually(t, func() string { return fmt.Sprintf("all is decided: %+v; output: %s", leases, tail(node.Output())) }, func() bool {
		leases = w.leases(t, node)
		var at map[string]time.Time
		if s.ends != nil {
			at = s.ends(t)
		}
		return !slices.ContainsFunc(leases, func(l api.Lease) bool {
			end, told := at[l.Username]
			return s.open(l) || ends && w.known[l.LeaseID] && l.Status == api.LeaseActive ||
				told && l.Status == api.LeaseActive && end.Sub(l.ExpiresAt).Abs() > time.Second
		})
	})
	return leases
}

// compare fails for an account without a living lease, and for a living lease without its account, or without
// its end at a source that is told it; and for one that is denied everything without a lease that is being revoked,
// and the reverse.
func (s target) compare(t *testing.T, leases []api.Lease) {
	t.Helper()
	if s.denied != nil {
		var want []string
		for _, l := range leases {
			if l.Status == api.LeaseRevoking {
				want = append(want, l.LeaseID)
			}
		}
		got := s.denied(t)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("denied everything are the credentials of %v; being revoked are the leases %v", got, want)
		}
	}
	if s.users == nil {
		return
	}
	living := map[string]bool{}
	for _, l := range leases {
		living[l.Username] = l.Status == api.LeaseActive
	}
	same := func(what string, names []string) {
		there := map[string]bool{}
		for _, name := range names {
			there[name] = true
			if !living[name] {
				t.Errorf("%s of %s is there, which has no living lease", what, name)
			}
		}
		for name, lives := range living {
			if lives && !there[name] {
				t.Errorf("%s of %s is not there, and its lease lives", what, name)
			}
		}
	}
	same("the account", s.users(t))
	if s.ends != nil {
		same("the end", slices.Collect(maps.Keys(s.ends(t))))
	}
}
