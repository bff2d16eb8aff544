package storetest

import (
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

func secretVersions(t *testing.T, b *bundle) {
	s := &store.Secret{Tenant: tenant, Path: "infra/pg/root", Type: "credential", Version: 2, Versions: 2,
		Doc: []byte(`{"k":1}`), CreatedAt: noon, UpdatedAt: at(1 * time.Second), ExpiresAt: atp(time.Hour),
		DeletedAt: atp(2 * time.Second), RecoverableUntil: atp(3 * time.Hour)}
	v1 := &store.SecretVersion{Tenant: tenant, Path: s.Path, Version: 1, Sealed: []byte{0, 255, 1}, CreatedAt: noon,
		CreatedBy: "user:ops", GraceUntil: atp(time.Hour)}
	v2 := &store.SecretVersion{Tenant: tenant, Path: s.Path, Version: 2, Sealed: []byte{2}, CreatedAt: at(time.Second), CreatedBy: "user:ops"}
	b.write(t, func(tx store.Tx) error {
		for _, v := range []*store.SecretVersion{v2, v1} {
			if err := tx.PutSecretVersion(v); err != nil {
				return err
			}
		}
		return tx.PutSecret(s)
	})
	b.reopen(t)
	b.read(t, func(r store.Reader) {
		wantEqual(t, "secret", value[*store.Secret](t)(r.Secret(tenant, s.Path)), s)
		wantEqual(t, "version", value[*store.SecretVersion](t)(r.SecretVersion(tenant, s.Path, 1)), v1)
		bare1, bare2 := *v1, *v2
		bare1.Sealed, bare2.Sealed = nil, nil
		wantEqual(t, "versions", value[[]*store.SecretVersion](t)(r.SecretVersions(tenant, s.Path)),
			[]*store.SecretVersion{&bare1, &bare2})
		_, err := r.Secret("tnt_2", s.Path)
		wantCode(t, err, fault.SecretNotFound)
		_, err = r.SecretVersion(tenant, s.Path, 3)
		wantCode(t, err, fault.VersionNotFound)
	})

	s.DeletedAt, s.RecoverableUntil, s.Version = nil, nil, 1
	b.write(t, func(tx store.Tx) error { return tx.PutSecret(s) })
	b.write(t, func(tx store.Tx) error { return tx.DeleteSecretVersion(tenant, s.Path, 2) })
	wantCode(t, b.Write(t.Context(), func(tx store.Tx) error { return tx.DeleteSecretVersion(tenant, s.Path, 2) }), fault.VersionNotFound)
	b.read(t, func(r store.Reader) {
		wantEqual(t, "replaced", value[*store.Secret](t)(r.Secret(tenant, s.Path)), s)
	})
	b.write(t, func(tx store.Tx) error { return tx.DeleteSecret(tenant, s.Path) })
	wantCode(t, b.Write(t.Context(), func(tx store.Tx) error { return tx.DeleteSecret(tenant, s.Path) }), fault.SecretNotFound)
	b.read(t, func(r store.Reader) {
		_, err := r.SecretVersion(tenant, s.Path, 1)
		wantCode(t, err, fault.VersionNotFound)
	})
}

func secretList(t *testing.T, b *bundle) {
	b.write(t, func(tx store.Tx) error {
		for _, path := range []string{"a", "a/b", "a/b/c", "a/b-c", "a/bc", "a/b/d/e", "b"} {
			if err := tx.PutSecret(&store.Secret{Tenant: tenant, Path: path}); err != nil {
				return err
			}
		}
		return tx.PutSecret(&store.Secret{Tenant: "tnt_2", Path: "a/b/x"})
	})
	for _, tt := range []struct {
		prefix, after string
		limit         int
		want          []string
	}{
		{"", "", 0, []string{"a", "a/b", "a/b-c", "a/b/c", "a/b/d/e", "a/bc", "b"}},
		{"a/b", "", 0, []string{"a/b", "a/b/c", "a/b/d/e"}},
		{"a/b/", "", 0, []string{"a/b", "a/b/c", "a/b/d/e"}},
		{"a/b", "a/b", 1, []string{"a/b/c"}},
		{"a/b", "a/b/c", 0, []string{"a/b/d/e"}},
		{"", "a/bc", 0, []string{"b"}},
		{"c", "", 0, []string{}},
	} {
		b.read(t, func(r store.Reader) {
			got := []string{}
			for _, s := range value[[]*store.Secret](t)(r.Secrets(tenant, tt.prefix, tt.after, tt.limit)) {
				got = append(got, s.Path)
			}
			wantEqual(t, "secrets of "+tt.prefix+" after "+tt.after, got, tt.want)
		})
	}
}
