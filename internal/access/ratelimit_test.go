package access_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
)

// bubble runs a test with a door in front of a real store, in fake time.
func bubble(t *testing.T, limits access.Limits, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, setup(t, limits)) })
}

func TestLimitPerIdentityAndCategory(t *testing.T) {
	t.Parallel()
	bubble(t, access.Limits{}, func(t *testing.T, w *world) {
		w.user("alice")
		admin, alice := w.caller("user:admin", access.ScopeAdmin), w.caller("user:alice", access.ScopeAdmin)
		call := func(c *access.Caller, category access.Category) error {
			c.Origin.Start = time.Now()
			_, err := w.door.Admit(t.Context(), c, access.Ask{Action: "x", Category: category})
			return err
		}
		start := time.Now()
		for i := range 20 {
			if err := call(admin, access.CategoryDynamicAdmin); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		limit := admin.RateLimit()
		if limit == nil || limit.Limit != 20 || limit.Remaining != 19 || !limit.Reset.After(start) {
			t.Errorf("after the first call the caller was told %+v", limit)
		}
		err := call(admin, access.CategoryDynamicAdmin)
		wantCode(t, err, fault.RateLimited)
		if after := fault.From(err).RetryAfter; after != 3*time.Second {
			t.Errorf("retry after %v, want the 3 s in which one of 20 a minute comes back", after)
		}
		if err := call(alice, access.CategoryDynamicAdmin); err != nil {
			t.Errorf("another identity: %v", err)
		}
		if err := call(admin, access.CategoryLease); err != nil {
			t.Errorf("another category: %v", err)
		}
		for range 1000 {
			if err := call(access.System(tenant, "system:lease"), access.CategoryDynamicAdmin); err != nil {
				t.Fatalf("the server itself: %v", err)
			}
		}
		// A second token of the identity does not help.
		wantCode(t, call(w.caller("user:admin", access.ScopeAdmin), access.CategoryDynamicAdmin), fault.RateLimited)
		time.Sleep(3 * time.Second)
		if err := call(admin, access.CategoryDynamicAdmin); err != nil {
			t.Errorf("after 3 s: %v", err)
		}
		wantCode(t, call(admin, access.CategoryDynamicAdmin), fault.RateLimited)
		time.Sleep(time.Minute)
		for range 20 {
			if err := call(admin, access.CategoryDynamicAdmin); err != nil {
				t.Errorf("after a minute: %v", err)
			}
		}
	})
}

// Some calls count against the caller's address, too: of one identity for each of many hosts, or of many
// identities on one, neither goes on for ever.
func TestLimitPerAddress(t *testing.T) {
	t.Parallel()
	bubble(t, access.Limits{PerMinute: map[access.Category]int{access.CategoryVerify: 5}}, func(t *testing.T, w *world) {
		call := func(user, address string) error {
			c := w.caller("user:"+user, access.ScopeAdmin)
			c.Origin.SourceIP = netip.MustParseAddr(address)
			_, err := w.door.Admit(t.Context(), c, access.Ask{Action: "x", Category: access.CategoryVerify, PerAddress: true})
			return err
		}
		for _, name := range []string{"a", "b", "c"} {
			w.user(name)
		}
		for i := range 5 {
			if err := call([]string{"a", "b"}[i%2], "192.0.2.1"); err != nil {
				t.Fatalf("call %d: %v", i, err)
			}
		}
		wantCode(t, call("c", "192.0.2.1"), fault.RateLimited)
		if err := call("a", "192.0.2.2"); err != nil {
			t.Errorf("from another address: %v", err)
		}
		if err := call("a", "192.0.2.3"); err != nil {
			t.Errorf("from a third: %v", err)
		}
		wantCode(t, call("a", "192.0.2.4"), fault.RateLimited)
	})
}

func TestLimitsAreConfigurable(t *testing.T) {
	t.Parallel()
	bubble(t, access.Limits{PerMinute: map[access.Category]int{access.CategoryLease: 2, access.CategoryPolicy: 0}}, func(t *testing.T, w *world) {
		admin := w.caller("user:admin", access.ScopeAdmin)
		var err error
		for range 3 {
			_, err = w.door.Admit(t.Context(), admin, access.Ask{Action: "x", Category: access.CategoryLease})
		}
		wantCode(t, err, fault.RateLimited)
		for range 500 {
			if _, err := w.door.Admit(t.Context(), admin, access.Ask{Action: "x", Category: access.CategoryPolicy}); err != nil {
				t.Fatal(err)
			}
		}
	})
	bubble(t, noLimits, func(t *testing.T, w *world) {
		admin := w.caller("user:admin", access.ScopeAdmin)
		for range 500 {
			if _, err := w.door.Admit(t.Context(), admin, access.Ask{Action: "x", Category: access.CategoryDynamicAdmin}); err != nil {
				t.Fatal(err)
			}
		}
		for range 500 {
			_, err := w.door.Authenticate(t.Context(), "", "", from("192.0.2.1"))
			wantCode(t, err, fault.AuthenticationRequired)
		}
		if admin.RateLimit() != nil {
			t.Error("a limit is told where there is none")
		}
	})
}

// A flood of bad tokens costs an entry a minute for each address and code; good tokens of the same
// address are let in all the while.
func TestRefusalsAreLimitedAndCounted(t *testing.T) {
	t.Parallel()
	bubble(t, access.Limits{}, func(t *testing.T, w *world) {
		_, good := w.token("user:admin", time.Hour, access.ScopeAdmin)
		_, expired := w.token("user:admin", -time.Minute, access.ScopeAdmin)
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { w.door.Run(ctx); close(done) }()

		try := func(bearer, ip string) fault.Code {
			_, err := w.door.Authenticate(t.Context(), bearer, "", from(ip))
			return fault.CodeOf(err)
		}
		for i := range 150 {
			want := fault.TokenInvalid
			if i >= 100 {
				want = fault.RateLimited
			}
			if got := try("nonsense", "192.0.2.7"); got != want {
				t.Fatalf("call %d: %q, want %q", i, got, want)
			}
		}
		if got := try(good, "192.0.2.7"); got != "" {
			t.Errorf("a good token from the same address: %q", got)
		}
		if got := try("", "192.0.2.8"); got != fault.AuthenticationRequired {
			t.Errorf("another address: %q", got)
		}
		if got := try(expired, "192.0.2.8"); got != fault.TokenExpired {
			t.Errorf("an expired token: %q", got)
		}
		// Who has one IPv6 address has its network.
		for i := range 100 {
			addr := netip.MustParseAddr("2001:db8::").As16()
			addr[15] = byte(i)
			if got := try("nonsense", netip.AddrFrom16(addr).String()); got != fault.TokenInvalid {
				t.Fatalf("%q", got)
			}
		}
		if got := try("nonsense", "2001:db8::ffff:1"); got != fault.RateLimited {
			t.Errorf("an address of the same network: %q", got)
		}
		if len(w.entries()) != 0 {
			t.Errorf("%d entries before the minute was over", len(w.entries()))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()

		type key struct{ address, identity, code string }
		counts := map[key]float64{}
		for _, e := range w.entries() {
			if e.Action != "auth_refused" || e.Success {
				t.Errorf("entry %+v", e)
			}
			counts[key{e.SourceIP, e.IdentityID, e.ExtraData["error"].(string)}] += e.ExtraData["count"].(float64)
		}
		for k, want := range map[key]float64{
			{"192.0.2.7", "", "token_invalid"}:           100,
			{"192.0.2.7", "", "rate_limited"}:            50,
			{"192.0.2.8", "", "authentication_required"}: 1,
			{"192.0.2.8", "user:admin", "token_expired"}: 1,
			{"2001:db8::1", "", "token_invalid"}:         1,
		} {
			if counts[k] != want {
				t.Errorf("%v counted %v times, want %v", k, counts[k], want)
			}
		}
		before := len(w.entries())
		if got := try("nonsense", "192.0.2.9"); got != fault.TokenInvalid {
			t.Errorf("%q", got)
		}
		cancel()
		<-done
		if got := len(w.entries()); got != before+1 {
			t.Errorf("at the end %d entries were written for one refusal", got-before)
		}
	})
}

func TestAMinuteIsWrittenWhenItIsOver(t *testing.T) {
	t.Parallel()
	bubble(t, access.Limits{}, func(t *testing.T, w *world) {
		time.Sleep(30 * time.Second)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.door.Run(ctx); close(done) }() // looks at 1:30, 2:30, ...
		refuse := func() {
			_, err := w.door.Authenticate(t.Context(), "nonsense", "", from("192.0.2.7"))
			wantCode(t, err, fault.TokenInvalid)
		}
		time.Sleep(50 * time.Second)
		refuse() // at 1:20
		time.Sleep(20 * time.Second)
		refuse() // at 1:40
		if n := len(w.entries()); n != 0 {
			t.Errorf("%d entries of a minute that goes on", n)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if all := w.entries(); len(all) != 1 || all[0].ExtraData["count"] != 2.0 || all[0].ExtraData["minute"] != "2000-01-01T00:01:00Z" {
			t.Errorf("%+v", all)
		}
		stop()
		<-done
	})
}

func TestAStoreThatIsLostIsNoRefusal(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	_, text := w.token("user:admin", time.Hour)
	w.store.Close()
	_, err := w.door.Authenticate(t.Context(), text, "", from("192.0.2.1"))
	if code := fault.CodeOf(err); fault.Status(code) != 503 {
		t.Errorf("code %q (%v)", code, errors.Unwrap(err))
	}
}
