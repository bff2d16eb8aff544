package failpoints_test

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// rootPassword is the one that the guides give the root.
const rootPassword = "a-long-one"

// target is a source that is no PostgreSQL, as far as a kill of the server at any point needs to
// know it.
type target struct {
	engine  string                                           // the type of its document
	config  client.Document                                  // without timeout and path of the root
	form    client.Document                                  // of the role, without its name and ends
	root    map[string]string                                // the root's fields; nil for a source without one
	users   func(t *testing.T) []string                      // the accounts of the role; nil where the source keeps none
	login   func(t *testing.T, data map[string]string) error // uses what a caller was given
	restart func(t *testing.T)                               // with kill -9; nil where other tests use the source, too
}

// rootOf is a root of a name and a password.
func rootOf(username string) map[string]string {
	return map[string]string{"username": username, "password": rootPassword}
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
	return nothing(t, w, leases, subject)
}

// play kills the first of the nodes and compares users, leases and the trail when it, or the other
// node of its store, has gone on.
func (s target) play(t *testing.T, at scenario, role string, nodes ...*vaulttest.Server) {
	t.Helper()
	w := &world{nodes: nodes, role: role, known: map[string]bool{}}
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
	leases := w.decided(t, node, at.ends)
	if s.restart != nil { // before anything else makes it save what it has
		s.restart(t)
	}
	s.compare(t, leases)
	w.compareTrail(t, node, leases)
	at.found(t, w, leases, subject)

	s.credential(t, w, node)
	for range 2 { // the second time nothing is left to do
		var result api.RevokeResult
		var err error
		eventually(t, func() string { return fmt.Sprintf("what is left is revoked: %+v, %v", result, err) }, func() bool {
			result, err = node.Admin(t).RevokePrefix(t.Context(), "db/"+w.role, patience/2)
			return err == nil && result.Pending == 0 // a source may say that it is dead a little later
		})
	}
	if s.users == nil {
		return
	}
	if left := s.users(t); len(left) != 0 {
		t.Errorf("users are left after all was revoked: %v", left)
	}
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

// decided waits until all that the kill cut off is decided, and all that lived before has ended if that was asked.
func (w *world) decided(t *testing.T, node *vaulttest.Server, ends bool) (leases []api.Lease) {
	t.Helper()
	eventually(t, func() string { return fmt.Sprintf("all is decided: %+v; output: %s", leases, tail(node.Output())) }, func() bool {
		leases = w.leases(t, node)
		return !slices.ContainsFunc(leases, func(l api.Lease) bool {
			return l.Status == api.LeaseIssuing || l.Status == api.LeaseRevoking || ends && w.known[l.LeaseID] && l.Status == api.LeaseActive
		})
	})
	return leases
}

// compare fails for a user without a living lease, and for a living lease without its user.
func (s target) compare(t *testing.T, leases []api.Lease) {
	t.Helper()
	if s.users == nil {
		return
	}
	users := map[string]bool{}
	for _, name := range s.users(t) {
		users[name] = true
	}
	for _, l := range leases {
		if alive := l.Status == api.LeaseActive; alive != users[l.Username] {
			t.Errorf("lease %s is %s, and its user is there: %t", l.LeaseID, l.Status, users[l.Username])
		}
		delete(users, l.Username)
	}
	for name := range users {
		t.Errorf("user %s has no lease", name)
	}
}
