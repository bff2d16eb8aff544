package identity_test

import (
	"context"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// leases remembers the fences that the service asked for.
type leases struct {
	fences []store.Fence
	kicks  int
}

func (l *leases) Fence(_ store.Tx, f *store.Fence) error { l.fences = append(l.fences, *f); return nil }
func (l *leases) Kick()                                  { l.kicks++ }

type world struct {
	t        *testing.T
	store    *sqlite.Store
	door     *access.Door
	service  *identity.Service
	policies *access.Policies
	leases   *leases
	first    *identity.AdminToken
	admin    *access.Caller
	used     int
}

func setup(t *testing.T) *world {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Chain: audit.Chain([]byte("test"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, store: s, leases: &leases{}}
	w.door = access.New(access.Config{Store: s, Limits: access.Limits{Off: true}, BootstrapUsed: func() { w.used++ }})
	w.service = identity.New(identity.Config{Store: s, Door: w.door, Leases: w.leases})
	w.policies = access.NewPolicies(s, w.door)
	if w.first, err = w.service.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.admin = w.login(w.first.Text.Reveal())
	return w
}

var origin = access.Origin{RequestID: "req_test", SourceIP: netip.MustParseAddr("192.0.2.1")}

func (w *world) login(text string) *access.Caller {
	w.t.Helper()
	c, err := w.door.Authenticate(context.Background(), text, "", origin)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) refused(text string, want fault.Code) {
	w.t.Helper()
	_, err := w.door.Authenticate(context.Background(), text, "", origin)
	wantCode(w.t, err, want)
}

// account makes a service account with a policy and gives its credentials.
func (w *world) account(name string, rules []policy.Rule, scopes ...string) *api.ServiceAccount {
	w.t.Helper()
	sa, err := w.service.CreateAccount(context.Background(), w.admin, &api.ServiceAccountRequest{Name: name, Scopes: scopes})
	if err != nil {
		w.t.Fatal(err)
	}
	if rules == nil {
		return sa
	}
	p, err := w.policies.Create(context.Background(), w.admin, &api.PolicyRequest{Name: name, Rules: rules})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.policies.Bind(context.Background(), w.admin, p.ID, &api.BindingRequest{IdentityType: "service_account", IdentityID: sa.IdentityID}); err != nil {
		w.t.Fatal(err)
	}
	return sa
}

func (w *world) grant(sa *api.ServiceAccount, scopes ...string) *api.AccessToken {
	w.t.Helper()
	token, err := w.service.Grant(context.Background(), credentials(sa, scopes...), origin)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func credentials(sa *api.ServiceAccount, scopes ...string) identity.Credentials {
	return identity.Credentials{ClientID: sa.ClientID, Secret: statement.Secret(sa.ClientSecret), Scopes: scopes}
}

func (w *world) lastEntry() api.AuditEntry {
	w.t.Helper()
	var last api.AuditEntry
	err := w.store.Read(context.Background(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.store.Node(), 1, 0)
		if err == nil {
			last = rows[len(rows)-1].Entry
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return last
}

func wantCode(t *testing.T, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Fatalf("code %q, want %q (%v)", got, want, err)
	}
}

func in(d time.Duration) *api.Duration { v := duration.Duration(d); return &v }

func TestBootstrap(t *testing.T) {
	t.Parallel()
	w := setup(t)
	if again, err := w.service.Bootstrap(t.Context()); err != nil || again != nil {
		t.Fatalf("the second start: %v, %v", again, err)
	}
	if w.used != 1 {
		t.Errorf("the first use was told %d times", w.used)
	}
	if left := time.Until(w.first.ExpiresAt); left < 23*time.Hour || left > 24*time.Hour {
		t.Errorf("the first token lives %v", left)
	}
	me, err := w.service.WhoAmI(t.Context(), w.admin)
	if err != nil || me.IdentityID != "user:admin" || me.IdentityType != "user" || me.TenantID != store.DefaultTenant ||
		!slices.Equal(me.Scopes, []string{"admin"}) || me.Groups == nil || me.Roles == nil || me.DisplayName == "" || me.TokenExpiresAt == nil {
		t.Fatalf("%+v, %v", me, err)
	}
	p, err := w.policies.Policy(t.Context(), w.admin, "administrator")
	if err != nil || p.Scope != "system" || len(p.Bindings) != 1 || len(p.Rules) != 1 || p.Rules[0].PathPattern != "**" {
		t.Errorf("%+v, %v", p, err)
	}

	second, err := w.service.NewAdminToken(t.Context(), "dev", true)
	if err != nil {
		t.Fatal(err)
	}
	third, err := w.service.NewAdminToken(t.Context(), "dev", true)
	if err != nil {
		t.Fatal(err)
	}
	w.refused(second.Text.Reveal(), fault.TokenRevoked)
	w.login(third.Text.Reveal())
	w.login(w.first.Text.Reveal())
}

func TestTokens(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ctx := t.Context()
	made, err := w.service.CreateToken(ctx, w.admin, &api.TokenRequest{Name: "laptop", Scopes: []string{"secrets:read", "audit:read"}})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(made.ExpiresAt); left < 89*24*time.Hour || left > 90*24*time.Hour {
		t.Errorf("an administrator's token lives %v by default", left)
	}
	laptop := w.login(made.Token)
	if laptop.Identity != "user:admin" || laptop.HasScope("policies:write") || !laptop.HasScope("secrets:read") {
		t.Errorf("%+v", laptop)
	}
	child, err := w.service.CreateToken(ctx, laptop, &api.TokenRequest{Name: "child", ExpiresIn: in(time.Hour)})
	if err != nil || !slices.Equal(child.Scopes, made.Scopes) {
		t.Fatalf("%+v, %v", child, err)
	}

	list, err := w.service.Tokens(ctx, laptop, "", page.Request{Limit: 2})
	if err != nil || len(list.Tokens) != 2 || !list.HasMore {
		t.Fatalf("%+v, %v", list, err)
	}
	rest, err := w.service.Tokens(ctx, laptop, "", page.Request{Limit: 2, Cursor: *list.Cursor})
	if err != nil || len(rest.Tokens) != 1 || rest.HasMore {
		t.Fatalf("%+v, %v", rest, err)
	}
	// By id: tokens of one millisecond stand in any order.
	var listed []string
	for _, token := range append(list.Tokens, rest.Tokens...) {
		listed = append(listed, token.ID)
		if token.Token != "" {
			t.Errorf("the list shows the text of %s", token.Name)
		}
	}
	want := []string{w.admin.TokenID, made.ID, child.ID}
	slices.Sort(want)
	if !slices.Equal(listed, want) {
		t.Errorf("listed %v, want %v", listed, want)
	}

	if err := w.service.DeleteToken(ctx, w.admin, made.ID, false); err != nil {
		t.Fatal(err)
	}
	w.refused(made.Token, fault.TokenRevoked)
	_, err = w.service.WhoAmI(ctx, laptop) // authenticated before
	wantCode(t, err, fault.TokenRevoked)
	wantCode(t, w.service.DeleteToken(ctx, w.admin, made.ID, false), fault.TokenNotFound)
	wantCode(t, w.service.DeleteToken(ctx, w.admin, "tok_unknown", false), fault.TokenNotFound)
	if err := w.service.DeleteToken(ctx, w.admin, child.ID, true); err != nil {
		t.Fatal(err)
	}
	fences := []store.Fence{{Tenant: store.DefaultTenant, TokenID: made.ID, TiedOnly: true, Reason: api.ReasonIdentityRevoked, By: "user:admin"},
		{Tenant: store.DefaultTenant, TokenID: child.ID, Reason: api.ReasonIdentityRevoked, By: "user:admin"}}
	if !slices.Equal(w.leases.fences, fences) || w.leases.kicks != 2 {
		t.Errorf("fences %+v, %d kicks", w.leases.fences, w.leases.kicks)
	}
	if left, err := w.service.Tokens(ctx, w.admin, "", page.Request{}); err != nil || len(left.Tokens) != 1 {
		t.Errorf("%+v, %v", left, err)
	}
}

// A token never has more scope than the one that asked for it, nor a later end.
func TestTokensDoNotGrow(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ctx := t.Context()
	sa := w.account("ci", []policy.Rule{{PathPattern: "app/*", Permissions: []policy.Permission{policy.Read}}}, "secrets:read", "dynamic:generate")
	token := w.grant(sa)
	ci := w.login(token.AccessToken)
	if ci.Identity != "sa:ci" || ci.IdentityType != "service_account" || token.ExpiresIn != 3600 || token.TokenType != "Bearer" || token.Scope != "secrets:read dynamic:generate" {
		t.Errorf("%+v, %+v", ci, token)
	}
	for name, tt := range map[string]struct {
		req  api.TokenRequest
		want fault.Code
	}{
		"more scope":    {api.TokenRequest{Name: "x", Scopes: []string{"secrets:read", "secrets:write"}}, fault.InsufficientScope},
		"admin":         {api.TokenRequest{Name: "x", Scopes: []string{"admin"}}, fault.InsufficientScope},
		"later end":     {api.TokenRequest{Name: "x", ExpiresIn: in(2 * time.Hour)}, fault.Forbidden},
		"unknown scope": {api.TokenRequest{Name: "x", Scopes: []string{"root"}}, fault.InvalidRequest},
		"scope twice":   {api.TokenRequest{Name: "x", Scopes: []string{"secrets:read", "secrets:read"}}, fault.InvalidRequest},
		"no scope":      {api.TokenRequest{Name: "x", Scopes: []string{}}, fault.InvalidRequest},
		"no name":       {api.TokenRequest{}, fault.InvalidRequest},
		"bad name":      {api.TokenRequest{Name: "a\nb"}, fault.InvalidRequest},
		"long name":     {api.TokenRequest{Name: strings.Repeat("a", 129)}, fault.InvalidRequest},
	} {
		_, err := w.service.CreateToken(ctx, ci, &tt.req)
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", name, got, tt.want)
		}
		if e := w.lastEntry(); e.Success || e.Action != "auth_token_create" || e.IdentityID != "sa:ci" {
			t.Errorf("%s: entry %+v", name, e)
		}
	}
	made, err := w.service.CreateToken(ctx, ci, &api.TokenRequest{Name: "x"})
	if err != nil || made.ExpiresAt.After(*ci.TokenExpiresAt) {
		t.Fatalf("%+v, %v", made, err)
	}

	// Others' tokens are an administrator's business, known or not.
	_, err = w.service.Tokens(ctx, ci, "user:admin", page.Request{})
	wantCode(t, err, fault.InsufficientScope)
	wantCode(t, w.service.DeleteToken(ctx, ci, w.admin.TokenID, false), fault.CodeOf(w.service.DeleteToken(ctx, ci, "tok_unknown", false)))
	w.login(w.first.Text.Reveal())
}

func TestServiceAccounts(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ctx := t.Context()
	rules := []policy.Rule{{PathPattern: "app/*", Permissions: []policy.Permission{policy.Read}}}
	sa := w.account("ci", rules, "secrets:read")
	if !regexp.MustCompile(`^sks_[0-9A-Za-z]{49}$`).MatchString(sa.ClientSecret) || sa.IdentityID != "sa:ci" || sa.ClientID == "" || sa.ID == "" {
		t.Errorf("%+v", sa)
	}
	shown, err := w.service.Account(ctx, w.admin, sa.ID)
	if err != nil || shown.ClientSecret != "" || shown.Name != "ci" || shown.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", shown, err)
	}
	_, err = w.service.CreateAccount(ctx, w.admin, &api.ServiceAccountRequest{Name: "ci", Scopes: []string{"secrets:read"}})
	wantCode(t, err, fault.ServiceAccountExists)
	for _, bad := range []api.ServiceAccountRequest{{Name: "CI", Scopes: []string{"admin"}}, {Name: "a"}, {Name: "system:x", Scopes: []string{"admin"}}, {Name: "", Scopes: []string{"admin"}}} {
		_, err := w.service.CreateAccount(ctx, w.admin, &bad)
		wantCode(t, err, fault.InvalidRequest)
	}
	ci := w.login(w.grant(sa).AccessToken)
	read := access.Right{Scope: "secrets:read", Permission: "read", Path: "app/x"}
	if !w.door.Allowed(ci, read) {
		t.Error("the account's policy does not hold")
	}
	for _, attempt := range []error{
		func() error {
			_, err := w.service.CreateAccount(ctx, ci, &api.ServiceAccountRequest{Name: "b", Scopes: []string{"secrets:read"}})
			return err
		}(),
		func() error { _, err := w.service.Account(ctx, ci, "ci"); return err }(),
		func() error { _, err := w.service.Accounts(ctx, ci, page.Request{}); return err }(),
		w.service.DeleteAccount(ctx, ci, "ci", false),
	} {
		wantCode(t, attempt, fault.InsufficientScope)
	}

	// Narrower than the account, never wider.
	if got := w.login(w.grant(w.account("two", nil, "secrets:read", "secrets:list"), "secrets:list").AccessToken); !slices.Equal(got.Scopes, []string{"secrets:list"}) {
		t.Errorf("%v", got.Scopes)
	}
	_, err = w.service.Grant(ctx, credentials(sa, "admin"), origin)
	wantCode(t, err, fault.InsufficientScope)

	list, err := w.service.Accounts(ctx, w.admin, page.Request{Limit: 1})
	if err != nil || len(list.ServiceAccounts) != 1 || !list.HasMore || list.ServiceAccounts[0].Name != "ci" {
		t.Fatalf("%+v, %v", list, err)
	}

	token := w.grant(sa).AccessToken
	if err := w.service.DeleteAccount(ctx, w.admin, sa.ID, true); err != nil {
		t.Fatal(err)
	}
	w.refused(token, fault.TokenRevoked)
	_, err = w.service.Grant(ctx, credentials(sa), origin)
	wantCode(t, err, fault.TokenInvalid)
	if f := w.leases.fences; len(f) != 1 || f[0].Identity != "sa:ci" || f[0].TiedOnly || w.leases.kicks != 1 {
		t.Errorf("fences %+v", f)
	}
	if left := access.BindingsTo(w.store.Config(), store.DefaultTenant, "sa:ci"); len(left) != 0 {
		t.Errorf("%d bindings of a deleted account are left", len(left))
	}
	// One of the same name has neither the old one's tokens nor its policies.
	again := w.account("ci", nil, "secrets:read")
	if w.door.Allowed(w.login(w.grant(again).AccessToken), read) {
		t.Error("a new account inherited the policies of the old one")
	}
	w.refused(token, fault.TokenRevoked)
	wantCode(t, w.service.DeleteAccount(ctx, w.admin, "sa_unknown", false), fault.ServiceAccountNotFound)
}

func TestEndedTokensAreTrimmed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := setup(t)
		sa := w.account("ci", nil, "secrets:read")
		w.grant(sa)
		kept := w.grant(sa).AccessToken
		month, err := w.service.CreateToken(t.Context(), w.admin, &api.TokenRequest{Name: "month", ExpiresIn: in(30 * 24 * time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { w.service.Run(ctx); close(done) }()
		time.Sleep(23 * time.Hour)
		w.refused(kept, fault.TokenExpired)
		time.Sleep(3*time.Hour + time.Minute)
		w.refused(kept, fault.TokenInvalid)
		w.refused(w.first.Text.Reveal(), fault.TokenExpired)
		w.login(month.Token)
		if e := w.lastEntry(); e.Action != "auth_token_trim" || e.ExtraData["count"] != 2.0 {
			t.Errorf("entry %+v", e)
		}
		stop()
		<-done
	})
}

func TestDeletingTheLastAdministratorIsRefused(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ctx := t.Context()
	sa := w.account("ops", []policy.Rule{{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}}}, "admin")
	ops := w.login(w.grant(sa).AccessToken)
	if err := w.policies.Delete(ctx, ops, "administrator", true); err != nil {
		t.Fatal(err)
	}
	wantCode(t, w.service.DeleteAccount(ctx, ops, "ops", false), fault.PolicyInUse)
	w.login(w.grant(sa).AccessToken)
}

func TestANewAccountTakesNoBindingThatLayWaiting(t *testing.T) {
	t.Parallel()
	w := setup(t)
	objects := access.SystemPolicy(store.DefaultTenant, "waiting", "sa:ghost", policy.Rule{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}})
	if err := w.store.Write(t.Context(), func(tx store.Tx) error {
		for _, o := range objects {
			if err := tx.PutObject(o, 0); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ghost := w.login(w.grant(w.account("ghost", nil, "secrets:read")).AccessToken)
	if w.door.Allowed(ghost, access.Right{Permission: "read", Path: "app/x"}) {
		t.Error("a policy bound before the account was made holds for it")
	}
}

func TestClientsAreRefusedAlike(t *testing.T) {
	t.Parallel()
	w := setup(t)
	sa := w.account("ci", nil, "secrets:read")
	other := w.account("other", nil, "secrets:read")
	var texts []string
	for name, c := range map[string]identity.Credentials{
		"none":             {},
		"unknown":          {ClientID: "sa_unknown", Secret: statement.Secret(sa.ClientSecret)},
		"wrong secret":     {ClientID: sa.ClientID, Secret: "sks_wrong"},
		"no secret":        {ClientID: sa.ClientID},
		"another's secret": {ClientID: sa.ClientID, Secret: statement.Secret(other.ClientSecret)},
		"name for id":      {ClientID: "ci", Secret: statement.Secret(sa.ClientSecret)},
	} {
		_, err := w.service.Grant(t.Context(), c, origin)
		if fault.CodeOf(err) != fault.TokenInvalid {
			t.Errorf("%s: %v", name, err)
			continue
		}
		texts = append(texts, err.Error())
	}
	if slices.Sort(texts); len(slices.Compact(texts)) != 1 {
		t.Errorf("the answers tell what was wrong: %q", texts)
	}
}

func TestIntrospect(t *testing.T) {
	t.Parallel()
	w := setup(t)
	ctx := t.Context()
	sa := w.account("ci", nil, "secrets:read")
	token := w.grant(sa).AccessToken
	ci := w.login(token)

	about, err := w.service.Introspect(ctx, w.admin, token)
	if err != nil || !about.Active || about.Sub != "sa:ci" || about.Scope != "secrets:read" || about.TokenID != ci.TokenID ||
		about.TenantID != store.DefaultTenant || about.ExpiresAt-about.IssuedAt != 3600 {
		t.Fatalf("%+v, %v", about, err)
	}
	if own, err := w.service.Introspect(ctx, ci, token); err != nil || !own.Active {
		t.Errorf("one's own: %+v, %v", own, err)
	}
	_, err = w.service.Introspect(ctx, ci, w.first.Text.Reveal())
	wantCode(t, err, fault.InsufficientScope)
	_, err = w.service.Introspect(ctx, ci, "nonsense")
	wantCode(t, err, fault.InsufficientScope)
	for _, dead := range []string{"", "nonsense", token[:len(token)-1] + "~"} {
		if got, err := w.service.Introspect(ctx, w.admin, dead); err != nil || *got != (api.Introspection{}) {
			t.Errorf("%q: %+v, %v", dead, got, err)
		}
	}
	if err := w.service.DeleteAccount(ctx, w.admin, "ci", false); err != nil {
		t.Fatal(err)
	}
	if got, err := w.service.Introspect(ctx, w.admin, token); err != nil || got.Active {
		t.Errorf("revoked: %+v, %v", got, err)
	}
}

func TestNoTextOfATokenIsStored(t *testing.T) {
	t.Parallel()
	w := setup(t)
	sa := w.account("ci", nil, "secrets:read")
	token := w.grant(sa).AccessToken
	err := w.store.Read(t.Context(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.store.Node(), 1, 0)
		if err != nil {
			return err
		}
		var all strings.Builder
		for _, row := range rows {
			all.Write(row.Raw)
		}
		for _, kind := range []store.Kind{store.KindToken, store.KindServiceAccount} {
			objects, err := r.Objects(store.DefaultTenant, kind, "", "", 0)
			if err != nil {
				return err
			}
			for _, o := range objects {
				all.Write(o.Doc)
				all.WriteString(o.Key)
			}
		}
		for _, secret := range []string{token[30:], sa.ClientSecret[4:], w.first.Text.Reveal()[30:]} {
			if strings.Contains(all.String(), secret) {
				t.Error("a secret is stored in clear")
			}
		}
		if !strings.Contains(all.String(), `"sa:ci"`) {
			t.Error("the search does not see what is stored")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
