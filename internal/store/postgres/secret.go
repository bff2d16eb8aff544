package postgres

import (
	"encoding/json"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const secretColumns = `tenant, path, type, version, versions, doc, created_at, updated_at,
	expires_at, deleted_at, recoverable_until, rotation_policy, rotate_at, rotate_due_at`

// secretKey names a secret.
type secretKey struct{ tenant, path string }

func (r *reader) secrets(q condition, order string, each func(s *store.Secret, writes int64)) error {
	return r.each("SELECT "+secretColumns+", writes FROM secrets "+q.where()+order, q.args, func(scan scanFunc) error {
		s := &store.Secret{}
		var doc string
		var writes, created, updated int64
		var expires, deleted, recoverable, rotate, due *int64
		if err := scan(&s.Tenant, &s.Path, &s.Type, &s.Version, &s.Versions, &doc, &created, &updated,
			&expires, &deleted, &recoverable, &s.RotationPolicy, &rotate, &due, &writes); err != nil {
			return err
		}
		s.Doc, s.CreatedAt, s.UpdatedAt = json.RawMessage(doc), moment(created), moment(updated)
		s.ExpiresAt, s.DeletedAt, s.RecoverableUntil = momentOrNil(expires), momentOrNil(deleted), momentOrNil(recoverable)
		s.RotateAt, s.RotateDueAt = momentOrNil(rotate), momentOrNil(due)
		each(s, writes)
		return nil
	})
}

func (r *reader) secret(tenant, path string) (found *store.Secret, writes int64, err error) {
	var q condition
	q.and("tenant = ? AND path = ?", tenant, path)
	err = r.secrets(q, "", func(s *store.Secret, n int64) { found, writes = s, n })
	if err == nil && found == nil {
		err = noSecret()
	}
	return found, writes, err
}

// Secret reads a secret's present state, also that of a soft-deleted one.
func (r *reader) Secret(tenant, path string) (*store.Secret, error) {
	s, _, err := r.secret(tenant, path)
	return s, err
}

func noSecret() error { return fault.New(fault.SecretNotFound, "there is no such secret") }

func noVersion() error {
	return fault.New(fault.VersionNotFound, "there is no such version of the secret")
}

// Secrets lists by path prefix, soft-deleted ones too; see [store.Reader].
func (r *reader) Secrets(tenant, prefix, afterPath string, limit int) ([]*store.Secret, error) {
	var q condition
	q.and("tenant = ? AND path > ?", tenant, afterPath)
	if prefix = strings.TrimSuffix(prefix, "/"); prefix != "" {
		// '0' is the character after '/'. Between the path itself and those below it others may lie.
		q.and("path >= ? AND path < ? AND (path = ? OR path > ?)", prefix, prefix+"0", prefix, prefix+"/")
	}
	var all []*store.Secret
	order := " ORDER BY path" + q.limit(limit)
	err := r.secrets(q, order, func(s *store.Secret, _ int64) { all = append(all, s) })
	return all, err
}

func (r *reader) versions(sealed, where string, args ...any) ([]*store.SecretVersion, error) {
	var versions []*store.SecretVersion
	err := r.each("SELECT tenant, path, version, "+sealed+", created_at, created_by, grace_until FROM secret_versions WHERE "+where,
		args, func(scan scanFunc) error {
			v := &store.SecretVersion{}
			var created int64
			var grace *int64
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
	found, err := r.versions("sealed", "tenant = $1 AND path = $2 AND version = $3", tenant, path, version)
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
	return r.versions("NULL::bytea", "tenant = $1 AND path = $2 ORDER BY version", tenant, path)
}

// Secret reads a state that a write of the same function is then compared with.
func (t *tx) Secret(tenant, path string) (*store.Secret, error) {
	s, writes, err := t.secret(tenant, path)
	if err == nil || fault.CodeOf(err) == fault.SecretNotFound {
		if t.secretWrites == nil {
			t.secretWrites = map[secretKey]int64{}
		}
		t.secretWrites[secretKey{tenant, path}] = writes
	}
	return s, err
}

// PutSecret writes a secret's state. Where the function has read it before, it must still be what
// it was, so that two nodes do not both write the next version.
func (t *tx) PutSecret(s *store.Secret) error {
	args := []any{s.Tenant, s.Path, s.Type, s.Version, s.Versions, string(s.Doc), micros(s.CreatedAt), micros(s.UpdatedAt),
		microsOrNull(s.ExpiresAt), microsOrNull(s.DeletedAt), microsOrNull(s.RecoverableUntil),
		s.RotationPolicy, microsOrNull(s.RotateAt), microsOrNull(s.RotateDueAt), micros(t.now)}
	const insert = "INSERT INTO secrets (" + secretColumns + ", writes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (tenant, path) "
	key := secretKey{s.Tenant, s.Path}
	writes, read := t.secretWrites[key]
	switch {
	case read && writes == 0:
		t.secretWrites[key] = micros(t.now)
	case read:
		t.secretWrites[key]++
	}
	switch {
	case !read:
		return t.write(insert+"DO UPDATE SET "+secretSet, args...)
	case writes == 0:
		return t.guarded(insert+"DO NOTHING", args...)
	default:
		return t.guarded(insert+"DO UPDATE SET "+secretSet+" WHERE secrets.writes = $16", append(args, writes)...)
	}
}

const secretSet = `type = excluded.type, version = excluded.version, versions = excluded.versions, doc = excluded.doc,
	created_at = excluded.created_at, updated_at = excluded.updated_at, expires_at = excluded.expires_at,
	deleted_at = excluded.deleted_at, recoverable_until = excluded.recoverable_until,
	rotation_policy = excluded.rotation_policy, rotate_at = excluded.rotate_at, rotate_due_at = excluded.rotate_due_at, writes = secrets.writes + 1`

// PutSecretVersion writes one version.
func (t *tx) PutSecretVersion(v *store.SecretVersion) error {
	sealed := v.Sealed
	if sealed == nil {
		sealed = []byte{}
	}
	return t.write(`INSERT INTO secret_versions (tenant, path, version, sealed, created_at, created_by, grace_until)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (tenant, path, version) DO UPDATE SET sealed = excluded.sealed, created_at = excluded.created_at,
			created_by = excluded.created_by, grace_until = excluded.grace_until`,
		v.Tenant, v.Path, v.Version, sealed, micros(v.CreatedAt), v.CreatedBy, microsOrNull(v.GraceUntil))
}

// DeleteSecret removes a secret with all its versions.
func (t *tx) DeleteSecret(tenant, path string) error {
	n, err := t.change("DELETE FROM secrets WHERE tenant = $1 AND path = $2", tenant, path)
	if err != nil {
		return err
	}
	if n == 0 {
		return noSecret()
	}
	if key := (secretKey{tenant, path}); t.secretWrites != nil {
		t.secretWrites[key] = 0
	}
	return t.write("DELETE FROM secret_versions WHERE tenant = $1 AND path = $2", tenant, path)
}

// DeleteSecretVersion removes one version.
func (t *tx) DeleteSecretVersion(tenant, path string, version int) error {
	n, err := t.change("DELETE FROM secret_versions WHERE tenant = $1 AND path = $2 AND version = $3", tenant, path, version)
	if err == nil && n == 0 {
		err = noVersion()
	}
	return err
}
