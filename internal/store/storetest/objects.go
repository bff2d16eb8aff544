package storetest

import (
	"errors"
	"testing"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const tenant = store.DefaultTenant

func objectLifecycle(t *testing.T, b *bundle) {
	o := object(store.KindEngine, "eng_1", "pg", `{"a":1}`)
	b.write(t, put(o, 0))
	if o.Version != 1 || o.Rev == 0 || o.CreatedAt.IsZero() || !o.UpdatedAt.Equal(o.CreatedAt) {
		t.Errorf("put did not set version, revision and times: %+v", o)
	}
	b.read(t, func(r store.Reader) {
		wantEqual(t, "by id", value[*store.Object](t)(r.Object(tenant, store.KindEngine, "eng_1")), o)
		wantEqual(t, "by key", value[*store.Object](t)(r.ObjectByKey(tenant, store.KindEngine, "pg")), o)
		_, err := r.Object("tnt_other", store.KindEngine, "eng_1")
		wantCode(t, err, fault.EngineNotFound)
		_, err = r.ObjectByKey(tenant, store.KindPolicy, "pg")
		wantCode(t, err, fault.PolicyNotFound)
	})

	var seen *store.Object
	b.write(t, func(tx store.Tx) error {
		return tx.UpdateObject(tenant, store.KindEngine, "eng_1", func(u *store.Object) error {
			u.Doc, u.Key, seen = []byte(`{"a":2}`), "pg2", u
			return nil
		})
	})
	next := b.Config().Object(tenant, store.KindEngine, "eng_1")
	if next.Version != 2 || next.Rev <= o.Rev || next.Key != "pg2" || !next.CreatedAt.Equal(o.CreatedAt) {
		t.Errorf("update: %+v", next)
	}
	copy(seen.Doc, `{"a":9}`)
	if string(b.Config().ByKey(tenant, store.KindEngine, "pg2").Doc) != `{"a":2}` {
		t.Error("the configuration shares its bytes with the function that wrote them")
	}

	refused := errors.New("refused")
	err := b.Write(t.Context(), func(tx store.Tx) error {
		return tx.UpdateObject(tenant, store.KindEngine, "eng_1", func(*store.Object) error { return refused })
	})
	if !errors.Is(err, refused) {
		t.Errorf("error of the function: %v", err)
	}

	b.write(t, func(tx store.Tx) error { return tx.DeleteObject(tenant, store.KindEngine, "eng_1") })
	for name, fn := range map[string]func(store.Tx) error{
		"read":   func(tx store.Tx) error { _, err := tx.Object(tenant, store.KindEngine, "eng_1"); return err },
		"delete": func(tx store.Tx) error { return tx.DeleteObject(tenant, store.KindEngine, "eng_1") },
		"update": func(tx store.Tx) error {
			return tx.UpdateObject(tenant, store.KindEngine, "eng_1", func(*store.Object) error { return nil })
		},
	} {
		if err := b.Write(t.Context(), fn); fault.CodeOf(err) != fault.EngineNotFound {
			t.Errorf("%s of an absent object: %v", name, err)
		}
	}
	if b.Config().Object(tenant, store.KindEngine, "eng_1") != nil {
		t.Error("the configuration still has it")
	}
}

func objectKeys(t *testing.T, b *bundle) {
	b.write(t, put(object(store.KindRole, "1", "pg/ro", `{}`), 0))
	b.write(t, put(object(store.KindPolicy, "1", "pg/ro", `{}`), 0)) // another kind
	other := object(store.KindRole, "1", "pg/ro", `{}`)
	other.Tenant = "tnt_other"
	b.write(t, put(other, 0))

	wantCode(t, b.Write(t.Context(), put(object(store.KindRole, "2", "pg/ro", `{}`), 0)), fault.RoleExists)
	b.write(t, put(object(store.KindRole, "2", "pg/rw", `{}`), 0))
	err := b.Write(t.Context(), func(tx store.Tx) error {
		return tx.UpdateObject(tenant, store.KindRole, "2", func(o *store.Object) error { o.Key = "pg/ro"; return nil })
	})
	wantCode(t, err, fault.RoleExists)
	if o := b.Config().Object(tenant, store.KindRole, "2"); o.Key != "pg/rw" || o.Version != 1 {
		t.Errorf("a refused rename changed the object: %+v", o)
	}
}

func objectVersions(t *testing.T, b *bundle) {
	o := object(store.KindPolicy, "pol_1", "p", `{}`)
	wantCode(t, b.Write(t.Context(), put(o, 1)), fault.VersionConflict)
	b.write(t, put(o, 0))
	wantCode(t, b.Write(t.Context(), put(o, 0)), fault.VersionConflict)
	b.write(t, put(o, 1))
	wantCode(t, b.Write(t.Context(), put(o, 1)), fault.VersionConflict)
	b.write(t, put(o, store.AnyVersion))
	if o.Version != 3 {
		t.Errorf("version = %d, want 3", o.Version)
	}
}

func objectList(t *testing.T, b *bundle) {
	b.write(t, func(tx store.Tx) error {
		for _, key := range []string{"b/2", "a/1", "b/1", "b0", "b/3"} {
			if err := tx.PutObject(object(store.KindRole, "id "+key, key, `{}`), 0); err != nil {
				return err
			}
		}
		return nil
	})
	for _, tt := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 0, []string{"a/1", "b/1", "b/2", "b/3", "b0"}},
		{"b/", "", 0, []string{"b/1", "b/2", "b/3"}},
		{"b/", "b/1", 1, []string{"b/2"}},
		{"", "b/3", 0, []string{"b0"}},
		{"c", "", 0, []string{}},
	} {
		b.read(t, func(r store.Reader) {
			got := []string{}
			for _, o := range value[[]*store.Object](t)(r.Objects(tenant, store.KindRole, tt.prefix, tt.after, tt.limit)) {
				got = append(got, o.Key)
			}
			wantEqual(t, "objects "+tt.prefix+" after "+tt.after, got, tt.want)
		})
	}
}

// The configuration is what was committed, before Write returns; older views do not change.
func objectConfig(t *testing.T, b *bundle) {
	before := b.Config()
	b.write(t, func(tx store.Tx) error {
		rev := tx.ConfigRev()
		if err := tx.PutObject(object(store.KindRole, "1", "pg/a", `{}`), 0); err != nil {
			return err
		}
		if tx.ConfigRev() <= rev {
			t.Error("the transaction does not see its own revision")
		}
		if err := tx.PutObject(object(store.KindRole, "2", "pg/b", `{}`), 0); err != nil {
			return err
		}
		return tx.DeleteObject(tenant, store.KindRole, "1")
	})
	now := b.Config()
	if now.Rev <= before.Rev {
		t.Errorf("revision %d after %d", now.Rev, before.Rev)
	}
	if now.Object(tenant, store.KindRole, "1") != nil || now.ByKey(tenant, store.KindRole, "pg/b") == nil {
		t.Error("the configuration is not what was committed")
	}
	if len(before.List(tenant, store.KindRole, "")) != 0 {
		t.Error("an older view changed")
	}
	b.read(t, func(r store.Reader) {
		if r.ConfigRev() != now.Rev {
			t.Errorf("revision of the snapshot = %d, of the configuration %d", r.ConfigRev(), now.Rev)
		}
	})

	boom := errors.New("boom")
	err := b.Write(t.Context(), func(tx store.Tx) error {
		if err := tx.PutObject(object(store.KindRole, "3", "pg/c", `{}`), 0); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	b.insert(t, lease()) // a commit that changes no configuration
	if b.Config().Rev != now.Rev || b.Config().ByKey(tenant, store.KindRole, "pg/c") != nil {
		t.Error("an undone write, or one of a lease, changed the configuration")
	}
	b.reopen(t)
	if b.Config().Rev != now.Rev || b.Config().ByKey(tenant, store.KindRole, "pg/b") == nil {
		t.Error("the configuration is another one after a restart")
	}
}

// Tokens are not cached; replacing or removing one moves the revision, making one does not.
func objectTokens(t *testing.T, b *bundle) {
	rev := b.Config().Rev
	o := object(store.KindToken, "tok_1", "sa:ci/tok_1", `{}`)
	b.write(t, put(o, 0))
	if b.Config().Rev != rev || b.Config().Object(tenant, store.KindToken, "tok_1") != nil {
		t.Error("making a token changed the configuration")
	}
	b.write(t, put(o, 1))
	if b.Config().Rev <= rev || b.Config().Object(tenant, store.KindToken, "tok_1") != nil {
		t.Error("replacing a token did not move the revision, or cached it")
	}
	rev = b.Config().Rev
	b.write(t, func(tx store.Tx) error { return tx.DeleteObject(tenant, store.KindToken, "tok_1") })
	if b.Config().Rev <= rev {
		t.Error("removing a token did not move the revision")
	}
}
