package failpoints_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// scenario is one way to reach a point, and what must hold afterwards.
type scenario struct {
	point failpoint.Point
	how   string // what is particular, where a point is reached in several ways
	form  func() client.Document
	// reach kills the world's first node at the point. subject is a credential
	// from before.
	reach func(t *testing.T, w *world, arm string, subject api.Credential)
	// found says what became of it, and fails where that is not allowed.
	found func(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string
	ends  bool // the subject's life
	alone bool // with a source that no other scenario uses
	short bool // in the short form of the shared store, too
}

// remarks are what the table cannot say.
const remarks = `F3, F5: an issuance is one message and one transaction. At F3 the source is kept from executing it, at F5 it is not.
F4: between two messages of the making of a role's group, and of the statements form between the account and the reset of the session.
R4, R5: the lease is closed and recorded in one transaction; R4 is in it, R5 behind it.`

func scenarios() []scenario {
	return slices.Concat(issuances(), revocations(), renewals(), rotations())
}

func issuances() []scenario {
	return []scenario{
		{point: failpoint.F1, form: members, reach: issuing, found: nothing},
		{point: failpoint.IntentOpen, form: members, reach: issuing, found: nothing},
		{point: failpoint.F2, form: members, reach: issuing, found: absent, short: true},
		{point: failpoint.F3, how: "not executed", form: members, reach: issuingAtHeldSource, found: absent, alone: true},
		{point: failpoint.F4, how: "making the group", form: members, reach: issuingAfterRestart, found: absent},
		{point: failpoint.F4, how: "statements", form: statements, reach: issuing, found: unconfirmed},
		{point: failpoint.F5, how: "executed", form: members, reach: issuing, found: unconfirmed, short: true},
		{point: failpoint.F5, how: "statements", form: statements, reach: issuing, found: unconfirmed},
		{point: failpoint.F6, form: members, reach: issuing, found: unconfirmed, short: true},
		{point: failpoint.Found, how: "killed twice", form: members, reach: recovering, found: unconfirmed},
		{point: failpoint.F7, form: members, reach: issuing, found: confirmed},
		{point: failpoint.F8, form: members, reach: issuing, found: confirmed},
		{point: failpoint.F9, form: members, reach: issuing, found: confirmed},
	}
}

func revocations() []scenario {
	return []scenario{
		{point: failpoint.Fenced, form: members, reach: revokingPrefix, found: revoked, short: true},
		{point: failpoint.R1, form: members, reach: revoking, found: revoked, short: true},
		{point: failpoint.Disabled, form: members, reach: revoking, found: revoked},
		{point: failpoint.Emptied, how: "an owner", form: members, reach: revokingOwner, found: revokedOwner},
		{point: failpoint.R2, form: members, reach: revoking, found: revoked},
		{point: failpoint.R2, how: "an owner", form: members, reach: revokingOwner, found: revokedOwner},
		{point: failpoint.R2, how: "statements", form: statements, reach: revoking, found: revoked},
		{point: failpoint.R3, form: members, reach: revoking, found: revoked},
		{point: failpoint.R4, form: members, reach: revoking, found: revoked, short: true},
		{point: failpoint.R5, form: members, reach: revoking, found: revoked},
	}
}

func renewals() []scenario {
	return []scenario{
		{point: failpoint.N1, form: members, reach: renewing, found: formerEnd},
		{point: failpoint.N2, form: members, reach: renewing, found: formerEnd, short: true},
		{point: failpoint.N3, form: members, reach: renewing, found: newEnd},
	}
}

func rotations() (all []scenario) {
	for _, p := range []failpoint.Point{failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSent, failpoint.RootSet,
		failpoint.RootProved, failpoint.RootPromoted, failpoint.RootDone} {
		all = append(all, scenario{point: p, form: members, reach: rotating, found: rooted, short: p == failpoint.RootSet})
	}
	return all
}

func issuing(t *testing.T, w *world, arm string, _ api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		_, err := w.issue(ctx, c)
		return err
	})
}

// issuingAtHeldSource keeps the source from making roles until it has given up
// the message that should make one.
func issuingAtHeldSource(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	super := w.source.Superuser(t)
	if _, err := super.Exec(t.Context(), "BEGIN; LOCK TABLE pg_authid IN SHARE MODE"); err != nil {
		t.Fatalf("hold the source: %v", err)
	}
	issuing(t, w, arm, subject)
	observer := w.source.Superuser(t) // within a transaction the activity stays what it was
	making := `CREATE ROLE "v_` + w.role
	eventually(t, func() string { return "the source has the message, and gives it up since nobody waits for it" }, func() bool {
		var waiting int
		err := observer.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND strpos(query, $1) > 0 AND state = 'active'", making).Scan(&waiting)
		return err == nil && waiting == 0 && strings.Count(w.source.Log(t), making) >= 2 // the subject's, and this
	})
	if _, err := super.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatalf("let the source go: %v", err)
	}
}

// issuingAfterRestart is the first that the process does for the role: it looks
// at the group.
func issuingAfterRestart(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	w.first().Stop(t)
	w.first().Run(t)
	issuing(t, w, arm, subject)
}

// recovering dies with an account made, and again when it was found.
func recovering(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	w.other().Arm(t, arm)
	issuing(t, w, string(failpoint.F6)+" kill", subject)
	if len(w.nodes) == 1 {
		w.first().Arm(t, arm)
		w.first().Run(t)
	}
	w.other().AwaitDeath(t)
	w.other().Arm(t)
}

func revoking(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		_, err := c.RevokeLease(ctx, subject.LeaseID, patience)
		return err
	})
}

// revokingOwner revokes one that owns something, which takes more steps.
func revokingOwner(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	if err := w.login(t, subject.Data["username"], subject.Data["password"], "CREATE TABLE left_behind (id int)"); err != nil {
		t.Fatalf("own a table: %v", err)
	}
	revoking(t, w, arm, subject)
}

func revokingPrefix(t *testing.T, w *world, arm string, _ api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		_, err := c.RevokePrefix(ctx, "db/"+w.role, patience)
		return err
	})
}

func renewing(t *testing.T, w *world, arm string, subject api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		longer := api.Duration(life + life/2)
		_, err := c.RenewLease(ctx, subject.LeaseID, api.RenewRequest{Increment: &longer})
		return err
	})
}

func rotating(t *testing.T, w *world, arm string, _ api.Credential) {
	t.Helper()
	w.die(t, w.first(), arm, func(ctx context.Context, c *client.Client) error {
		_, err := c.RotateRoot(ctx, "db")
		return err
	})
}

// made are the leases that were not there before the kill.
func (w *world) made(leases []api.Lease) (made []api.Lease) {
	for _, l := range leases {
		if !w.known[l.LeaseID] {
			made = append(made, l)
		}
	}
	return made
}

func nothing(t *testing.T, w *world, leases []api.Lease, _ api.Credential) string {
	t.Helper()
	if made := w.made(leases); len(made) != 0 {
		t.Errorf("there is a lease: %+v", made)
	}
	return "no lease, no account"
}

func only(t *testing.T, w *world, leases []api.Lease) api.Lease {
	t.Helper()
	made := w.made(leases)
	if len(made) != 1 {
		t.Fatalf("there are %d new leases, not one: %+v", len(made), made)
	}
	return made[0]
}

func absent(t *testing.T, w *world, leases []api.Lease, _ api.Credential) string {
	t.Helper()
	l := only(t, w, leases)
	if l.Status != api.LeaseRevoked || l.Revocation == nil || l.Revocation.Reason != api.ReasonIssueFailed {
		t.Errorf("the lease is %s, %+v; it should be revoked, %s", l.Status, l.Revocation, api.ReasonIssueFailed)
		return string(l.Status)
	}
	return "no account, lease revoked: " + l.Revocation.Reason
}

func unconfirmed(t *testing.T, w *world, leases []api.Lease, _ api.Credential) string {
	t.Helper()
	l := only(t, w, leases)
	if l.Status != api.LeaseActive || !l.Unconfirmed {
		t.Errorf("the lease is %s, unconfirmed: %v, %+v; it should be active and unconfirmed", l.Status, l.Unconfirmed, l.Revocation)
	}
	return "account usable, lease active, unconfirmed"
}

func confirmed(t *testing.T, w *world, leases []api.Lease, _ api.Credential) string {
	t.Helper()
	l := only(t, w, leases)
	if l.Status != api.LeaseActive || l.Unconfirmed {
		t.Errorf("the lease is %s, unconfirmed: %v, %+v; it should be active", l.Status, l.Unconfirmed, l.Revocation)
	}
	return "account usable, lease active"
}

func revoked(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	name := subject.Data["username"]
	drops := w.drops(t, name)
	if drops < 1 || drops > 2 {
		t.Errorf("the source was told %d times to drop %s: once, and at most once more", drops, name)
	}
	return fmt.Sprintf("%s, drops sent: %d", closed(t, w, leases, subject), drops)
}

// closed wants the lease revoked, as it was asked.
func closed(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	if made := w.made(leases); len(made) != 0 {
		t.Errorf("there is another lease: %+v", made)
	}
	l := leaseOf(leases, subject)
	switch {
	case l == nil:
		t.Errorf("lease %s is lost", subject.LeaseID)
		return "lost"
	case l.Status != api.LeaseRevoked || !asked(l):
		t.Errorf("the lease is %s, %+v; it should be revoked, as it was asked", l.Status, l.Revocation)
		return string(l.Status)
	}
	return "no account, lease revoked: " + l.Revocation.Reason
}

// asked tells whether it was a caller who ended a lease.
func asked(l *api.Lease) bool {
	return l.Revocation.Reason == api.ReasonRevoked || l.Revocation.Reason == api.ReasonPrefix
}

// leaseOf is the lease of a credential; nil where it is lost.
func leaseOf(leases []api.Lease, c api.Credential) *api.Lease {
	for i := range leases {
		if leases[i].LeaseID == c.LeaseID {
			return &leases[i]
		}
	}
	return nil
}

// revokedOwner is revoked; what the account owned is somebody else's now.
func revokedOwner(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	w.source.ExecIn(t, w.db, "SELECT FROM left_behind")
	return revoked(t, w, leases, subject) + ", its table kept"
}

// rooted wants a root that logs in anew, and a secret that says how.
func rooted(t *testing.T, w *world, leases []api.Lease, _ api.Credential) string {
	t.Helper()
	if made := w.made(leases); len(made) != 0 {
		t.Errorf("there are leases that nobody asked for: %+v", made)
	}
	w.source.ExecIn(t, w.db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+w.root+"'")
	begun := time.Now()
	w.workingRoot(t, w.other())
	took := time.Since(begun)
	admin := w.other().Admin(t)
	secret, err := admin.ReadSecret(t.Context(), rootPath, 0)
	if err != nil {
		t.Fatalf("read the root secret: %v", err)
	}
	var password string
	if err := json.Unmarshal(secret.Data["password"], &password); err != nil {
		t.Fatal(err)
	}
	if err := w.login(t, w.root, password); err != nil {
		t.Errorf("version %d of the root secret does not log in: %v", secret.Version, err)
	}
	if full() {
		eventually(t, func() string { return fmt.Sprintf("the root is rotated again: %v", err) }, func() bool {
			_, err = admin.RotateRoot(t.Context(), "db")
			return err == nil
		})
		w.workingRoot(t, w.other())
	}
	return fmt.Sprintf("root secret version %d logs in, back in %.1fs", secret.Version, took.Seconds())
}

func formerEnd(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	return end(t, leases, subject, subject.ExpiresAt, "the former end")
}

func newEnd(t *testing.T, w *world, leases []api.Lease, subject api.Credential) string {
	t.Helper()
	return end(t, leases, subject, subject.IssuedAt.Add(life+life/2), "the new end")
}

// end compares an end with what it should be, give or take what the renewal
// took to come.
func end(t *testing.T, leases []api.Lease, subject api.Credential, want time.Time, what string) string {
	t.Helper()
	for _, l := range leases {
		if l.LeaseID == subject.LeaseID && (l.Status != api.LeaseActive || l.ExpiresAt.Before(want) || l.ExpiresAt.Sub(want) > life/4) {
			t.Errorf("the lease is %s and ends at %s; it should end at %s", l.Status, l.ExpiresAt, want)
		}
	}
	return what
}
