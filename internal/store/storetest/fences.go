package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

func (b *bundle) fence(t *testing.T, f *store.Fence) *store.Fence {
	t.Helper()
	if f.Tenant == "" {
		f.Tenant = tenant
	}
	b.write(t, func(tx store.Tx) error {
		if err := tx.LockTenant(f.Tenant, true); err != nil {
			return err
		}
		return tx.AddFence(f)
	})
	return f
}

// Fences are numbered upwards in each tenant, also after older ones were trimmed.
func fenceNumbers(t *testing.T, b *bundle) {
	first := b.fence(t, &store.Fence{EngineID: "eng_a", Role: "ro", Reason: api.ReasonPrefix, By: "user:ops", At: noon, AuditID: "log_1"})
	second := b.fence(t, &store.Fence{Identity: "sa:ci", TokenID: "tok_1", TiedOnly: true, IssuedBefore: atp(-time.Hour), At: noon, Matched: 3})
	other := b.fence(t, &store.Fence{Tenant: "tnt_2", EngineID: "eng_z", At: noon})
	if first.Seq != 1 || second.Seq != 2 || other.Seq != 1 {
		t.Fatalf("numbers %d, %d and %d", first.Seq, second.Seq, other.Seq)
	}
	want := func(what string, read func(r store.Reader) ([]*store.Fence, error), want ...*store.Fence) {
		t.Helper()
		b.read(t, func(r store.Reader) {
			wantEqual(t, what, value[[]*store.Fence](t)(read(r)), want)
		})
	}
	open := func(r store.Reader) ([]*store.Fence, error) { return r.OpenFences() }
	since := func(seq int64) func(r store.Reader) ([]*store.Fence, error) {
		return func(r store.Reader) ([]*store.Fence, error) { return r.FencesSince(tenant, seq) }
	}
	want("open", open, other, first, second)
	want("since 0", since(0), first, second)
	want("since 1", since(1), second)

	b.write(t, func(tx store.Tx) error { return tx.CloseFence(tenant, 2) })
	b.write(t, func(tx store.Tx) error { return tx.CloseFence(tenant, 1) })
	wantCode(t, b.Write(t.Context(), func(tx store.Tx) error { return tx.CloseFence(tenant, 9) }), fault.NotFound)
	first.Closed, second.Closed = true, true
	want("open after closing", open, other)
	want("closed since 0", since(0), first, second)

	b.write(t, func(tx store.Tx) error {
		n, err := tx.Trim(at(time.Hour), noon, 9)
		if n != 1 {
			t.Errorf("trimmed %d fences, want 1", n)
		}
		return err
	})
	want("after the trim", since(0), second)
	b.reopen(t)
	b.read(t, func(r store.Reader) {
		if seq := value[int64](t)(r.FenceSeq(tenant)); seq != 2 {
			t.Errorf("newest = %d", seq)
		}
		if seq := value[int64](t)(r.FenceSeq("tnt_none")); seq != 0 {
			t.Errorf("newest of none = %d", seq)
		}
	})
	if f := b.fence(t, &store.Fence{EngineID: "eng_a", At: noon}); f.Seq != 3 {
		t.Errorf("next number = %d, want 3", f.Seq)
	}
}

// A fence's targets are exactly the issuing and active leases that it Matches.
func fenceTargets(t *testing.T, b *bundle) {
	b.fence(t, &store.Fence{EngineID: "eng_none", At: noon})
	var leases []*store.Lease
	for _, change := range []func(l *store.Lease){
		func(*store.Lease) {},
		func(l *store.Lease) { l.Status = api.LeaseActive },
		func(l *store.Lease) { l.Status = api.LeaseRevoking },
		revoked(noon),
		func(l *store.Lease) { l.FenceSeq = 1 }, // saw the first fence, not the second
		func(l *store.Lease) { l.FenceSeq = 2 }, // saw the second
		func(l *store.Lease) { l.Tenant = "tnt_2" },
		func(l *store.Lease) { l.EngineID = "eng_b" },
		func(l *store.Lease) { l.Role = "rw" },
		func(l *store.Lease) { l.Identity = "user:x" },
		func(l *store.Lease) { l.TokenID = "tok_1" },
		func(l *store.Lease) { l.TokenID, l.Tied = "tok_1", true },
		func(l *store.Lease) { l.IssuedAt = at(-2 * time.Hour) },
	} {
		l := lease(change)
		l.ID = fmt.Sprintf("lease_%02d", len(leases))
		leases = append(leases, l)
	}
	b.insert(t, leases...)

	for name, f := range map[string]*store.Fence{
		"engine":        {EngineID: "eng_a"},
		"role":          {EngineID: "eng_a", Role: "ro"},
		"identity":      {Identity: "sa:ci"},
		"identity role": {Identity: "sa:ci", EngineID: "eng_a", Role: "rw"},
		"token":         {TokenID: "tok_1"},
		"tied":          {TokenID: "tok_1", TiedOnly: true},
		"issued before": {IssuedBefore: atp(-time.Hour)},
	} {
		f.Tenant, f.Seq = tenant, 2
		targets, pending := []string{}, []string{}
		for _, l := range leases {
			if !f.Matches(l) || l.Status == api.LeaseRevoked {
				continue
			}
			pending = append(pending, l.ID)
			if l.Status != api.LeaseRevoking {
				targets = append(targets, l.ID)
			}
		}
		if len(targets) == 0 {
			t.Fatalf("%s: the test has no target", name)
		}
		b.write(t, func(tx store.Tx) error {
			got := []string{}
			for after := ""; ; { // one at a time: the pages join without gap
				page, err := tx.FenceTargets(f, after, 1)
				if err != nil {
					return err
				}
				if len(page) == 0 {
					break
				}
				after = page[0]
				got = append(got, after)
			}
			wantEqual(t, name+": targets", got, targets)
			n, first, err := tx.FencePending(f, 100)
			wantEqual(t, name+": pending", first, pending)
			if n != int64(len(pending)) {
				t.Errorf("%s: %d pending, want %d", name, n, len(pending))
			}
			return err
		})
	}
}
