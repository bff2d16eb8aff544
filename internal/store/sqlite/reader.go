package sqlite

import (
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// reader reads what its connection sees: a snapshot, or the transaction that writes.
type reader struct {
	conn  *conn
	node  string
	epoch int64
}

var _ store.Reader = (*reader)(nil)

// Now is the machine's clock.
func (r *reader) Now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// Alive tells whether it is this process: there is no other.
func (r *reader) Alive(node string, epoch int64) (bool, error) {
	return node == r.node && epoch == r.epoch, nil
}

// ConfigRev is the revision of the configuration in this snapshot.
func (r *reader) ConfigRev() int64 {
	var rev int64
	// A failure leaves 0, which no configuration that was ever written has: whoever compares
	// decides again, and meets the failure there.
	_, _ = r.conn.one("SELECT config_rev FROM store_state", nil, &rev)
	return rev
}

// Meta reads a small value of the store itself.
func (r *reader) Meta(key string) ([]byte, error) {
	var value []byte
	_, err := r.conn.one("SELECT value FROM meta WHERE key = ?", []any{key}, &value)
	return value, err
}

// PutMeta writes a small value of the store itself.
func (t *tx) PutMeta(key string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	return t.write("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
}
