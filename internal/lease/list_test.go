package lease_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

func TestGet(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app := context.Background(), w.caller("app")
		one, two := w.issue(app, "one", "app"), w.issue(app, "two", "app")
		for name, want := range map[string][2]fault.Code{
			"app":   {"", ""},
			"admin": {"", ""},
			"read":  {"", fault.AccessDenied},
			"other": {fault.AccessDenied, fault.AccessDenied},
		} {
			c := w.caller(name)
			l, err := w.leases.Get(ctx, c, one.LeaseID)
			w.wantCode(err, want[0])
			if err == nil && (l.Username != one.Data["username"] || l.Status != api.LeaseActive) {
				t.Errorf("%+v", l)
			}
			_, err = w.leases.Get(ctx, c, two.LeaseID)
			w.wantCode(err, want[1])
		}
		for _, id := range []string{"lease_00000000000000000000000000", "a password pasted by mistake", ""} {
			_, err := w.leases.Get(ctx, app, id)
			w.wantCode(err, fault.LeaseNotFound)
		}
	})
}

func TestList(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx, app, other := context.Background(), w.caller("app"), w.caller("other")
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Unreachable}, "revoke"))
		a := w.issue(app, "one", "app").LeaseID
		time.Sleep(time.Millisecond)
		b := w.issue(other, "one", "fixed").LeaseID
		time.Sleep(time.Millisecond)
		c := w.issue(other, "two", "app").LeaseID
		time.Sleep(time.Millisecond)
		dead := w.issue(app, "two", "app").LeaseID
		_, err := w.leases.Revoke(ctx, app, dead, time.Minute)
		w.must(err)
		time.Sleep(time.Millisecond)
		past := w.issue(app, "one", "short", time.Second).LeaseID // expires at once, cannot be revoked
		time.Sleep(time.Second)
		asked := w.issue(app, "one", "app").LeaseID
		_, err = w.leases.Revoke(ctx, app, asked, 0)
		w.must(err)

		list := func(as *access.Caller, f lease.Filter, limit int) (ids []string) {
			t.Helper()
			for before := ""; ; {
				page, next, err := w.leases.List(ctx, as, f, before, limit)
				w.must(err)
				if len(page) > limit {
					t.Fatalf("%d on a page of %d", len(page), limit)
				}
				for _, l := range page {
					ids = append(ids, l.LeaseID)
					if f.Status != "" && l.Status != f.Status {
						t.Errorf("%s among %s", l.Status, f.Status)
					}
				}
				if before = next; next == "" {
					return ids
				}
			}
		}
		soon := time.Now().Add(time.Minute)
		admin := w.caller("admin")
		for name, tt := range map[string]struct {
			as   *access.Caller
			f    lease.Filter
			want []string
		}{
			"all":             {admin, lease.Filter{}, []string{asked, past, dead, c, b, a}},
			"own":             {app, lease.Filter{}, []string{asked, past, dead, a}},
			"readable":        {w.caller("read"), lease.Filter{}, []string{asked, past, b, a}},
			"engine":          {admin, lease.Filter{Engine: "one"}, []string{asked, past, b, a}},
			"role":            {admin, lease.Filter{Engine: "one", Role: "app"}, []string{asked, a}},
			"identity":        {admin, lease.Filter{Identity: "user:other"}, []string{c, b}},
			"somebody else's": {app, lease.Filter{Identity: "user:other"}, nil},
			"active":          {admin, lease.Filter{Status: api.LeaseActive}, []string{c, b, a}},
			"revoking":        {admin, lease.Filter{Status: api.LeaseRevoking}, []string{asked, past}},
			"revoked":         {admin, lease.Filter{Status: api.LeaseRevoked}, []string{dead}},
			"name":            {admin, lease.Filter{Username: w.row(b).Username}, []string{b}},
			"ends before":     {admin, lease.Filter{ExpiresBefore: &soon}, []string{past}},
			"ends after":      {admin, lease.Filter{ExpiresAfter: &soon, Engine: "two"}, []string{dead, c}},
		} {
			for _, limit := range []int{1, 2, 100} {
				if got := list(tt.as, tt.f, limit); !slices.Equal(got, tt.want) {
					t.Errorf("%s by %d: %v, want %v", name, limit, got, tt.want)
				}
			}
		}
		_, _, err = w.leases.List(ctx, admin, lease.Filter{Engine: "no"}, "", 10)
		w.wantCode(err, fault.EngineNotFound)
		_, _, err = w.leases.List(ctx, admin, lease.Filter{}, "x", 10)
		w.wantCode(err, fault.InvalidCursor)
	})
}

// A lease is shown as revoking from the very moment of its end, in lists too.
func TestListAtTheEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.one.SetFault(always(leasetest.Fault{Delay: time.Second}, "revoke"))
		made := w.issue(w.caller("app"), "one", "app", time.Minute)
		time.Sleep(time.Until(made.ExpiresAt))
		admin := w.caller("admin")
		for status, want := range map[api.LeaseStatus]int{api.LeaseActive: 0, api.LeaseRevoking: 1} {
			page, _, err := w.leases.List(context.Background(), admin, lease.Filter{Status: status}, "", 10)
			w.must(err)
			if len(page) != want {
				t.Errorf("%d are %s, want %d", len(page), status, want)
			}
		}
	})
}
