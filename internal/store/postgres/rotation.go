package postgres

import (
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

func (r *reader) rotating(q condition, order string) ([]*store.Secret, error) {
	var found []*store.Secret
	err := r.secrets(q, order, func(s *store.Secret, _ int64) { found = append(found, s) })
	return found, err
}

// SecretsToRotate lists by the moment at which the scheduler must look; see [store.Reader].
func (r *reader) SecretsToRotate(limit int) ([]*store.Secret, error) {
	var q condition
	q.and("rotate_due_at IS NOT NULL")
	return r.rotating(q, " ORDER BY rotate_due_at"+q.limit(limit))
}

// SecretsOfPolicy lists the secrets of a rotation policy by path.
func (r *reader) SecretsOfPolicy(tenant, policyID, after string, limit int) ([]*store.Secret, error) {
	var q condition
	q.and("tenant = ? AND rotation_policy = ? AND rotation_policy <> '' AND path > ?", tenant, policyID, after)
	return r.rotating(q, " ORDER BY path"+q.limit(limit))
}

// RotationCounts counts the secrets of each rotation policy.
func (r *reader) RotationCounts(tenant string) (map[string]int64, error) {
	counts := map[string]int64{}
	err := r.each("SELECT rotation_policy, count(*) FROM secrets WHERE tenant = $1 AND rotation_policy <> '' GROUP BY rotation_policy",
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
	var first *int64
	_, err = r.one("SELECT count(*), min(rotate_at) FROM secrets WHERE rotate_at <= $1", []any{micros(now)}, &n, &first)
	if first != nil {
		oldest = moment(*first)
	}
	return n, oldest, err
}

// RescheduleSecrets moves what the scheduler looks at; see [store.Tx]. It counts as a write, so that
// nobody who read a secret before writes the former moment back.
func (t *tx) RescheduleSecrets(tenant, policyID string, at time.Time) error {
	return t.write("UPDATE secrets SET rotate_due_at = $3, writes = writes + 1 WHERE tenant = $1 AND rotation_policy = $2 AND rotation_policy <> '' AND deleted_at IS NULL",
		tenant, policyID, micros(at))
}
