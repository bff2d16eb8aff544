package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Every field comes back as it was written, in UTC, to the microsecond.
func leaseRoundTrip(t *testing.T, b *bundle) {
	zone := time.FixedZone("elsewhere", 3600)
	full := lease(func(l *store.Lease) {
		l.TokenID, l.Tied, l.Unconfirmed, l.SourceID = "tok_1", true, true, "7312"
		l.Metadata = map[string]string{"why": "test \x00 ü"}
		l.IssuedAt = noon.In(zone)
		l.RenewedAt, l.RevokedAt = atp(1), atp(2*time.Second)
		l.PendingExpiresAt, l.PendingDeadline = atp(3*time.Second), atp(4*time.Second)
		l.LateLooks, l.FenceSeq, l.Node, l.Epoch = 2, 7, "n_1", 3
		l.ListedUntil = atp(8 * time.Second)
		l.Revocation = &api.Revocation{Reason: api.ReasonExpired, RequestedAt: at(5 * time.Second), Attempts: 3,
			LastError: "x", NextAttemptAt: atp(6 * time.Second), Residue: "y"}
		l.Claim = &store.Claim{Node: "n_1", Epoch: 3, No: 9, Until: at(7 * time.Second)}
	})
	bare := lease(func(l *store.Lease) { l.DueAt, l.Renewable, l.Recipe = nil, false, nil })
	b.insert(t, full, bare)
	if full.Version != 1 {
		t.Errorf("version = %d, want 1", full.Version)
	}
	b.reopen(t)
	full.IssuedAt, full.RenewedAt = noon, atp(0) // in UTC; the nanosecond is cut
	b.read(t, func(r store.Reader) {
		got := value[*store.Lease](t)(r.Lease(tenant, full.ID))
		wantEqual(t, "full", got, full)
		if got.IssuedAt.Location() != time.UTC || got.DueAt.Location() != time.UTC {
			t.Error("times are not in UTC")
		}
		got = value[*store.Lease](t)(r.Lease(tenant, bare.ID))
		wantEqual(t, "bare", got, bare)
		if got.Claim != nil || got.Revocation != nil || got.DueAt != nil || got.Recipe != nil || got.Metadata != nil {
			t.Errorf("absent parts came back present: %+v", got)
		}
		_, err := r.Lease("tnt_other", full.ID)
		wantCode(t, err, fault.LeaseNotFound)
	})
}

// A name that any lease of the store bears is taken, whatever the tenant, engine and state.
func leaseUsernames(t *testing.T, b *bundle) {
	first := lease(func(l *store.Lease) { l.Username = "v_x" })
	second := lease(func(l *store.Lease) { l.Username, l.Tenant, l.EngineID = "v_y", "tnt_2", "eng_b" })
	b.insert(t, first, second)
	b.update(t, first.ID, revoked(noon))

	again := lease(func(l *store.Lease) { l.Username = "v_x" })
	err := b.Write(t.Context(), func(tx store.Tx) error { return tx.InsertLease(again) })
	if !errors.Is(err, store.ErrUsernameTaken) {
		t.Errorf("insert with a name of a dead lease: %v", err)
	}
	b.write(t, func(tx store.Tx) error {
		_, err := tx.UpdateLease(second.ID, func(l *store.Lease) error { l.Username = "v_x"; return nil })
		if !errors.Is(err, store.ErrUsernameTaken) {
			t.Errorf("update to a name that is taken: %v", err)
		}
		_, err = tx.UpdateLease(second.ID, func(l *store.Lease) error { l.Username = "v_z"; return nil })
		return err // the transaction goes on after a refusal
	})
	b.read(t, func(r store.Reader) {
		byName := value[map[string]*store.Lease](t)(r.LeasesByUsername([]string{"v_x", "v_y", "v_z", "nobody"}))
		if len(byName) != 2 || byName["v_x"].ID != first.ID || byName["v_z"].ID != second.ID {
			t.Errorf("by username: %v", byName)
		}
	})
}

func leaseUpdate(t *testing.T, b *bundle) {
	l := lease()
	b.insert(t, l)
	got := b.update(t, l.ID, func(l *store.Lease) {
		l.Status, l.SourceID, l.ExpiresAt = api.LeaseActive, "s", at(2*time.Hour).Add(time.Nanosecond)
	})
	if got.Version != 2 || got.Status != api.LeaseActive || !got.ExpiresAt.Equal(at(2*time.Hour)) {
		t.Errorf("update answered %+v", got)
	}
	b.read(t, func(r store.Reader) {
		wantEqual(t, "row", value[*store.Lease](t)(r.Lease(tenant, l.ID)), got)
	})

	refused := errors.New("refused")
	b.write(t, func(tx store.Tx) error {
		_, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.Status = api.LeaseRevoked; return refused })
		if !errors.Is(err, refused) {
			t.Errorf("error of the function: %v", err)
		}
		_, err = tx.UpdateLease("lease_none", func(*store.Lease) error { return nil })
		wantCode(t, err, fault.LeaseNotFound)
		return nil
	})
	b.read(t, func(r store.Reader) {
		wantEqual(t, "row after a refused update", value[*store.Lease](t)(r.Lease(tenant, l.ID)), got)
	})
}

func leaseCounts(t *testing.T, b *bundle) {
	one, two, other := lease(), lease(), lease(func(l *store.Lease) { l.EngineID, l.Role = "eng_b", "rw" })
	b.insert(t, one, two, other)
	b.update(t, one.ID, func(l *store.Lease) { l.Status = api.LeaseActive })
	b.update(t, two.ID, revoked(noon))
	undo := errors.New("undo")
	err := b.Write(t.Context(), func(tx store.Tx) error {
		_, err := tx.UpdateLease(one.ID, func(l *store.Lease) error { revoked(noon)(l); return nil })
		return errors.Join(err, undo)
	})
	if !errors.Is(err, undo) {
		t.Errorf("error of the function: %v", err)
	}
	want := map[store.LeaseCount]bool{
		{EngineID: "eng_a", Role: "ro", Status: api.LeaseActive, N: 1}:  true,
		{EngineID: "eng_a", Role: "ro", Status: api.LeaseRevoked, N: 1}: true,
		{EngineID: "eng_b", Role: "rw", Status: api.LeaseIssuing, N: 1}: true,
	}
	check := func(engineID string, n int) {
		t.Helper()
		b.read(t, func(r store.Reader) {
			got := 0
			for _, c := range value[[]store.LeaseCount](t)(r.LeaseCounts(engineID)) {
				if c.N == 0 {
					continue
				}
				if got++; !want[c] {
					t.Errorf("count %+v", c)
				}
			}
			if got != n {
				t.Errorf("%d counts of %q, want %d", got, engineID, n)
			}
		})
	}
	check("", 3)
	check("eng_a", 2)
	b.reopen(t)
	check("", 3)
}

func leaseFilters(t *testing.T, b *bundle) {
	a := lease(func(l *store.Lease) { l.TokenID = "tok_1" })
	c := lease(func(l *store.Lease) {
		l.EngineID, l.Role, l.Identity = "eng_b", "rw", "user:x"
		l.ExpiresAt = at(3 * time.Hour)
	})
	d := lease(func(l *store.Lease) { l.IssuedAt = at(-time.Hour) })
	e := lease(func(l *store.Lease) { l.Tenant = "tnt_2" })
	a.ID, c.ID, d.ID, e.ID = "lease_1", "lease_2", "lease_3", "lease_4"
	b.insert(t, a, c, d, e)
	b.update(t, d.ID, func(l *store.Lease) { revoked(noon)(l); l.Revocation.Residue = "owns t" })

	type f = store.LeaseFilter
	for name, tt := range map[string]struct {
		f     f
		after string
		limit int
		want  []string
	}{
		"all":             {f{}, "", 0, []string{"lease_4", "lease_3", "lease_2", "lease_1"}},
		"tenant":          {f{Tenant: tenant}, "", 0, []string{"lease_3", "lease_2", "lease_1"}},
		"page":            {f{Tenant: tenant}, "lease_3", 1, []string{"lease_2"}},
		"engine":          {f{EngineID: "eng_b"}, "", 0, []string{"lease_2"}},
		"role":            {f{Tenant: tenant, EngineID: "eng_a", Role: "ro"}, "", 0, []string{"lease_3", "lease_1"}},
		"identity":        {f{Identity: "user:x"}, "", 0, []string{"lease_2"}},
		"identity, live":  {f{Tenant: tenant, Identity: "sa:ci", Status: api.LeaseIssuing}, "", 0, []string{"lease_1"}},
		"engine, live":    {f{Tenant: tenant, EngineID: "eng_a", Status: api.LeaseIssuing}, "", 0, []string{"lease_1"}},
		"token":           {f{TokenID: "tok_1"}, "", 0, []string{"lease_1"}},
		"token, live":     {f{TokenID: "tok_1", Status: api.LeaseIssuing}, "", 0, []string{"lease_1"}},
		"status":          {f{Status: api.LeaseRevoked}, "", 0, []string{"lease_3"}},
		"username":        {f{Username: c.Username}, "", 0, []string{"lease_2"}},
		"expires after":   {f{ExpiresAfter: atp(2 * time.Hour)}, "", 0, []string{"lease_2"}},
		"expires before":  {f{Tenant: tenant, ExpiresBefore: atp(2 * time.Hour)}, "", 0, []string{"lease_3", "lease_1"}},
		"issued before":   {f{IssuedBefore: &noon}, "", 0, []string{"lease_3"}},
		"residue":         {f{Residue: true}, "", 0, []string{"lease_3"}},
		"engine, residue": {f{EngineID: "eng_a", Residue: true}, "", 0, []string{"lease_3"}},
		"nothing":         {f{EngineID: "eng_b", Role: "ro"}, "", 0, []string{}},
	} {
		b.read(t, func(r store.Reader) {
			wantEqual(t, name, ids(value[[]*store.Lease](t)(r.Leases(tt.f, tt.after, tt.limit))), tt.want)
		})
	}

	b.write(t, func(tx store.Tx) error {
		if err := tx.LockLeases([]string{c.ID, "lease_none", a.ID}); err != nil {
			return err
		}
		for want := int64(2); want <= 3; want++ { // each sees what the one before left
			l, err := tx.UpdateLease(c.ID, func(l *store.Lease) error { l.LateLooks++; return nil })
			if err != nil {
				return err
			}
			wantEqual(t, "version and looks of a locked row", []int64{l.Version, int64(l.LateLooks)}, []int64{want, want - 1})
		}
		return nil
	})
	b.update(t, c.ID, func(l *store.Lease) { l.Status = api.LeaseActive })
	b.update(t, e.ID, func(l *store.Lease) {
		l.Status, l.Revocation = api.LeaseRevoking, &api.Revocation{RequestedAt: noon}
	})
	for name, tt := range map[string]struct {
		f    f
		want []string
	}{
		"not overdue yet":         {f{OverdueAt: atp(-time.Microsecond)}, []string{}},
		"asked to be revoked":     {f{OverdueAt: &noon}, []string{"lease_4"}},
		"past its end":            {f{OverdueAt: atp(3 * time.Hour)}, []string{"lease_4", "lease_2"}},
		"past its end, engine":    {f{OverdueAt: atp(3 * time.Hour), EngineID: "eng_b"}, []string{"lease_2"}},
		"past its end, of nobody": {f{OverdueAt: atp(3 * time.Hour), Identity: "sa:none"}, []string{}},
	} {
		b.read(t, func(r store.Reader) {
			wantEqual(t, name, ids(value[[]*store.Lease](t)(r.Leases(tt.f, "", 0))), tt.want)
		})
	}
}

// The list of what is revoked holds what is asked to be revoked and what is, to the end of each, and
// what lives never.
func leaseListed(t *testing.T, b *bundle) {
	listed := func(change ...func(l *store.Lease)) *store.Lease {
		return lease(append([]func(*store.Lease){func(l *store.Lease) { l.ListedUntil = atp(time.Hour) }}, change...)...)
	}
	revoking := func(l *store.Lease) {
		l.Status, l.Revocation = api.LeaseRevoking, &api.Revocation{RequestedAt: noon}
	}
	other := listed(revoking, func(l *store.Lease) { l.EngineID = "eng_b" })
	asked, dead, live := listed(revoking), listed(revoked(noon)), listed(func(l *store.Lease) { l.Status = api.LeaseActive })
	b.insert(t, asked, dead, live, lease(revoked(noon)), other)
	want := func(when time.Time, want ...string) {
		t.Helper()
		b.read(t, func(r store.Reader) {
			got := ids(value[[]*store.Lease](t)(r.Leases(store.LeaseFilter{Tenant: tenant, EngineID: "eng_a", ListedAt: &when}, "", 0)))
			slices.Sort(got)
			slices.Sort(want)
			wantEqual(t, "listed at "+when.String(), got, want)
			if len(want) > 0 {
				want = append(want, other.ID)
			}
			got = ids(value[[]*store.Lease](t)(r.Leases(store.LeaseFilter{Tenant: tenant, ListedAt: &when}, "", 0)))
			slices.Sort(got)
			slices.Sort(want)
			wantEqual(t, "listed of all engines at "+when.String(), got, want)
		})
	}
	want(noon, asked.ID, dead.ID)
	b.update(t, live.ID, revoking)
	want(at(time.Hour-time.Microsecond), asked.ID, dead.ID, live.ID)
	want(at(time.Hour), []string{}...)
}

// claim is of engine eng_a.
func (b *bundle) claim(t *testing.T, now time.Time, limit int, c store.Claim) (due []*store.Lease) {
	t.Helper()
	b.write(t, func(tx store.Tx) (err error) {
		due, err = tx.ClaimDue("eng_a", now, limit, c)
		return err
	})
	return due
}

// The longest due come first, of this engine only, and no more than asked for.
func leaseDue(t *testing.T, b *bundle) {
	late := lease(func(l *store.Lease) { l.DueAt = atp(-time.Minute) })
	later := lease(func(l *store.Lease) { l.DueAt = atp(-time.Hour) })
	just := lease(func(l *store.Lease) { l.DueAt = &noon })
	future := lease(func(l *store.Lease) { l.DueAt = atp(time.Microsecond) })
	never := lease(func(l *store.Lease) { l.DueAt = nil })
	other := lease(func(l *store.Lease) { l.DueAt, l.EngineID = atp(-time.Hour), "eng_b" })
	b.insert(t, late, later, just, future, never, other)
	mine := store.Claim{Node: b.Node(), Epoch: b.Epoch(), No: 1, Until: at(time.Minute)}

	wantEqual(t, "no room", ids(b.claim(t, noon, 0, mine)), []string{})
	got := b.claim(t, noon, 2, mine)
	wantEqual(t, "first two", ids(got), []string{later.ID, late.ID})
	if got[0].Claim == nil || *got[0].Claim != mine || got[0].Version != 2 {
		t.Errorf("claimed row: claim %+v, version %d", got[0].Claim, got[0].Version)
	}
	b.read(t, func(r store.Reader) {
		wantEqual(t, "row", value[*store.Lease](t)(r.Lease(tenant, later.ID)), got[0])
	})
	wantEqual(t, "rest", ids(b.claim(t, noon, 9, mine)), []string{just.ID})
}

// A claim holds until its end, or until its node has begun a newer epoch or claims once more.
func leaseClaims(t *testing.T, b *bundle) {
	l := lease(func(l *store.Lease) { l.DueAt = &noon })
	b.insert(t, l)
	claim := func(no, epoch int64, until time.Duration) store.Claim {
		return store.Claim{Node: b.Node(), Epoch: epoch, No: no, Until: at(until)}
	}
	take := func(now time.Duration, c store.Claim) int {
		t.Helper()
		return len(b.claim(t, at(now), 1, c))
	}
	if take(0, claim(1, b.Epoch(), time.Minute)) != 1 {
		t.Fatal("a free row was not claimed")
	}
	if take(time.Minute-time.Microsecond, claim(1, b.Epoch(), time.Hour)) != 0 {
		t.Error("a row under a valid claim was claimed")
	}
	if take(time.Minute-time.Microsecond, claim(2, b.Epoch(), time.Minute)) != 1 {
		t.Error("a claim holds against the next one of its node")
	}
	if take(time.Minute-time.Microsecond, claim(1, b.Epoch(), time.Hour)) != 0 {
		t.Error("a claim does not hold against one before it")
	}
	if take(time.Minute, claim(3, b.Epoch(), time.Hour)) != 1 {
		t.Error("a claim past its end still holds")
	}
	b.reopen(t)
	if take(2*time.Minute, claim(4, b.Epoch(), time.Hour)) != 1 {
		t.Error("a claim of an older epoch still holds")
	}
	b.update(t, l.ID, func(l *store.Lease) { l.Claim = nil })
	if take(3*time.Minute, claim(5, b.Epoch(), time.Hour)) != 1 {
		t.Error("a released row was not claimed")
	}
}

func leaseNextDue(t *testing.T, b *bundle) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	moment := func(d time.Duration) *time.Time { m := now.Add(d); return &m }
	soon := lease(func(l *store.Lease) { l.DueAt = moment(-time.Minute) })
	later := lease(func(l *store.Lease) { l.DueAt = moment(time.Hour) })
	other := lease(func(l *store.Lease) { l.EngineID, l.DueAt = "eng_b", moment(2*time.Hour) })
	never := lease(func(l *store.Lease) { l.EngineID, l.DueAt = "eng_c", nil })
	b.insert(t, soon, later, other, never)
	want := func(what string, a, other *time.Time) {
		t.Helper()
		b.read(t, func(r store.Reader) {
			next := value[map[string]time.Time](t)(r.NextDue(now))
			if len(next) != 2 || !next["eng_a"].Equal(*a) || !next["eng_b"].Equal(*other) {
				t.Errorf("%s: %v", what, next)
			}
		})
	}
	want("free", soon.DueAt, other.DueAt)
	b.claim(t, now, 1, store.Claim{Node: b.Node(), Epoch: b.Epoch(), No: 1, Until: now.Add(2 * time.Hour)})
	want("claimed past the next one", later.DueAt, other.DueAt)
	b.update(t, soon.ID, func(l *store.Lease) { l.Claim.Until = now.Add(time.Minute) })
	want("claimed until before the next one", moment(time.Minute), other.DueAt)
	b.reopen(t)
	want("claimed by an older epoch", soon.DueAt, other.DueAt)
}

// Lateness comes from the end and from the wish to revoke, never from due_at.
func leaseOverdue(t *testing.T, b *bundle) {
	want := func(now time.Time, n int, oldest time.Time) {
		t.Helper()
		b.read(t, func(r store.Reader) {
			gotN, gotOldest, err := r.Overdue("eng_a", now)
			must(t, err)
			if gotN != n || !gotOldest.Equal(oldest) {
				t.Errorf("overdue = %d since %v, want %d since %v", gotN, gotOldest, n, oldest)
			}
		})
	}
	want(noon, 0, time.Time{})
	expired := lease(func(l *store.Lease) { l.ExpiresAt, l.DueAt = at(-time.Minute), atp(time.Hour) })
	live := lease(func(l *store.Lease) { l.DueAt = atp(-time.Hour) })
	b.insert(t, expired, live, lease(func(l *store.Lease) { l.EngineID, l.ExpiresAt = "eng_b", at(-time.Hour) }))
	want(noon, 1, at(-time.Minute))
	b.update(t, live.ID, func(l *store.Lease) {
		l.Status, l.Revocation = api.LeaseRevoking, &api.Revocation{RequestedAt: at(-2 * time.Minute)}
	})
	want(noon, 2, at(-2*time.Minute))
	b.update(t, live.ID, revoked(noon))
	want(noon, 1, at(-time.Minute))
	b.update(t, expired.ID, func(l *store.Lease) { l.ExpiresAt = at(time.Hour) })
	want(noon, 0, time.Time{})
}

// Trim takes what is dead and done with, the longest dead first, and nothing else.
func leaseTrim(t *testing.T, b *bundle) {
	end := func(d time.Duration, change ...func(l *store.Lease)) *store.Lease {
		l := lease(revoked(at(d)))
		for _, c := range change {
			c(l)
		}
		return l
	}
	old, older, recent := end(-time.Hour), end(-2*time.Hour), end(time.Hour)
	residue := end(-time.Hour, func(l *store.Lease) { l.Revocation.Residue = "owns t" })
	due := end(-time.Hour, func(l *store.Lease) { l.DueAt = &noon })
	listed := end(-time.Hour, func(l *store.Lease) { l.ListedUntil = &noon })
	unlisted := end(-3*time.Hour, func(l *store.Lease) { l.ListedUntil = atp(-time.Microsecond) })
	live := lease(func(l *store.Lease) { l.ExpiresAt = at(-time.Hour) })
	b.insert(t, old, older, recent, residue, due, listed, unlisted, live)
	trim := func(limit, want int) {
		t.Helper()
		b.write(t, func(tx store.Tx) error {
			n, err := tx.Trim(noon, noon, limit)
			if n != want {
				t.Errorf("trimmed %d, want %d", n, want)
			}
			return err
		})
	}
	gone := func(l *store.Lease) (absent bool) {
		b.read(t, func(r store.Reader) {
			_, err := r.Lease(tenant, l.ID)
			absent = errors.Is(err, fault.LeaseNotFound)
		})
		return absent
	}
	trim(2, 2)
	if !gone(unlisted) || !gone(older) || gone(old) {
		t.Error("the longest dead did not go first")
	}
	trim(9, 1)
	trim(9, 0)
	for name, l := range map[string]*store.Lease{"recent": recent, "residue": residue, "due": due, "listed": listed, "live": live} {
		if gone(l) {
			t.Errorf("%s lease was trimmed", name)
		}
	}
	b.read(t, func(r store.Reader) {
		for _, c := range value[[]store.LeaseCount](t)(r.LeaseCounts("")) {
			if c.Status == api.LeaseRevoked && c.N != 4 {
				t.Errorf("count of revoked leases = %d, want 4", c.N)
			}
		}
	})
}
