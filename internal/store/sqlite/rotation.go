package sqlite

import (
	"database/sql"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// SecretsToRotate lists by the moment at which the scheduler must look; see [store.Reader].
func (r *reader) SecretsToRotate(limit int) ([]*store.Secret, error) {
	return r.secrets("rotate_due_at IS NOT NULL ORDER BY rotate_due_at LIMIT ?", all(limit))
}

// SecretsOfPolicy lists the secrets of a rotation policy by path.
func (r *reader) SecretsOfPolicy(tenant, policyID, after string, limit int) ([]*store.Secret, error) {
	return r.secrets("tenant = ? AND rotation_policy = ? AND rotation_policy <> '' AND path > ? ORDER BY path LIMIT ?",
		tenant, policyID, after, all(limit))
}

// RotationCounts counts the secrets of each rotation policy.
func (r *reader) RotationCounts(tenant string) (map[string]int64, error) {
	counts := map[string]int64{}
	err := r.conn.each("SELECT rotation_policy, count(*) FROM secrets WHERE tenant = ? AND rotation_policy <> '' GROUP BY rotation_policy",
		[]any{tenant}, func(scan scanFunc) error {
			var id string
			var n int64
			if err := scan(&id, &n); err != nil {
				return err
			}
			counts[id] = n
			return nil
		})
	return counts, err
}

// RotationsDue counts the secrets whose value was to be replaced by now.
func (r *reader) RotationsDue(now time.Time) (n int64, oldest time.Time, err error) {
	var first sql.NullInt64
	_, err = r.conn.one("SELECT count(*), min(rotate_at) FROM secrets WHERE rotate_at <= ?", []any{micros(now)}, &n, &first)
	if first.Valid {
		oldest = moment(first.Int64)
	}
	return n, oldest, err
}

// RescheduleSecrets moves what the scheduler looks at; see [store.Tx].
func (t *tx) RescheduleSecrets(tenant, policyID string, at time.Time) error {
	return t.write("UPDATE secrets SET rotate_due_at = ? WHERE tenant = ? AND rotation_policy = ? AND rotation_policy <> '' AND deleted_at IS NULL",
		micros(at), tenant, policyID)
}
