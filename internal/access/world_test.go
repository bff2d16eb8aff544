package access_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

// world is a store with a door in front of it, an administrator and helpers to fill it.
type world struct {
	t     testing.TB
	store *sqlite.Store
	door  *access.Door
}

const tenant = store.DefaultTenant

func setup(t testing.TB, limits access.Limits) *world {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Chain: audit.Chain([]byte("test"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w := &world{t: t, store: s, door: access.New(access.Config{Store: s, Limits: limits})}
	w.user("admin")
	w.policy("administrator", rule("**", policy.Admin))
	w.bind("administrator", "user:admin", nil)
	return w
}

var noLimits = access.Limits{Off: true}

func rule(path string, permissions ...policy.Permission) policy.Rule {
	return policy.Rule{PathPattern: path, Permissions: permissions}
}

func (w *world) write(fn func(tx store.Tx) error) {
	w.t.Helper()
	if err := w.store.Write(context.Background(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// put writes an object as another node or an earlier run would have: not through the door.
func (w *world) put(kind store.Kind, id, key string, doc any) *store.Object {
	w.t.Helper()
	raw, err := json.Marshal(doc)
	if err != nil {
		w.t.Fatal(err)
	}
	o := &store.Object{Tenant: tenant, Kind: kind, ID: id, Key: key, Doc: raw}
	w.write(func(tx store.Tx) error { return tx.PutObject(o, store.AnyVersion) })
	return o
}

func (w *world) remove(kind store.Kind, id string) {
	w.t.Helper()
	w.write(func(tx store.Tx) error { return tx.DeleteObject(tenant, kind, id) })
}

func (w *world) user(name string) {
	w.put(store.KindUser, "usr-"+name, name, access.User{DisplayName: name})
}

func (w *world) account(name string, scopes ...string) {
	w.put(store.KindServiceAccount, "sa-"+name, name, access.ServiceAccount{Scopes: scopes})
}

func (w *world) policy(name string, rules ...policy.Rule) {
	w.put(store.KindPolicy, "pol-"+name, name, map[string]any{"scope": "tenant", "rules": rules, "is_active": true})
}

func (w *world) bind(policyName, identity string, end *time.Time) {
	w.put(store.KindBinding, "bind-"+policyName+identity, identity+" pol-"+policyName,
		map[string]any{"policy": "pol-" + policyName, "identity": identity, "expires_at": end})
}

// token makes a token and gives its id and text.
func (w *world) token(identity string, life time.Duration, scopes ...string) (id, text string) {
	w.t.Helper()
	id, secret := access.NewTokenText()
	subject := map[string]string{"user:": "usr-", "sa": "sa-"}[identity[:min(len(identity), 5)]]
	if subject == "" {
		subject = "sa-"
	}
	name := identity
	for i := range identity {
		if identity[i] == ':' {
			name = identity[i+1:]
		}
	}
	w.put(store.KindToken, id, access.TokenKey(identity, id), access.Token{Identity: identity, Subject: subject + name,
		Hash: access.Digest(secret.Reveal()), Scopes: scopes, ExpiresAt: time.Now().Add(life)})
	return id, secret.Reveal()
}

// caller is a user of the name, authenticated by a fresh token.
func (w *world) caller(identity string, scopes ...string) *access.Caller {
	w.t.Helper()
	_, text := w.token(identity, time.Hour, scopes...)
	c, err := w.door.Authenticate(context.Background(), text, "", from("192.0.2.1"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func from(ip string) access.Origin {
	return access.Origin{RequestID: ident.New(ident.Request), SourceIP: netip.MustParseAddr(ip), UserAgent: "test", Start: time.Now()}
}

// entries are all audit entries, the oldest first.
func (w *world) entries() []api.AuditEntry {
	w.t.Helper()
	var all []api.AuditEntry
	err := w.store.Read(context.Background(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.store.Node(), 1, 0)
		for _, row := range rows {
			all = append(all, row.Entry)
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) lastEntry() api.AuditEntry {
	w.t.Helper()
	all := w.entries()
	if len(all) == 0 {
		w.t.Fatal("there is no audit entry")
	}
	return all[len(all)-1]
}

func wantCode(t testing.TB, err error, want fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != want {
		t.Fatalf("code %q, want %q (%v)", got, want, err)
	}
}
