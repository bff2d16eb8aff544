package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The whole life of credentials, as one program that may have one role, and as
// the administrator of the rest. Both sides of the change of CREATEROLE in 16.
func TestLifeOfACredential(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		for _, form := range []struct {
			name, way string
			role      func(string) client.Document
		}{
			{"functions privileges", functions, reader},
			{"createrole privileges", createRole, reader},
			{"createrole statements", createRole, direct},
		} {
			t.Run(fmt.Sprintf("%d %s", major, form.name), func(t *testing.T) {
				t.Parallel()
				v := newVault(t)
				s := newSource(t, pgtest.Shared(t, major), form.way)
				v.engine(t, s, "db", nil)
				v.role(t, "db", form.role("reader"))
				v.role(t, "db", form.role("other"))
				app := v.account(t, "app", "dynamic/db/reader")

				issueRenewRevoke(t, v, s, app)
				strangersRights(t, v, s, app)
				revokeByPrefix(t, v, s)
				expireByItself(t, v, s)
				if report, err := v.admin.VerifyAudit(t.Context()); err != nil || !report.OK {
					t.Errorf("the audit chain does not verify: %+v, %v", report, err)
				}
			})
		}
	}
}

func issueRenewRevoke(t *testing.T, v *vault, s *source, app *client.Client) {
	t.Helper()
	cred := v.issue(t, app, "db", "reader", 2*time.Minute)
	s.readItems(t, cred)
	s.mustEnd(t, cred.username, cred.expires)
	if _, err := s.login(t, cred).Exec(t.Context(), "DELETE FROM public.items"); !hasCode(err, "42501") {
		t.Errorf("deleting is not denied to a reader: %v", err)
	}

	longer := api.Duration(30 * time.Minute)
	renewed, err := app.RenewLease(t.Context(), cred.lease, api.RenewRequest{Increment: &longer})
	if err != nil {
		t.Fatalf("renew: %v", err)
	}
	if grown := renewed.ExpiresAt.Sub(cred.expires); grown < 25*time.Minute {
		t.Errorf("the renewed lease lives only %s longer", grown)
	}
	s.mustEnd(t, cred.username, renewed.ExpiresAt)
	shorter := api.Duration(5 * time.Minute)
	if renewed, err = app.RenewLease(t.Context(), cred.lease, api.RenewRequest{TTL: &shorter}); err != nil {
		t.Fatalf("shorten: %v", err)
	}
	s.mustEnd(t, cred.username, renewed.ExpiresAt)

	open := s.login(t, cred)
	for range 2 { // the second time it is dead already
		if pending, err := app.RevokeLease(t.Context(), cred.lease, 0); err != nil || pending != nil {
			t.Fatalf("revoke: %v, %v", pending, err)
		}
		s.mustBeDead(t, cred)
	}
	if _, err := open.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("an open session outlived its account")
	}
	_, err = app.RenewLease(t.Context(), cred.lease, api.RenewRequest{Increment: &longer})
	mustFail(t, "renew a revoked lease", err, client.LeaseRevoked)
	if l := v.lease(t, cred.lease); l.Status != api.LeaseRevoked || l.Revocation == nil || l.Revocation.Reason != api.ReasonRevoked || l.Revocation.RequestedBy != "sa:app" {
		t.Errorf("the revoked lease says %+v, %+v", l, l.Revocation)
	}
}

// mustEnd wants the source itself to know the end, to the second.
func (s *source) mustEnd(t *testing.T, username string, end time.Time) {
	t.Helper()
	var until time.Time
	if err := s.query(t, &until, "SELECT rolvaliduntil FROM pg_roles WHERE rolname = $1", username); err != nil {
		t.Fatalf("read VALID UNTIL: %v", err)
	}
	if off := until.Sub(end).Abs(); off > time.Second {
		t.Errorf("%s ends at the source at %s and in its lease at %s", username, until, end)
	}
}

// strangersRights tries what the service account has no right to.
func strangersRights(t *testing.T, v *vault, s *source, app *client.Client) {
	t.Helper()
	_, err := app.GenerateCredential(t.Context(), "db", "other", api.CredsRequest{})
	mustFail(t, "a credential of another role", err, client.AccessDenied)
	_, err = app.ReadSecret(t.Context(), rootPath("db"), 0)
	mustFail(t, "the root secret", err, client.AccessDenied)
	_, err = app.CreateRole(t.Context(), "db", reader("more"))
	mustFail(t, "a new role", err, client.InsufficientScope)
	_, err = app.RevokePrefix(t.Context(), "db", 0)
	mustFail(t, "a prefix", err, client.InsufficientScope)
	_, err = v.Client(t, client.Config{}).GenerateCredential(t.Context(), "db", "reader", api.CredsRequest{})
	mustFail(t, "a credential for nobody", err, client.AuthenticationRequired)

	for role, whose := range map[string]*client.Client{"other": v.admin, "reader": v.account(t, "neighbour", "dynamic/db/reader")} {
		theirs := v.issue(t, whose, "db", role, 0)
		_, err = app.Lease(t.Context(), theirs.lease)
		mustFail(t, "see a stranger's lease of "+role, err, client.AccessDenied, client.LeaseNotFound)
		_, err = app.RenewLease(t.Context(), theirs.lease, api.RenewRequest{})
		mustFail(t, "renew a stranger's lease of "+role, err, client.AccessDenied, client.InsufficientScope, client.LeaseNotFound)
		_, err = app.RevokeLease(t.Context(), theirs.lease, 0)
		mustFail(t, "revoke a stranger's lease of "+role, err, client.AccessDenied, client.InsufficientScope, client.LeaseNotFound)
		for l, err := range app.Leases(t.Context(), client.LeaseFilter{}) {
			if err != nil || l.LeaseID == theirs.lease {
				t.Fatalf("the account lists a stranger's lease of %s: %v, %v", role, l.LeaseID, err)
			}
		}
		s.readItems(t, theirs)
		v.revoke(t, theirs)
	}
}

func revokeByPrefix(t *testing.T, v *vault, s *source) {
	t.Helper()
	var readers []credential
	for range 5 {
		readers = append(readers, v.issue(t, v.admin, "db", "reader", 0))
	}
	bystander := v.issue(t, v.admin, "db", "other", 0)
	for _, bad := range []string{"", "/", "*", "db/*", "db/reader/x", "/db"} {
		_, err := v.admin.RevokePrefix(t.Context(), bad, 0)
		mustFail(t, fmt.Sprintf("the prefix %q", bad), err, client.InvalidRequest)
	}
	_, err := v.admin.RevokePrefix(t.Context(), "d", 0)
	mustFail(t, "half a name", err, client.EngineNotFound)
	_, err = v.admin.RevokePrefix(t.Context(), "db/read", 0)
	mustFail(t, "half a role", err, client.RoleNotFound)

	result, err := v.admin.RevokePrefix(t.Context(), "db/reader/", 0)
	if err != nil || result.Matched != 5 || result.Revoked != 5 || result.Pending != 0 {
		t.Fatalf("revoke the prefix: %+v, %v", result, err)
	}
	s.mustBeDead(t, readers...)
	s.readItems(t, bystander)
	if result, err = v.admin.RevokePrefix(t.Context(), "db", 0); err != nil || result.Matched != 1 || result.Pending != 0 {
		t.Fatalf("revoke the engine: %+v, %v", result, err)
	}
	s.mustBeDead(t, bystander)
}

func expireByItself(t *testing.T, v *vault, s *source) {
	t.Helper()
	cred := v.issue(t, v.admin, "db", "reader", 2*time.Second)
	open := s.login(t, cred)
	eventually(t, 20*time.Second, "the lease has expired", func() bool { return v.lease(t, cred.lease).Status == api.LeaseRevoked })
	if l := v.lease(t, cred.lease); l.Revocation.Reason != api.ReasonExpired || l.RevokedAt.Before(cred.expires) {
		t.Errorf("the expired lease says %+v of an end at %s", l.Revocation, cred.expires)
	}
	s.mustBeDead(t, cred)
	if _, err := open.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a session outlived the expiry")
	}
}
