package crash_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// settle waits until every issuance, renewal and revocation that a kill cut off
// is decided.
func (w *world) settle(t *testing.T) {
	t.Helper()
	admin := w.vault.Admin(t)
	open := func(status api.LeaseStatus) int {
		leases, err := client.Collect(admin.Leases(t.Context(), client.LeaseFilter{Status: status}))
		if err != nil {
			t.Fatalf("list the leases: %v", err)
		}
		return len(leases)
	}
	for deadline := time.Now().Add(2 * time.Minute); open(api.LeaseIssuing)+open(api.LeaseRevoking) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d are still issuing and %d revoking; the server's output: %s", open(api.LeaseIssuing), open(api.LeaseRevoking), tail(w.vault.Output()))
		}
	}
	w.awaitEnds(t)
}

// awaitEnds waits until the source has the end of every lease: a renewal that a
// kill cut off is set again after its deadline.
func (w *world) awaitEnds(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		wrong := w.wrongEnds(t)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("the source has another end than the lease: %s", strings.Join(wrong[:min(5, len(wrong))], "; "))
			return
		}
	}
}

func (w *world) wrongEnds(t *testing.T) (wrong []string) {
	t.Helper()
	accounts := w.accounts(t)
	for name, l := range w.leases(t) {
		until, there := accounts[name]
		if l.Status == api.LeaseActive && there && until.Sub(l.ExpiresAt).Abs() > time.Second {
			wrong = append(wrong, fmt.Sprintf("%s: %s there, %s here", name, until, l.ExpiresAt))
		}
	}
	return wrong
}

// accounts are those at the source, with their ends.
func (w *world) accounts(t *testing.T) map[string]time.Time {
	t.Helper()
	rows, err := w.source.Superuser(t).Query(t.Context(), `SELECT rolname, coalesce(rolvaliduntil, 'epoch') FROM pg_roles WHERE rolname LIKE 'v\_%'`)
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

// leases are all, by user name.
func (w *world) leases(t *testing.T) map[string]api.Lease {
	t.Helper()
	leases := map[string]api.Lease{}
	for l, err := range w.vault.Admin(t).Leases(t.Context(), client.LeaseFilter{}) {
		if err != nil {
			t.Fatalf("list the leases: %v", err)
		}
		leases[l.Username] = l
	}
	return leases
}

// line of the table: what was counted, and whether it must be none.
type line struct {
	what  string
	count int
	none  bool
}

// compare prints the table, and fails where something is to be none and is not.
func (w *world) compare(t *testing.T) {
	t.Helper()
	leases, accounts := w.leases(t), w.accounts(t)
	requested, chain := w.trail(t)

	orphans, zombies, lost := 0, 0, 0
	for name := range accounts {
		if l, known := leases[name]; !known {
			orphans++
		} else if l.Status == api.LeaseRevoked {
			zombies++
		}
	}
	unconfirmed, recovered := 0, 0
	for name, l := range leases {
		if _, there := accounts[name]; l.Status == api.LeaseActive && !there {
			lost++
		}
		if l.Unconfirmed {
			unconfirmed++
		}
		if l.Revocation != nil && l.Revocation.Reason == api.ReasonIssueFailed {
			recovered++
		}
	}
	unknown, unrecorded, unasked, undead, revoked := 0, 0, 0, 0, 0
	var usable []*credential
	for _, c := range w.given {
		l, known := leases[c.username]
		switch {
		case !known || l.LeaseID != c.lease:
			unknown++
			continue
		case l.Status == api.LeaseActive:
			usable = append(usable, c)
		case l.Revocation.Reason != api.ReasonRevoked || !c.revokeAsked:
			unasked++
			t.Logf("%s was given and ended by %q of %s", c.username, l.Revocation.Reason, l.Revocation.RequestedBy)
		default:
			revoked++
		}
		if c.revoked && l.Status != api.LeaseRevoked {
			undead++
		}
		if !requested[c.lease] {
			unrecorded++
		}
	}
	lines := []line{
		{"kills", w.kills, false},
		{"credentials answered", len(w.given), false},
		{"  of these log in", len(usable), false},
		{"  of these revoked as asked", revoked, false},
		{"leases in all", len(leases), false},
		{"  found usable after a kill, kept as unconfirmed", unconfirmed, false},
		{"  found absent after a kill, closed", recovered, false},
		{"rotations of the root answered", w.rotations, false},
		{"audit entries in the chain", int(chain.Chains[0].Entries), false},
		{"root locked out", w.lockedOut(t), true},
		{"accounts without a lease", orphans, true},
		{"accounts of revoked leases", zombies, true},
		{"living leases without an account", lost, true},
		{"answered but unknown", unknown, true},
		{"answered, and ended without a named cause", unasked, true},
		{"answered, living, and refused by the source", w.refused(t, usable), true},
		{"revocations answered 204 that did not hold", undead, true},
		{"answered without the entry of their request", unrecorded, true},
	}
	var table strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&table, "  %-50s %6d\n", l.what, l.count)
		if l.none && l.count != 0 {
			t.Errorf("%s: %d", l.what, l.count)
		}
	}
	t.Logf("refusals: %v\n%s", w.other, table.String())
	if !chain.OK {
		t.Errorf("the audit chain does not verify: %+v", chain.Chains)
	}
	for code, n := range w.other {
		if !strings.HasPrefix(code, "503") {
			t.Errorf("callers were answered %s, %d times", code, n)
		}
	}
}

// trail is the set of leases whose request is in the audit trail, and the proof
// of the chain.
func (w *world) trail(t *testing.T) (requested map[string]bool, chain api.AuditVerification) {
	t.Helper()
	admin := w.vault.Admin(t)
	requested = map[string]bool{}
	for entry, err := range admin.AuditLogs(t.Context(), client.AuditFilter{Action: "dynamic_generate"}) {
		if err != nil {
			t.Fatalf("read the audit trail: %v", err)
		}
		if id, _ := entry.ExtraData["lease_id"].(string); entry.ExtraData["outcome"] == "requested" {
			requested[id] = true
		}
	}
	chain, err := admin.VerifyAudit(t.Context())
	if err != nil || len(chain.Chains) == 0 {
		t.Fatalf("verify the audit chain: %+v, %v", chain, err)
	}
	return requested, chain
}

// lockedOut is 1 when the root that the kills left does not serve, or cannot be
// rotated once more.
func (w *world) lockedOut(t *testing.T) int {
	t.Helper()
	admin := w.vault.Admin(t)
	_, rotated := admin.RotateRoot(t.Context(), "db")
	health, err := admin.EngineHealth(t.Context(), "db")
	if rotated == nil && err == nil && health.Status == api.EngineHealthy {
		return 0
	}
	t.Logf("rotate the root: %v; health: %+v, %v", rotated, health, err)
	return 1
}

// refused counts the credentials that the source does not let in.
func (w *world) refused(t *testing.T, creds []*credential) (n int) {
	t.Helper()
	todo := make(chan *credential)
	var mu sync.Mutex
	var logins sync.WaitGroup
	for range 8 {
		logins.Go(func() {
			for c := range todo {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				conn, err := pgx.Connect(ctx, w.source.URL(c.username, c.password, w.db))
				if err == nil {
					_ = conn.Close(ctx)
				} else {
					mu.Lock()
					n++
					t.Logf("%s was given and is refused: %v", c.username, err)
					mu.Unlock()
				}
				cancel()
			}
		})
	}
	for _, c := range creds {
		todo <- c
	}
	close(todo)
	logins.Wait()
	return n
}
