package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

// Accounts that are granted rights on the same tables at once collide in
// PostgreSQL's catalogs ("tuple concurrently updated"). No caller sees it.
func TestParallelGrantsOnTheSameTables(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			v, s := newVault(t), newSource(t, pgtest.Shared(t, major), createRole)
			for i := range 9 {
				s.server.ExecIn(t, s.db, fmt.Sprintf("CREATE TABLE more_%d (id int)", i))
			}
			engines := []string{"one", "two"}
			for _, name := range engines {
				v.engine(t, s, name, nil)
				v.role(t, name, direct("direct"))
			}
			creds := make([]credential, size(96, 400))
			each(t, 8, len(creds), func(i int) error {
				cred, err := v.ask(t.Context(), v.admin, engines[i%2], "direct", 0)
				if err != nil {
					return err
				}
				creds[i] = cred
				if i%4 == 3 {
					return nil // some stay, for the prefix
				}
				pending, err := v.admin.RevokeLease(t.Context(), cred.lease, time.Minute)
				if err == nil && pending != nil {
					err = fmt.Errorf("revoke: it is still to die: %+v", pending.Revocation)
				}
				return err
			})
			for _, name := range engines {
				if result, err := v.admin.RevokePrefix(t.Context(), name, time.Minute); err != nil || result.Pending != 0 {
					t.Errorf("revoke what is left: %+v, %v", result, err)
				}
			}
			for _, c := range creds {
				if n := s.count(t, "SELECT count(*) FROM pg_roles WHERE rolname = $1", c.username); n != 0 {
					t.Errorf("the account %s is left", c.username)
				}
			}
			if n := s.count(t, `SELECT count(*) FROM pg_class, aclexplode(relacl) x WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = x.grantee) AND x.grantee <> 0`); n != 0 {
				t.Errorf("%d rights of dropped accounts are left", n)
			}
		})
	}
}

// Revoking a prefix in the midst of issuing: what was asked for before the
// revocation, by the order of the audit chain, is dead; nothing survives.
func TestRevocationBeatsIssuance(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Start(t, 17), functions)
	v.engine(t, s, "db", map[string]any{"max_open_connections": 8})
	v.role(t, "db", reader("reader"))
	survivors := 0
	var withheld atomic.Int64 // the revocation came in the very midst
	for round := range size(50, 500) {
		var issuers sync.WaitGroup
		started := make(chan struct{}, 20)
		for range cap(started) {
			issuers.Go(func() {
				started <- struct{}{}
				_, err := v.ask(t.Context(), v.admin, "db", "reader", time.Hour)
				if errors.Is(err, client.LeaseRevoked) {
					withheld.Add(1)
				} else if err != nil {
					t.Errorf("round %d: a credential was refused for another reason: %v", round, err)
				}
			})
		}
		for range cap(started) {
			<-started
		}
		time.Sleep(rand.N(12 * time.Millisecond)) // somewhere in the midst, another place each round
		result, err := v.admin.RevokePrefix(t.Context(), "db", time.Minute)
		if err != nil || result.Pending != 0 {
			t.Fatalf("round %d: %+v, %v", round, result, err)
		}
		accounts := s.accounts(t) // at the answer, with issuers still at work
		issuers.Wait()
		survivors += v.survivors(t, accounts)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d credentials were withheld from their callers", withheld.Load())
	if survivors != 0 {
		t.Errorf("%d credentials survived the revocation that found them being issued", survivors)
	}
	if _, err := v.admin.RevokePrefix(t.Context(), "db", time.Minute); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "nothing is left", func() bool { return len(s.accounts(t)) == 0 })
}

// survivors counts, of the accounts that were there when the last prefix
// revocation was answered, those whose request stands before it in the audit
// trail.
func (v *vault) survivors(t *testing.T, accounts []string) (n int) {
	t.Helper()
	there := map[string]bool{}
	for _, name := range accounts {
		there[name] = true
	}
	before := false
	for entry, err := range v.admin.AuditLogs(t.Context(), client.AuditFilter{}) { // newest first
		if err != nil {
			t.Fatalf("read the audit trail: %v", err)
		}
		extra := entry.ExtraData
		switch {
		case entry.Action == "dynamic_revoke" && extra["reason"] == api.ReasonPrefix && extra["matched"] != nil:
			if before {
				return n // the former round's
			}
			before = true
		case before && entry.Action == "dynamic_generate" && extra["outcome"] == "requested":
			if name, _ := extra["username"].(string); there[name] {
				t.Logf("survived: %s", name)
				n++
			}
		}
	}
	return n
}

// The administrator takes a right away: it holds from the next request on.
func TestChangesHoldFromTheNextRequest(t *testing.T) {
	t.Parallel()
	v, s := newVault(t), newSource(t, pgtest.Shared(t, 17), functions)
	v.engine(t, s, "db", nil)
	v.role(t, "db", reader("reader"))
	ctx := t.Context()

	account, err := v.admin.CreateServiceAccount(ctx, api.ServiceAccountRequest{Name: "app", Scopes: []string{"dynamic:generate"}})
	if err != nil {
		t.Fatal(err)
	}
	app := v.Client(t, client.Config{ClientID: account.ClientID, ClientSecret: account.ClientSecret})
	generate := func(c *client.Client) error {
		_, err := v.ask(ctx, c, "db", "reader", 0)
		return err
	}
	mustFail(t, "before the policy", generate(app), client.AccessDenied)
	policy, binding := v.allow(t, "app", "service_account", account.IdentityID,
		api.PolicyRule{PathPattern: "dynamic/db/reader", Permissions: []api.Permission{"dynamic:generate"}})
	rebind := func() {
		t.Helper()
		if binding, err = v.admin.BindPolicy(ctx, policy.ID, api.BindingRequest{IdentityType: "service_account", IdentityID: account.IdentityID}); err != nil {
			t.Fatal(err)
		}
	}
	off, on := false, true
	changes := []struct {
		what       string
		take, give func() error
	}{
		{"a binding", func() error { return v.admin.UnbindPolicy(ctx, policy.ID, binding.ID) }, func() error { rebind(); return nil }},
		{"a policy switched off",
			func() error {
				_, err := v.admin.UpdatePolicy(ctx, policy.ID, api.PolicyPatch{IsActive: &off})
				return err
			},
			func() error {
				_, err := v.admin.UpdatePolicy(ctx, policy.ID, api.PolicyPatch{IsActive: &on})
				return err
			}},
		{"a policy's rules",
			func() error {
				rules := []api.PolicyRule{{PathPattern: "dynamic/db/else", Permissions: []api.Permission{"dynamic:generate"}}}
				_, err := v.admin.UpdatePolicy(ctx, policy.ID, api.PolicyPatch{Rules: &rules})
				return err
			},
			func() error {
				_, err := v.admin.UpdatePolicy(ctx, policy.ID, api.PolicyPatch{Rules: &policy.Rules})
				return err
			}},
	}
	for _, change := range changes {
		if err := generate(app); err != nil {
			t.Fatalf("before the change of %s: %v", change.what, err)
		}
		if err := change.take(); err != nil {
			t.Fatalf("take %s: %v", change.what, err)
		}
		mustFail(t, change.what, generate(app), client.AccessDenied)
		if err := change.give(); err != nil {
			t.Fatalf("give %s back: %v", change.what, err)
		}
	}
	if err := generate(app); err != nil {
		t.Fatal(err)
	}

	token, err := v.admin.CreateToken(ctx, api.TokenRequest{Name: "short", Scopes: []string{"dynamic:generate"}})
	if err != nil {
		t.Fatal(err)
	}
	holder := v.Client(t, client.Config{Token: token.Token})
	kept, err := v.ask(ctx, holder, "db", "reader", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.admin.DeleteToken(ctx, token.ID, true); err != nil {
		t.Fatal(err)
	}
	mustFail(t, "a deleted token", generate(holder), client.TokenRevoked, client.TokenInvalid)
	eventually(t, 10*time.Second, "what the token obtained is dead", func() bool { return v.lease(t, kept.lease).Status == api.LeaseRevoked })
	s.mustBeDead(t, kept)
	if err := v.admin.DeleteServiceAccount(ctx, account.ID, false); err != nil {
		t.Fatal(err)
	}
	mustFail(t, "a deleted account", generate(app), client.TokenRevoked, client.TokenInvalid, client.AuthenticationRequired)

	if _, err := v.admin.DeleteRole(ctx, "db", "reader", false); !errors.Is(err, client.RoleInUse) {
		t.Errorf("a role in use was deleted: %v", err)
	}
	living := v.issue(t, v.admin, "db", "reader", 0)
	if pending, err := v.admin.DeleteEngine(ctx, "db", true); err != nil || pending {
		t.Fatalf("delete the engine by force: pending %v, %v", pending, err)
	}
	s.mustBeDead(t, living)
	_, err = v.ask(context.WithoutCancel(ctx), v.admin, "db", "reader", 0)
	mustFail(t, "a deleted engine", err, client.EngineNotFound)
}
