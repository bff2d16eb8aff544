package crash_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// settle waits, as long as the plan gives, until every issuance, renewal and revocation that trouble cut off
// is decided, and everything due is done.
func (w *world) settle(t *testing.T, p plan) {
	t.Helper()
	rested := time.Now()
	for deadline := rested.Add(p.settles); ; time.Sleep(500 * time.Millisecond) {
		left := w.unsettled(t, rested)
		if w.left = len(left); w.left == 0 {
			t.Logf("everything was finished %s after the trouble", seconds(time.Since(rested)))
			return
		}
		if time.Now().After(deadline) {
			t.Logf("left after %s: %s", p.settles, strings.Join(left[:min(5, len(left))], "; "))
			for _, n := range w.nodes {
				t.Logf("output of %s: %s", n.vault.URL, tail(n.vault.Output()))
			}
			return
		}
	}
}

// unsettled is what the trouble that has ended left under way. A renewal that was cut off is set again after its deadline: until
// then the source may have another end than the lease.
func (w *world) unsettled(t *testing.T, ended time.Time) (left []string) {
	t.Helper()
	for name := range w.leases(t, api.LeaseIssuing) {
		left = append(left, name+" is being issued")
	}
	for name, l := range w.leases(t, api.LeaseRevoking) {
		if l.ExpiresAt.Before(ended) || l.Revocation != nil && l.Revocation.RequestedAt.Before(ended) {
			left = append(left, name+" is being revoked")
		}
	}
	accounts := w.accounts(t)
	for name, l := range w.leases(t, api.LeaseActive) {
		until, there := accounts[name]
		if there && until.Sub(l.ExpiresAt).Abs() > time.Second {
			left = append(left, fmt.Sprintf("%s ends at %s there, at %s here", name, until, l.ExpiresAt))
		}
	}
	return left
}

// accounts are those at the source, with their ends.
func (w *world) accounts(t *testing.T) map[string]time.Time {
	t.Helper()
	rows, err := w.source.Superuser(t).Query(t.Context(), `SELECT rolname, CASE WHEN isfinite(rolvaliduntil) THEN rolvaliduntil ELSE 'epoch' END
		FROM pg_roles WHERE rolname LIKE 'v\_%'`)
	if err != nil {
		t.Fatalf("list the accounts: %v", err)
	}
	accounts := map[string]time.Time{}
	var name string
	var until time.Time
	if _, err := pgx.ForEachRow(rows, []any{&name, &until}, func() error {
		accounts[name] = until
		return nil
	}); err != nil {
		t.Fatalf("list the accounts: %v", err)
	}
	return accounts
}

// leases are those of a status, all for "", by user name. A node that trouble
// has just left alone may still be looking for its store.
func (w *world) leases(t *testing.T, status api.LeaseStatus) map[string]api.Lease {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		leases, err := client.Collect(w.admin(t).Leases(t.Context(), client.LeaseFilter{Status: status}))
		if err == nil {
			named := map[string]api.Lease{}
			for _, l := range leases {
				named[l.Username] = l
			}
			return named
		}
		if time.Now().After(deadline) {
			t.Fatalf("list the leases: %v", err)
		}
	}
}
