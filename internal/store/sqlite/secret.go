package sqlite

import (
	"database/sql"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const secretColumns = `tenant, path, type, version, versions, doc, created_at, updated_at,
	expires_at, deleted_at, recoverable_until, rotation_policy, rotate_at, rotate_due_at`

func (r *reader) secrets(where string, args ...any) ([]*store.Secret, error) {
	var secrets []*store.Secret
	err := r.conn.each("SELECT "+secretColumns+" FROM secrets WHERE "+where, args, func(scan scanFunc) error {
		s := &store.Secret{}
		var created, updated int64
		var expires, deleted, recoverable, rotate, due sql.NullInt64
		if err := scan(&s.Tenant, &s.Path, &s.Type, &s.Version, &s.Versions, (*[]byte)(&s.Doc), &created, &updated,
			&expires, &deleted, &recoverable, &s.RotationPolicy, &rotate, &due); err != nil {
			return err
		}
		s.CreatedAt, s.UpdatedAt = moment(created), moment(updated)
		s.ExpiresAt, s.DeletedAt, s.RecoverableUntil = momentOrNil(expires), momentOrNil(deleted), momentOrNil(recoverable)
		s.RotateAt, s.RotateDueAt = momentOrNil(rotate), momentOrNil(due)
		secrets = append(secrets, s)
		return nil
	})
	return secrets, err
}

// Secret reads a secret's present state, also that of a soft-deleted one.
func (r *reader) Secret(tenant, path string) (*store.Secret, error) {
	found, err := r.secrets("tenant = ? AND path = ?", tenant, path)
	if err == nil && len(found) == 0 {
		err = noSecret()
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func noSecret() error { return fault.New(fault.SecretNotFound, "there is no such secret") }

func noVersion() error {
	return fault.New(fault.VersionNotFound, "there is no such version of the secret")
}

// Secrets lists by path prefix, soft-deleted ones too; see [store.Reader].
func (r *reader) Secrets(tenant, prefix, afterPath string, limit int) ([]*store.Secret, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return r.secrets("tenant = ? AND path > ? ORDER BY path LIMIT ?", tenant, afterPath, all(limit))
	}
	// '0' is the character after '/'. Between the path itself and those below it others may lie.
	return r.secrets(`tenant = ?1 AND path > ?2 AND path >= ?3 AND path < ?3 || '0'
			AND (path = ?3 OR path > ?3 || '/') ORDER BY path LIMIT ?4`,
		tenant, afterPath, prefix, all(limit))
}

func (r *reader) versions(sealed, where string, args ...any) ([]*store.SecretVersion, error) {
	var versions []*store.SecretVersion
	err := r.conn.each("SELECT tenant, path, version, "+sealed+", created_at, created_by, grace_until FROM secret_versions WHERE "+where,
		args, func(scan scanFunc) error {
			v := &store.SecretVersion{}
			var created int64
			var grace sql.NullInt64
			if err := scan(&v.Tenant, &v.Path, &v.Version, &v.Sealed, &created, &v.CreatedBy, &grace); err != nil {
				return err
			}
			v.CreatedAt, v.GraceUntil = moment(created), momentOrNil(grace)
			versions = append(versions, v)
			return nil
		})
	return versions, err
}

// SecretVersion reads one version with its ciphertext.
func (r *reader) SecretVersion(tenant, path string, version int) (*store.SecretVersion, error) {
	found, err := r.versions("sealed", "tenant = ? AND path = ? AND version = ?", tenant, path, version)
	if err == nil && len(found) == 0 {
		err = noVersion()
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// SecretVersions reads all versions without their ciphertext, oldest first.
func (r *reader) SecretVersions(tenant, path string) ([]*store.SecretVersion, error) {
	return r.versions("NULL", "tenant = ? AND path = ? ORDER BY version", tenant, path)
}

// PutSecret writes a secret's state.
func (t *tx) PutSecret(s *store.Secret) error {
	return t.write("INSERT OR REPLACE INTO secrets ("+secretColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		s.Tenant, s.Path, s.Type, s.Version, s.Versions, string(s.Doc), micros(s.CreatedAt), micros(s.UpdatedAt),
		microsOrNull(s.ExpiresAt), microsOrNull(s.DeletedAt), microsOrNull(s.RecoverableUntil),
		s.RotationPolicy, microsOrNull(s.RotateAt), microsOrNull(s.RotateDueAt))
}

// PutSecretVersion writes one version.
func (t *tx) PutSecretVersion(v *store.SecretVersion) error {
	sealed := v.Sealed
	if sealed == nil {
		sealed = []byte{}
	}
	return t.write(`INSERT OR REPLACE INTO secret_versions
		(tenant, path, version, sealed, created_at, created_by, grace_until) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		v.Tenant, v.Path, v.Version, sealed, micros(v.CreatedAt), v.CreatedBy, microsOrNull(v.GraceUntil))
}

// DeleteSecret removes a secret with all its versions.
func (t *tx) DeleteSecret(tenant, path string) error {
	n, err := t.change("DELETE FROM secrets WHERE tenant = ? AND path = ?", tenant, path)
	if err != nil {
		return err
	}
	if n == 0 {
		return noSecret()
	}
	return t.write("DELETE FROM secret_versions WHERE tenant = ? AND path = ?", tenant, path)
}

// DeleteSecretVersion removes one version.
func (t *tx) DeleteSecretVersion(tenant, path string, version int) error {
	n, err := t.change("DELETE FROM secret_versions WHERE tenant = ? AND path = ? AND version = ?", tenant, path, version)
	if err == nil && n == 0 {
		err = noVersion()
	}
	return err
}
