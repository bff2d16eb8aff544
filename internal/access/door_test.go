package access_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

var readX = access.Ask{Action: "read", Any: []access.Right{{Scope: access.ScopeSecretsRead, Permission: "read", Path: "app/x"}}}

func TestEveryDenialHasItsCodeAndIsRecorded(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.user("alice")
	past := time.Now().Add(-time.Hour)
	other := []policy.TimeWindow{{Days: []string{[]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}[(time.Now().UTC().Weekday()+3)%7]}, Start: "00:00", End: "24:00", Timezone: "UTC"}}
	w.policy("reader", rule("app/*", policy.Read))
	w.policy("ip", policy.Rule{PathPattern: "ip/*", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{IPRanges: []string{"10.0.0.0/8"}}})
	w.policy("mfa", policy.Rule{PathPattern: "mfa/*", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{RequireMFA: true}})
	w.policy("time", policy.Rule{PathPattern: "time/*", Permissions: []policy.Permission{policy.Read}, Conditions: &policy.Conditions{TimeWindows: other}})
	w.policy("ended", rule("ended/*", policy.Read))
	w.put(store.KindPolicy, "pol-off", "off", map[string]any{"rules": []policy.Rule{rule("off/*", policy.Read)}, "is_active": false})
	for _, name := range []string{"reader", "ip", "mfa", "time", "off"} {
		w.bind(name, "user:alice", nil)
	}
	w.bind("ended", "user:alice", &past)
	alice := w.caller("user:alice", access.ScopeSecretsRead)

	for _, tt := range []struct {
		name  string
		right access.Right
		want  fault.Code
	}{
		{"allowed", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "app/x"}, ""},
		{"scope", access.Right{Scope: access.ScopeSecretsWrite, Permission: "read", Path: "app/x"}, fault.InsufficientScope},
		{"permission", access.Right{Scope: access.ScopeSecretsRead, Permission: "write", Path: "app/x"}, fault.AccessDenied},
		{"path", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "app/x/y"}, fault.AccessDenied},
		{"address", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "ip/x"}, fault.IPNotAllowed},
		{"second factor", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "mfa/x"}, fault.MFARequired},
		{"time", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "time/x"}, fault.TimeWindowViolation},
		{"ended binding", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "ended/x"}, fault.AccessDenied},
		{"inactive policy", access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "off/x"}, fault.AccessDenied},
		{"another's", access.Right{Owner: "user:bob"}, fault.AccessDenied},
		{"one's own", access.Right{Owner: "user:alice"}, ""},
	} {
		before := len(w.entries())
		_, err := w.door.Admit(t.Context(), alice, access.Ask{Action: "read", Path: "app/" + tt.name, Any: []access.Right{tt.right}})
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", tt.name, got, tt.want)
		}
		if w.door.Allowed(alice, tt.right) != (tt.want == "") {
			t.Errorf("%s: Allowed disagrees with Admit", tt.name)
		}
		entries := w.entries()[before:]
		if tt.want == "" {
			if len(entries) != 0 {
				t.Errorf("%s: admission alone was recorded", tt.name)
			}
			continue
		}
		if len(entries) != 1 {
			t.Fatalf("%s: %d entries", tt.name, len(entries))
		}
		e := entries[0]
		if e.Success || e.ExtraData["error"] != string(tt.want) || e.IdentityID != "user:alice" || e.SourceIP != "192.0.2.1" ||
			e.RequestID != alice.Origin.RequestID || e.SecretPath != "app/"+tt.name || e.IdentityType != "user" || e.UserAgent != "test" {
			t.Errorf("%s: entry %+v", tt.name, e)
		}
	}
}

func TestTheNearestReasonIsGiven(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.user("alice")
	alice := w.caller("user:alice", access.ScopeDynamicRead)
	_, err := w.door.Admit(t.Context(), alice, access.Ask{Action: "read", Any: []access.Right{
		{Scope: access.ScopeDynamicRead, Permission: "dynamic:read", Path: "dynamic/db/ro"},
		{Scope: access.ScopeDynamicGenerate, Owner: "user:alice"},
	}})
	wantCode(t, err, fault.AccessDenied)
	if _, err := w.door.Admit(t.Context(), alice, access.Ask{Action: "auth_whoami"}); err != nil {
		t.Errorf("an ask for no right is for everybody: %v", err)
	}
	if w.door.Allowed(alice) {
		t.Error("no right at all is allowed")
	}
}

func TestGroupsAndSystemIdentities(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.policy("engines", rule("infra/**", policy.Read))
	w.bind("engines", access.EnginesGroup, nil)
	engine := access.System(tenant, "dynamic:db", access.EnginesGroup)
	read := access.Right{Scope: access.ScopeSecretsRead, Permission: "read", Path: "infra/db/root"}
	if !w.door.Allowed(engine, read) {
		t.Error("the group's policy does not hold for a member")
	}
	if w.door.Allowed(access.System(tenant, "dynamic:db"), read) {
		t.Error("the group's policy holds for who is not in it")
	}
	read.Path = "app/x"
	if w.door.Allowed(engine, read) {
		t.Error("an internal identity goes round the policies")
	}
}

func TestWriteRecordsInTheTransactionOfTheChange(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	admin := w.caller("user:admin", access.ScopeAdmin)
	pass, err := w.door.Admit(t.Context(), admin, access.Ask{Action: "write", Any: []access.Right{{Permission: "write", Path: "app/x"}}, Extra: map[string]any{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	pass.Set("b", "2")
	err = pass.Write(t.Context(), func(tx store.Tx, _ *store.Config) error { return tx.PutMeta("k", []byte("v")) })
	if err != nil {
		t.Fatal(err)
	}
	e := w.lastEntry()
	if !e.Success || e.Action != "write" || e.SecretPath != "app/x" || e.ExtraData["a"] != "1" || e.ExtraData["b"] != "2" || e.ID == "" || e.Timestamp.IsZero() {
		t.Errorf("entry %+v", e)
	}

	before := len(w.entries())
	err = pass.Write(t.Context(), func(tx store.Tx, _ *store.Config) error {
		if err := tx.PutMeta("k", []byte("changed")); err != nil {
			return err
		}
		return fault.New(fault.LeaseExpired, "it has ended")
	})
	wantCode(t, err, fault.LeaseExpired)
	entries := w.entries()[before:]
	if len(entries) != 1 || entries[0].Success || entries[0].ExtraData["error"] != "lease_expired" {
		t.Errorf("entries of a failure: %+v", entries)
	}
	if got := w.meta("k"); got != "v" {
		t.Errorf("a failed change left %q", got)
	}
}

func (w *world) meta(key string) (value string) {
	w.t.Helper()
	err := w.store.Read(context.Background(), func(r store.Reader) error {
		b, err := r.Meta(key)
		value = string(b)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return value
}

// Between the decision and the transaction the right is taken away: nothing of the change stays.
func TestAConfigurationThatMovedIsDecidedAgain(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.user("alice")
	w.policy("writer", rule("app/*", policy.Write))
	w.bind("writer", "user:alice", nil)
	ask := access.Ask{Action: "write", Any: []access.Right{{Scope: access.ScopeSecretsWrite, Permission: "write", Path: "app/x"}}}
	alice := w.caller("user:alice", access.ScopeSecretsWrite)
	admit := func() *access.Pass {
		t.Helper()
		pass, err := w.door.Admit(t.Context(), alice, ask)
		if err != nil {
			t.Fatal(err)
		}
		return pass
	}

	still := admit()
	w.policy("unrelated")
	var revs []int64
	err := still.Write(t.Context(), func(tx store.Tx, cfg *store.Config) error {
		if cfg.Rev != tx.ConfigRev() {
			t.Errorf("configuration %d in a transaction of %d", cfg.Rev, tx.ConfigRev())
		}
		revs = append(revs, cfg.Rev)
		return tx.PutMeta("k", []byte("first"))
	})
	if err != nil || len(revs) != 1 {
		t.Fatalf("%v after runs at %v", err, revs)
	}

	checked := admit()
	if err := checked.Check(access.Right{Permission: "write", Path: "app/y"}); err != nil {
		t.Fatal(err)
	}
	reading, failing := admit(), admit()
	w.policy("writer", rule("app/x", policy.Write))
	ran := false
	err = checked.Write(t.Context(), func(tx store.Tx, _ *store.Config) error { ran = true; return tx.PutMeta("k", []byte("second")) })
	wantCode(t, err, fault.AccessDenied)
	if ran || w.meta("k") != "first" {
		t.Error("a check that no longer holds let the change through")
	}

	w.remove(store.KindBinding, "bind-writeruser:alice")
	before := len(w.entries())
	wantCode(t, reading.Record(t.Context(), nil), fault.AccessDenied)
	err = failing.Write(t.Context(), func(store.Tx, *store.Config) error { ran = true; return nil })
	wantCode(t, err, fault.AccessDenied)
	if ran {
		t.Error("the change ran after its right was gone")
	}
	if entries := w.entries()[before:]; len(entries) != 2 || entries[0].Success || entries[1].Success {
		t.Errorf("entries %+v", entries)
	}
}

func TestATokenThatEndsInUse(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.user("alice")
	w.account("ci", access.ScopeSecretsRead)
	id, text := w.token("user:alice", time.Hour, access.ScopeAdmin)
	_, machine := w.token("sa:ci", time.Hour, access.ScopeSecretsRead)
	authenticate := func(text string) (*access.Caller, error) {
		return w.door.Authenticate(t.Context(), text, "", from("192.0.2.1"))
	}
	alice, err := authenticate(text)
	if err != nil {
		t.Fatal(err)
	}
	pass, err := w.door.Admit(t.Context(), alice, access.Ask{Action: "auth_whoami"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate(machine); err != nil {
		t.Fatal(err)
	}

	now := time.Now()
	w.put(store.KindToken, id, access.TokenKey("user:alice", id), access.Token{Identity: "user:alice", Subject: "usr-alice",
		Hash: access.Digest(text), ExpiresAt: now.Add(time.Hour), RevokedAt: &now})
	_, err = authenticate(text)
	wantCode(t, err, fault.TokenRevoked)
	_, err = w.door.Admit(t.Context(), alice, access.Ask{Action: "auth_whoami"})
	wantCode(t, err, fault.TokenRevoked)
	wantCode(t, pass.Record(t.Context(), nil), fault.TokenRevoked)

	w.remove(store.KindToken, id)
	_, err = authenticate(text)
	wantCode(t, err, fault.TokenInvalid)

	// Another account of the same name does not revive the tokens of the first.
	w.remove(store.KindServiceAccount, "sa-ci")
	w.put(store.KindServiceAccount, "sa-other", "ci", access.ServiceAccount{})
	_, err = authenticate(machine)
	wantCode(t, err, fault.TokenRevoked)
}

func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	w.user("alice")
	_, text := w.token("user:alice", time.Hour)
	_, short := w.token("user:alice", -time.Second)
	_, foreign := access.NewTokenText()
	systemID, system := access.NewTokenText()
	w.put(store.KindToken, systemID, "system:lease/"+systemID, access.Token{Identity: "system:lease", Hash: access.Digest(system.Reveal()), ExpiresAt: time.Now().Add(time.Hour)})

	for name, tt := range map[string]struct {
		bearer, tenant string
		want           fault.Code
	}{
		"none":      {"", "", fault.AuthenticationRequired},
		"garbage":   {"hello", "", fault.TokenInvalid},
		"unknown":   {foreign.Reveal(), "", fault.TokenInvalid},
		"expired":   {short, "", fault.TokenExpired},
		"system":    {system.Reveal(), "", fault.TokenInvalid},
		"tenant":    {text, "tnt_other", fault.TenantNotFound},
		"cut":       {text[:len(text)-1], "", fault.TokenInvalid},
		"lowercase": {"SKT" + text[3:], "", fault.TokenInvalid},
	} {
		_, err := w.door.Authenticate(t.Context(), tt.bearer, tt.tenant, from("192.0.2.1"))
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", name, got, tt.want)
		}
	}
	// Who knows the id, which is no secret, can make a token that looks right.
	forged := access.NewSecret(text[:30]).Reveal()
	if _, err := w.door.Authenticate(t.Context(), forged, "", from("192.0.2.1")); fault.CodeOf(err) != fault.TokenInvalid {
		t.Errorf("a forged token: %v", err)
	}
	if _, err := w.door.Authenticate(t.Context(), text, tenant, from("192.0.2.1")); err != nil {
		t.Errorf("the token's own tenant is refused: %v", err)
	}
	for i := range text {
		changed := []byte(text)
		changed[i] ^= 1
		if _, err := w.door.Authenticate(t.Context(), string(changed), "", from("192.0.2.1")); fault.CodeOf(err) != fault.TokenInvalid {
			t.Fatalf("a token changed at %d: %v", i, err)
		}
	}
}

func TestBootstrapUsed(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	var used atomic.Int32
	door := access.New(access.Config{Store: w.store, BootstrapUsed: func() { used.Add(1) }})
	_, plain := w.token("user:admin", time.Hour)
	id, text := access.NewTokenText()
	w.put(store.KindToken, id, access.TokenKey("user:admin", id), access.Token{Identity: "user:admin", Subject: "usr-admin",
		Hash: access.Digest(text.Reveal()), ExpiresAt: time.Now().Add(time.Hour), Bootstrap: true})
	if _, err := door.Authenticate(t.Context(), plain, "", from("192.0.2.1")); err != nil || used.Load() != 0 {
		t.Fatalf("%v, used %d", err, used.Load())
	}
	if _, err := door.Authenticate(t.Context(), text.Reveal(), "", from("192.0.2.1")); err != nil || used.Load() != 1 {
		t.Fatalf("%v, used %d", err, used.Load())
	}
}

// broken is a store that cannot commit.
type broken struct{ store.Store }

var errDisk = errors.New("disk full")

func (b broken) Write(context.Context, func(store.Tx) error) error { return errDisk }

func TestWhatCannotBeRecordedDoesNotHappen(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	admin := w.caller("user:admin", access.ScopeAdmin)
	door := access.New(access.Config{Store: broken{w.store}})
	pass, err := door.Admit(t.Context(), admin, access.Ask{Action: "read", Any: []access.Right{{Permission: "read", Path: "app/x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := pass.Record(t.Context(), nil); !errors.Is(err, errDisk) {
		t.Errorf("a read that was not recorded: %v", err)
	}
	if err := pass.Write(t.Context(), func(store.Tx, *store.Config) error { return nil }); !errors.Is(err, errDisk) {
		t.Errorf("a change that was not recorded: %v", err)
	}

	// An entry that cannot be written undoes the change that it was to record.
	bad, err := w.door.Admit(t.Context(), admin, access.Ask{Action: "write", Any: []access.Right{{Permission: "write", Path: "app/x"}},
		Extra: map[string]any{"not": make(chan int)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Write(t.Context(), func(tx store.Tx, _ *store.Config) error { return tx.PutMeta("k", []byte("v")) }); err == nil {
		t.Error("the request succeeded without an entry")
	}
	if w.meta("k") != "" {
		t.Error("the change is there without an entry")
	}
}

func TestAFailureIsRecordedThoughTheCallerIsGone(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	admin := w.caller("user:admin", access.ScopeAdmin)
	ctx, cancel := context.WithCancel(t.Context())
	pass, err := w.door.Admit(ctx, admin, readX)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := pass.Record(ctx, fault.New(fault.EngineUnavailable, "x")); fault.CodeOf(err) != fault.EngineUnavailable {
		t.Fatal(err)
	}
	if e := w.lastEntry(); e.Success || e.ExtraData["error"] != "engine_unavailable" {
		t.Errorf("entry %+v", e)
	}
}
