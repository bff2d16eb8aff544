package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

const (
	// latest is how long an account may outlive its end while a node is up.
	latest = 10 * time.Second
	// tried is how many of the credentials that live must log in at the end.
	tried = 500
)

// compare is the oracle: what the source, the leases, the callers and the audit
// chains say must be one story.
func (w *world) compare(t *testing.T, p plan) report {
	t.Helper()
	leases, accounts := w.leases(t, ""), w.accounts(t)
	trail := w.trail(t)
	r := report{world: w.name}
	w.disturbances(&r, p)

	r.count("credentials answered", len(w.given))
	for _, what := range []string{"log-ins", "renewals", "revocations"} {
		r.count(what+" answered", w.answers[what])
	}
	r.count("revocations by prefix answered", len(w.prefixes))
	r.count("leases in all", len(leases))
	r.count("audit entries in all chains", trail.entries)
	r.none("chains that do not verify", trail.broken(t))
	r.none("left under way by trouble that ended", w.left)

	w.compareAccounts(&r, leases, accounts)
	w.compareAnswers(t, &r, leases, trail)
	w.compareRotations(t, &r, trail)

	r.count("accounts seen at their end", w.lateness.ends)
	r.text("latest death after the end while a node was up", seconds(w.lateness.able))
	r.text("the same with outages of everything", seconds(w.lateness.all))
	if p.full && w.lateness.able > latest {
		r.wrong = append(r.wrong, fmt.Sprintf("an account outlived its end by %s while a node was up", w.lateness.able))
	}
	for _, what := range w.refusals {
		t.Log(what)
	}
	r.none("answers but 503 that no trouble explains", len(w.refusals))
	t.Logf("\n%s", r)
	if len(r.wrong) > 0 {
		w.keepLogs(t)
	}
	return r
}

// keepLogs writes down what the servers said, for whoever looks for a cause.
func (w *world) keepLogs(t *testing.T) {
	t.Helper()
	const dir = "../../.cache/crash-logs"
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for k, n := range w.nodes {
		path := filepath.Join(dir, fmt.Sprintf("%s-%d.log", strings.ReplaceAll(t.Name(), "/", "-"), k))
		if err := os.WriteFile(path, []byte(n.vault.Output()), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Logf("the output of %s is in %s", n.vault.URL, path)
	}
}

func (w *world) disturbances(r *report, p plan) {
	r.text("seed", p.seed)
	r.text("lasted", p.lasts)
	for _, kind := range []string{killNode, shortPause, longPause, loseStore, loseSource, loseSources, killDatabase} {
		r.count(kind, w.done[kind])
	}
	for _, f := range faults {
		r.count("cut: "+f.name, w.cuts[f.name])
	}
}

// compareAccounts holds the source against the leases.
func (w *world) compareAccounts(r *report, leases map[string]api.Lease, accounts map[string]time.Time) {
	orphans, zombies, lost, unconfirmed, absent := 0, 0, 0, 0, 0
	for name := range accounts {
		if l, known := leases[name]; !known {
			orphans++
		} else if l.Status == api.LeaseRevoked {
			zombies++
		}
	}
	early := 0
	for name, l := range leases {
		if _, there := accounts[name]; l.Status == api.LeaseActive && !there && time.Until(l.ExpiresAt) > 0 {
			lost++
		}
		if l.Unconfirmed {
			unconfirmed++
		}
		if l.Revocation == nil {
			continue
		}
		switch l.Revocation.Reason {
		case api.ReasonIssueFailed:
			absent++
		case api.ReasonExpired:
			if l.RevokedAt != nil && l.RevokedAt.Before(l.ExpiresAt) {
				early++
			}
		}
	}
	r.count("issuances cut off: found usable, kept as unconfirmed", unconfirmed)
	r.count("issuances cut off: found absent, closed", absent)
	r.none("orphans (accounts without a lease)", orphans)
	r.none("accounts of revoked leases", zombies)
	r.none("leases lost (living, without an account)", lost)
	r.none("ended before their end", early)
}

// compareAnswers holds what the callers were told against the leases and the
// trail.
func (w *world) compareAnswers(t *testing.T, r *report, leases map[string]api.Lease, trail trail) {
	t.Helper()
	unknown, unasked, refused, undead, survivors, unrecorded := 0, 0, 0, 0, 0, 0
	var usable []*credential
	for _, c := range w.given {
		l, known := leases[c.username]
		if !known || l.LeaseID != c.lease {
			unknown++
			continue
		}
		if l.Status == api.LeaseActive && time.Until(l.ExpiresAt) > time.Minute {
			usable = append(usable, c)
		}
		if !w.asked(c, l) {
			unasked++
			t.Logf("%s was given until %s and ended: %+v", c.username, c.ends, *l.Revocation)
		}
		if !c.refusedAt.IsZero() && c.refusedAt.Before(c.ends) && (l.Revocation == nil || c.refusedAt.Before(l.Revocation.RequestedAt)) {
			refused++
			t.Logf("%s was refused at %s: %+v", c.username, c.refusedAt, l)
		}
		if c.revoked && (l.Status != api.LeaseRevoked || c.survived) {
			undead++
		}
		if l.Status == api.LeaseActive && w.prefixRevoked(c) {
			survivors++
		}
		// A confirmation may be lost with the store's server, as it is flushed later: what was revoked
		// before anybody looked is decided by its revocation.
		if !trail.requested[c.lease] || !trail.decided[c.lease] && !trail.ended[c.lease] {
			unrecorded++
			t.Logf("%s was answered; requested %t, decided %t, ended %t in the trail: %+v", c.username,
				trail.requested[c.lease], trail.decided[c.lease], trail.ended[c.lease], l)
		}
	}
	rand.Shuffle(len(usable), func(i, j int) { usable[i], usable[j] = usable[j], usable[i] })
	usable = usable[:min(tried, len(usable))]
	r.count("living credentials tried at the end", len(usable))
	r.none("answered but unknown", unknown)
	r.none("answers without audit entry", unrecorded)
	r.none("answered, and ended without a named cause", unasked)
	r.none("answered, living, and refused by the source", refused+w.lockedOutOf(t, usable))
	r.none("revocations answered 204 that did not hold", undead)
	r.none("survivors of a revocation by prefix", survivors)
}

// asked tells whether the end of a credential that was answered has a cause that
// the callers know, too. One that lives has needed none.
func (w *world) asked(c *credential, l api.Lease) bool {
	if l.Revocation == nil {
		return true
	}
	switch l.Revocation.Reason {
	case api.ReasonRevoked:
		return c.revokeAsked
	case api.ReasonPrefix:
		return c.role == batch
	case api.ReasonExpired:
		return !l.Revocation.RequestedAt.Before(c.ends)
	}
	return false
}

// prefixRevoked tells whether a credential was answered before a revocation of
// its prefix that was answered began.
func (w *world) prefixRevoked(c *credential) bool {
	if c.role != batch {
		return false
	}
	for _, p := range w.prefixes {
		if c.answered.Before(p.begun) {
			return true
		}
	}
	return false
}

// lockedOutOf counts the credentials that the source does not let in.
func (w *world) lockedOutOf(t *testing.T, creds []*credential) (n int) {
	t.Helper()
	todo := make(chan *credential)
	var mu sync.Mutex
	var logins sync.WaitGroup
	for range 8 {
		logins.Go(func() {
			for c := range todo {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if err := w.login(ctx, c); err != nil {
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

// compareRotations wants every version of the root secret to come of one
// request, and the root that is left to work.
func (w *world) compareRotations(t *testing.T, r *report, trail trail) {
	t.Helper()
	secret, err := w.admin(t).SecretMetadata(t.Context(), rootPath)
	must(t, err)
	versions := secret.Version - 1 // the first is no rotation's
	r.count("root rotations answered", w.rotations.answered)
	r.count("root rotations finished without an answer", versions-w.rotations.answered)
	r.count("  of these finished by whoever came after", trail.recovered)
	twice := max(0, versions-w.rotations.answered-w.rotations.unknown) // more than were asked for
	for version, n := range trail.rotated {
		if n > 1 {
			twice++
			t.Logf("version %d of the root secret was written by %d rotations", version, n)
		}
	}
	r.none("root rotated twice for one request", twice)
	r.none("root versions without a rotation in the trail, or the reverse", abs(versions-trail.versions()))
	r.none("root locked out", w.lockedOut(t))
}

func abs(n int) int { return max(n, -n) }

// lockedOut is 1 when the root that the trouble left does not serve, or cannot
// be rotated once more. A rotation that was cut off holds the root for a while.
func (w *world) lockedOut(t *testing.T) int {
	t.Helper()
	admin := w.admin(t)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		_, rotated := admin.RotateRoot(t.Context(), "db")
		health, err := admin.EngineHealth(t.Context(), "db")
		if rotated == nil && err == nil && health.Status == api.EngineHealthy {
			return 0
		}
		if time.Now().After(deadline) {
			t.Logf("rotate the root: %v; health: %+v, %v", rotated, health, err)
			return 1
		}
	}
}

// trail is what the audit chains tell.
type trail struct {
	requested map[string]bool // leases whose request is there
	decided   map[string]bool // leases whose outcome is there
	ended     map[string]bool // leases whose death is there
	rotated   map[int]int     // requests that made a version of the root secret
	adopted   map[int]bool    // versions that were found at the source
	recovered int
	entries   int
	chains    api.AuditVerification
}

func (w *world) trail(t *testing.T) trail {
	t.Helper()
	admin := w.admin(t)
	found := trail{requested: map[string]bool{}, decided: map[string]bool{}, ended: map[string]bool{}, rotated: map[int]int{}, adopted: map[int]bool{}}
	for entry, err := range admin.AuditLogs(t.Context(), client.AuditFilter{Action: "dynamic_generate"}) {
		must(t, err)
		if id, _ := entry.ExtraData["lease_id"].(string); entry.ExtraData["outcome"] == "requested" {
			found.requested[id] = true
		} else {
			found.decided[id] = true
		}
	}
	for entry, err := range admin.AuditLogs(t.Context(), client.AuditFilter{Action: "dynamic_revoke"}) {
		must(t, err)
		if id, _ := entry.ExtraData["lease_id"].(string); entry.ExtraData["outcome"] == "revoked" {
			found.ended[id] = true
		}
	}
	for entry, err := range admin.AuditLogs(t.Context(), client.AuditFilter{Action: "dynamic_engine_rotate_root"}) {
		must(t, err)
		version, _ := entry.ExtraData["version"].(float64)
		switch {
		case !entry.Success:
		case entry.ExtraData["recovered"] == true:
			found.recovered++
			found.adopted[int(version)] = true
		default:
			found.rotated[int(version)]++
		}
	}
	var err error
	if found.chains, err = admin.VerifyAudit(t.Context()); err != nil || len(found.chains.Chains) != len(w.nodes) {
		t.Fatalf("verify the audit chains: %+v, %v", found.chains, err)
	}
	for _, c := range found.chains.Chains {
		found.entries += int(c.Entries)
	}
	return found
}

// versions counts those of the root secret that the trail names.
func (f trail) versions() int {
	n := len(f.rotated)
	for version := range f.adopted {
		if f.rotated[version] == 0 {
			n++
		}
	}
	return n
}

// broken counts the chains that do not verify.
func (f trail) broken(t *testing.T) (n int) {
	t.Helper()
	for _, c := range f.chains.Chains {
		if !c.OK {
			n++
			t.Logf("chain: %+v", c)
		}
	}
	return n
}
