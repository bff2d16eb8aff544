package postgres

import (
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// clock is the database's, in SQL: the one clock that all nodes agree on.
const clock = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// reader reads what its session sees: a snapshot, or the transaction that writes.
type reader struct {
	*session
	node   string
	epoch  int64
	recent *recent
	now    time.Time
	rev    int64
}

var _ store.Reader = (*reader)(nil)

// snapshot begins a transaction that reads one state throughout.
func (s *Store) snapshot(session *session) (*reader, error) {
	r := &reader{session: session, node: s.node, epoch: s.epoch, recent: &s.recent}
	var now int64
	err := session.send(
		statement{sql: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"},
		statement{sql: "SELECT " + clock + ", config_rev FROM store_state", row: func(scan scanFunc) error { return scan(&now, &r.rev) }},
	)
	if err != nil {
		return nil, err
	}
	r.now = moment(now)
	return r, s.view.catchUp(session, r.rev)
}

// Now is the database's clock at the beginning of the transaction.
func (r *reader) Now() time.Time { return r.now }

// Alive tells whether the node gave a sign of life lately, in that epoch. A sign from the future, by
// a clock that was set back since, is none.
func (r *reader) Alive(node string, epoch int64) (alive bool, err error) {
	now := micros(r.now)
	_, err = r.one("SELECT true FROM beats WHERE node = $1 AND epoch = $2 AND at > $3 AND at < $4",
		[]any{node, epoch, now - silence.Microseconds(), now + silence.Microseconds()}, &alive)
	return alive, err
}

// ConfigRev is the revision of the configuration in this snapshot.
func (r *reader) ConfigRev() int64 { return r.rev }

// ConfigRev is the revision as this transaction leaves it so far.
func (t *tx) ConfigRev() int64 { return t.state.rev }

// Meta reads a small value of the store itself.
func (r *reader) Meta(key string) ([]byte, error) {
	var value []byte
	_, err := r.one("SELECT value FROM meta WHERE key = $1", []any{key}, &value)
	return value, err
}

// Meta reads a value that a write of the same function is then compared with.
func (t *tx) Meta(key string) ([]byte, error) {
	value, err := t.reader.Meta(key)
	if err == nil {
		if t.metas == nil {
			t.metas = map[string][]byte{}
		}
		t.metas[key] = value
	}
	return value, err
}

// PutMeta writes a small value of the store itself. Where the function has read it before, it must
// still be what it was.
func (t *tx) PutMeta(key string, value []byte) error {
	if value == nil {
		value = []byte{}
	}
	old, read := t.metas[key]
	if read {
		t.metas[key] = value
	}
	switch {
	case !read:
		return t.write("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	case old == nil:
		return t.guarded("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING", key, value)
	default:
		return t.guarded("UPDATE meta SET value = $2 WHERE key = $1 AND value = $3", key, value, old)
	}
}
