package secret_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/audit"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/secret"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/sqlite"
)

const tenant = store.DefaultTenant

type world struct {
	*testing.T
	store   *sqlite.Store
	secrets *secret.Service
}

func setup(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	st, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Chain: audit.Chain([]byte("test"))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	key, err := seal.CreateFile(filepath.Join(dir, "seal.key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Open(t.Context(), st, key)
	if err != nil {
		t.Fatal(err)
	}
	door := access.New(access.Config{Store: st, Limits: access.Limits{Off: true}})
	return &world{T: t, store: st, secrets: secret.New(st, door, keys)}
}

// caller is an identity that the rules are bound to.
func (w *world) caller(identity string, rules ...policy.Rule) *access.Caller {
	w.Helper()
	w.write(func(tx store.Tx) error {
		for kind, doc := range map[store.Kind]map[string]any{
			store.KindPolicy:  {"scope": "tenant", "rules": rules, "is_active": true},
			store.KindBinding: {"policy": "pol " + identity, "identity": identity},
		} {
			raw, err := json.Marshal(doc)
			if err != nil {
				return err
			}
			o := &store.Object{Tenant: tenant, Kind: kind, ID: "pol " + identity, Key: identity + " pol " + identity, Doc: raw}
			if err := tx.PutObject(o, store.AnyVersion); err != nil {
				return err
			}
		}
		return nil
	})
	return &access.Caller{Identity: identity, IdentityType: access.TypeUser, Tenant: tenant, Scopes: []string{access.ScopeAdmin}}
}

func (w *world) write(fn func(tx store.Tx) error) {
	w.Helper()
	if err := w.store.Write(w.Context(), fn); err != nil {
		w.Fatal(err)
	}
}

func (w *world) admin() *access.Caller {
	return w.caller("user:admin", policy.Rule{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}})
}

func (w *world) put(c *access.Caller, path, value string, o *api.SecretOptions) (*api.Secret, error) {
	return w.secrets.Write(w.Context(), c, path, &api.SecretWrite{
		Data: map[string]json.RawMessage{"password": json.RawMessage(fmt.Sprintf("%q", value))}, Options: o})
}

func (w *world) mustPut(c *access.Caller, path, value string, o *api.SecretOptions) *api.Secret {
	w.Helper()
	a, err := w.put(c, path, value, o)
	if err != nil {
		w.Fatal(err)
	}
	return a
}

func (w *world) read(c *access.Caller, path string, version int) string {
	w.Helper()
	a, err := w.secrets.Read(w.Context(), c, path, version)
	if err != nil {
		w.Fatalf("read %s version %d: %v", path, version, err)
	}
	return string(a.Data["password"])
}

func (w *world) wants(what string, err error, code fault.Code) {
	w.Helper()
	if fault.CodeOf(err) != code {
		w.Errorf("%s: %v, want %s", what, err, code)
	}
}

func ptr[T any](v T) *T { return &v }

func TestVersions(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	if a := w.mustPut(c, "app/db", "one", &api.SecretOptions{CAS: ptr(0), MaxVersions: ptr(2)}); a.Version != 1 || a.Data != nil {
		t.Errorf("first write: %+v", a)
	}
	_, err := w.put(c, "app/db", "other", &api.SecretOptions{CAS: ptr(0)})
	w.wants("cas of none where there is one", err, fault.VersionConflict)
	w.mustPut(c, "app/db", "two", &api.SecretOptions{CAS: ptr(1)})
	w.mustPut(c, "app/db", "three", nil)
	if got := w.read(c, "app/db", 0); got != `"three"` {
		t.Errorf("current is %s", got)
	}
	if got := w.read(c, "app/db", 2); got != `"two"` {
		t.Errorf("version 2 is %s", got)
	}
	for _, gone := range []int{1, 4} {
		_, err = w.secrets.Read(t.Context(), c, "app/db", gone)
		w.wants(fmt.Sprintf("version %d", gone), err, fault.VersionNotFound)
	}
	list, err := w.secrets.Versions(t.Context(), c, "app/db", page.Request{Limit: 1})
	if err != nil || len(list.Versions) != 1 || list.Versions[0].Version != 3 || !list.Versions[0].Current || !list.HasMore {
		t.Fatalf("versions: %+v, %v", list, err)
	}
	list, err = w.secrets.Versions(t.Context(), c, "app/db", page.Request{Limit: 1, Cursor: *list.Cursor})
	if err != nil || len(list.Versions) != 1 || list.Versions[0].Version != 2 || list.HasMore {
		t.Errorf("second page of versions: %+v, %v", list, err)
	}
}

func TestPatchKeepsTheData(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	w.mustPut(c, "app/db", "one", nil)
	a, err := w.secrets.Patch(t.Context(), c, "app/db", &api.SecretPatch{
		Metadata: &api.SecretMetadataPatch{Description: ptr("the database"), Tags: &[]string{"prod"}},
		Options:  &api.SecretOptions{ExpiresIn: ptr(duration.Duration(time.Hour))}})
	if err != nil || a.Version != 1 || a.Metadata.Description != "the database" || a.ExpiresAt == nil {
		t.Fatalf("patch: %+v, %v", a, err)
	}
	a, err = w.secrets.Patch(t.Context(), c, "app/db", &api.SecretPatch{Metadata: &api.SecretMetadataPatch{Description: ptr("")}})
	if err != nil || a.Metadata.Description != "" || !slices.Equal(a.Metadata.Tags, []string{"prod"}) || a.ExpiresAt == nil {
		t.Errorf("clearing one field: %+v, %v", a, err)
	}
	if a := w.mustPut(c, "app/db", "two", nil); !slices.Equal(a.Metadata.Tags, []string{"prod"}) || a.ExpiresAt == nil {
		t.Errorf("a new version lost metadata or its lifetime: %+v", a)
	}
	_, err = w.secrets.Patch(t.Context(), c, "app/db", &api.SecretPatch{Options: &api.SecretOptions{RotationPolicyID: "rot_x"}})
	w.wants("unknown rotation policy", err, fault.RotationPolicyNotFound)
	_, err = w.secrets.Patch(t.Context(), c, "app/none", &api.SecretPatch{})
	w.wants("patch of nothing", err, fault.SecretNotFound)
}

func TestDeleteAndBack(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	w.mustPut(c, "app/db", "one", nil)
	if _, err := w.secrets.Delete(t.Context(), c, "app/db"); err != nil {
		t.Fatal(err)
	}
	_, err := w.secrets.Read(t.Context(), c, "app/db", 0)
	w.wants("read a deleted one", err, fault.SecretNotFound)
	_, err = w.put(c, "app/db", "two", nil)
	w.wants("write over a deleted one", err, fault.SecretExists)
	_, err = w.secrets.Delete(t.Context(), c, "app/db")
	w.wants("delete twice", err, fault.SecretNotFound)
	for range 2 {
		if _, err := w.secrets.Undelete(t.Context(), c, "app/db"); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.read(c, "app/db", 0); got != `"one"` {
		t.Errorf("after undelete: %s", got)
	}
	if err := w.secrets.Destroy(t.Context(), c, "app/db"); err != nil {
		t.Fatal(err)
	}
	w.wants("destroy twice", w.secrets.Destroy(t.Context(), c, "app/db"), fault.SecretNotFound)
	if a := w.mustPut(c, "app/db", "new", nil); a.Version != 1 {
		t.Errorf("a new secret begins at version %d", a.Version)
	}
}

func TestRetentionEnds(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	for _, path := range []string{"a/rewritten", "b/purged", "c/kept"} {
		w.mustPut(c, path, "one", nil)
		w.mustPut(c, path, "two", nil)
		if _, err := w.secrets.Delete(t.Context(), c, path); err != nil {
			t.Fatal(err)
		}
	}
	w.write(func(tx store.Tx) error {
		for _, path := range []string{"a/rewritten", "b/purged"} {
			sec, err := tx.Secret(tenant, path)
			if err != nil {
				return err
			}
			sec.RecoverableUntil = ptr(tx.Now().Add(-time.Second))
			if err := tx.PutSecret(sec); err != nil {
				return err
			}
		}
		return nil
	})
	_, err := w.secrets.Undelete(t.Context(), c, "b/purged")
	w.wants("undelete too late", err, fault.SecretNotFound)
	if a := w.mustPut(c, "a/rewritten", "new", nil); a.Version != 1 {
		t.Errorf("written after retention: version %d", a.Version)
	}
	if n, err := w.secrets.Purge(t.Context(), tenant); n != 1 || err != nil {
		t.Errorf("purge: %d, %v, want 1", n, err)
	}
	if _, err := w.secrets.Undelete(t.Context(), c, "c/kept"); err != nil {
		t.Errorf("purge took what can be brought back: %v", err)
	}
}

func TestSecretInUse(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	var changed []int
	w.secrets.Join(secret.Hooks{
		InUse: func(_ *store.Config, _, path string) []string {
			if path == "infra/root" {
				return []string{"support-db"}
			}
			return nil
		},
		Pinned:  func(store.Reader, string, string) []int { return []int{1} },
		Changed: func(_, _ string, version int) { changed = append(changed, version) },
	})
	for i := range 3 {
		w.mustPut(c, "infra/root", fmt.Sprint(i+1), &api.SecretOptions{MaxVersions: ptr(1)})
	}
	if !slices.Equal(changed, []int{1, 2, 3}) {
		t.Errorf("changes told: %v", changed)
	}
	_, err := w.secrets.Delete(t.Context(), c, "infra/root")
	w.wants("delete", err, fault.SecretInUse)
	w.wants("destroy", w.secrets.Destroy(t.Context(), c, "infra/root"), fault.SecretInUse)

	_, err = w.secrets.Read(t.Context(), c, "infra/root", 1)
	w.wants("a pinned version for callers", err, fault.VersionNotFound)
	fields, version, err := w.secrets.VersionAs(t.Context(), c, "infra/root", 1)
	if err != nil || version != 1 || fields["password"].Reveal() != "1" {
		t.Errorf("the pinned version for the engine: %v, %d, %v", fields["password"].Reveal(), version, err)
	}
	_, _, err = w.secrets.VersionAs(t.Context(), c, "infra/root", 2)
	w.wants("a version that nobody pinned", err, fault.VersionNotFound)
}

func TestEngineReadsAsItself(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.mustPut(w.admin(), "infra/root", "pw", nil)
	e := access.System(tenant, "dynamic:support-db", access.EnginesGroup)
	_, _, err := w.secrets.ReadAs(t.Context(), e, "infra/root")
	w.wants("without a grant", err, fault.AccessDenied)
	w.caller("dynamic:support-db", policy.Rule{PathPattern: "infra/root", Permissions: []policy.Permission{"read"}})
	fields, version, err := w.secrets.ReadAs(t.Context(), e, "infra/root")
	if err != nil || version != 1 || fields["password"].Reveal() != "pw" {
		t.Errorf("with a grant: %d, %v", version, err)
	}
}

func TestListShowsWhatMayBeListed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	admin := w.admin()
	for _, path := range []string{"app/a", "app/b", "app/c", "application", "other/x"} {
		w.mustPut(admin, path, "v", nil)
	}
	paths := func(c *access.Caller, prefix string, p page.Request) ([]string, *string) {
		t.Helper()
		list, err := w.secrets.List(t.Context(), c, secret.Filter{Prefix: prefix}, p)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range list.Secrets {
			got = append(got, s.Path)
		}
		return got, list.Cursor
	}
	if got, _ := paths(admin, "app/", page.Request{}); !slices.Equal(got, []string{"app/a", "app/b", "app/c"}) {
		t.Errorf("below app: %v", got)
	}
	some := w.caller("user:some", policy.Rule{PathPattern: "*/b", Permissions: []policy.Permission{"list"}},
		policy.Rule{PathPattern: "other/*", Permissions: []policy.Permission{"list"}},
		policy.Rule{PathPattern: "app/a", Permissions: []policy.Permission{"read"}})
	got, cursor := paths(some, "", page.Request{Limit: 1})
	if !slices.Equal(got, []string{"app/b"}) || cursor == nil {
		t.Fatalf("first page: %v", got)
	}
	if got, cursor = paths(some, "", page.Request{Limit: 1, Cursor: *cursor}); !slices.Equal(got, []string{"other/x"}) || cursor != nil {
		t.Errorf("second page: %v", got)
	}
	_, err := w.secrets.List(t.Context(), admin, secret.Filter{Prefix: "../etc"}, page.Request{})
	w.wants("a prefix of dots", err, fault.InvalidPath)
	_, err = w.secrets.List(t.Context(), admin, secret.Filter{Prefix: ""}, page.Request{Cursor: "x"})
	w.wants("a made-up cursor", err, fault.InvalidCursor)
}

func TestBatch(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.mustPut(w.admin(), "app/a", "v", nil)
	w.mustPut(w.admin(), "hidden", "v", nil)
	c := w.caller("user:reader", policy.Rule{PathPattern: "app/*", Permissions: []policy.Permission{"read"}})
	got, err := w.secrets.Batch(t.Context(), c, &api.SecretBatchRequest{Paths: []string{"hidden", "app/a", "app/none", "Bad"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"access_denied", "", "secret_not_found", "invalid_path"} {
		item := got.Secrets[i]
		if (want == "") != (item.Secret != nil) || want != "" && item.Error.Code != want {
			t.Errorf("item %d: %+v, want %q", i, item, want)
		}
	}
	_, err = w.secrets.Batch(t.Context(), c, &api.SecretBatchRequest{Paths: make([]string, 101)})
	w.wants("too many", err, fault.InvalidRequest)
}

func TestBadWritesAreRefused(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	const canary = "canary-value"
	data := func(text string) (m map[string]json.RawMessage) {
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, tt := range map[string]struct {
		req  api.SecretWrite
		code fault.Code
	}{
		"no data":           {api.SecretWrite{}, fault.ValidationError},
		"unknown type":      {api.SecretWrite{Data: data(`{"a":"canary-value"}`), SecretType: "pgp"}, fault.InvalidSecretType},
		"nested kv":         {api.SecretWrite{Data: data(`{"a":{"b":"canary-value"}}`)}, fault.InvalidSecretType},
		"no certificate":    {api.SecretWrite{Data: data(`{"certificate":"canary-value"}`), SecretType: "certificate"}, fault.InvalidSecretType},
		"no key":            {api.SecretWrite{Data: data(`{"a":"canary-value"}`), SecretType: "api_key"}, fault.InvalidSecretType},
		"no ssh key":        {api.SecretWrite{Data: data(`{"a":"canary-value"}`), SecretType: "ssh_key"}, fault.InvalidSecretType},
		"too many versions": {api.SecretWrite{Data: data(`{"a":"b"}`), Options: &api.SecretOptions{MaxVersions: ptr(101)}}, fault.ValidationError},
	} {
		_, err := w.secrets.Write(t.Context(), c, "app/bad", &tt.req)
		w.wants(name, err, tt.code)
		if e := fault.From(err); e != nil && strings.Contains(fmt.Sprint(e.Message, e.Details), canary) {
			t.Errorf("%s: the message holds the value: %v", name, e)
		}
	}
	_, err := w.secrets.Metadata(t.Context(), c, "app/bad")
	w.wants("nothing was stored", err, fault.SecretNotFound)
}

func TestPathRules(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "a/b", "a-b_c/0", strings.Repeat("a/", 9) + "a", strings.Repeat("a", 512), "dynamics/x", "a/sys"} {
		if err := secret.CheckPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/a", "a/", "a//b", "A", "a b", "a.b", "a/../b", "ä", "a:b", "a\n", "dynamic", "dynamic/x", "sys/x",
		strings.Repeat("a/", 10) + "a", strings.Repeat("a", 513)} {
		if err := secret.CheckPath(bad); fault.CodeOf(err) != fault.InvalidPath {
			t.Errorf("%q: %v, want invalid_path", bad, err)
		}
	}
}

// TestNothingInTheClear moves a sealed row to another place, where it must not open, and looks for
// the value in what the store keeps.
func TestNothingInTheClear(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := w.admin()
	w.mustPut(c, "app/a", "canary-value", nil)
	w.mustPut(c, "app/b", "other", nil)
	w.write(func(tx store.Tx) error {
		v, err := tx.SecretVersion(tenant, "app/a", 1)
		if err != nil {
			return err
		}
		if strings.Contains(string(v.Sealed), "canary-value") {
			t.Error("the stored version holds the value in the clear")
		}
		moved := *v
		moved.Path = "app/b"
		return tx.PutSecretVersion(&moved)
	})
	_, err := w.secrets.Read(context.Background(), c, "app/b", 0)
	w.wants("a row moved to another path", err, fault.InternalError)
	err = w.store.Read(t.Context(), func(r store.Reader) error {
		rows, err := r.AuditChain(w.store.Node(), 1, 0)
		if len(rows) < 3 {
			t.Errorf("%d audit entries, want one for each operation", len(rows))
		}
		for _, row := range rows {
			if strings.Contains(string(row.Raw), "canary-value") {
				t.Errorf("entry holds the value: %s", row.Raw)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
