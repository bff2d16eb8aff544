package sqlite

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

// committer runs what waits, a group in one transaction.
type committer struct {
	store *Store
	conn  *conn
	tx    *tx
	log   *slog.Logger
	full  bool // PRAGMA synchronous is FULL, else NORMAL
	stale bool // tx.state is not what the database holds
	queue *commit.Queue
}

func newCommitter(s *Store, c *conn, log *slog.Logger) (*committer, error) {
	m := &committer{store: s, conn: c, log: log, full: true}
	m.tx = &tx{reader: &reader{conn: c, node: s.node, epoch: s.epoch}, store: s}
	if err := m.load(); err != nil {
		return nil, err
	}
	m.queue = commit.NewQueue(m.commit, func() {})
	return m, nil
}

// commit runs a group and fills in its answers. If the database fails, nothing of the group has happened,
// and what is held in memory is read again before the next.
func (m *committer) commit(group []*commit.Request) {
	if err := m.transact(group); err != nil {
		m.log.Error("store: commit failed", "error", err, "writes", len(group))
		m.stale = true
		m.conn.rollback()
		for _, r := range group {
			r.Err = unavailable(err)
		}
	}
}

func (m *committer) transact(group []*commit.Request) error {
	if err := m.run(group); err != nil {
		return err
	}
	// Also when the commit itself went well: what an earlier one has left to this flush may be lost.
	if failed := m.store.disk.failed.Load(); failed != nil {
		return *failed
	}
	return nil
}

func (m *committer) run(group []*commit.Request) error {
	if failed := m.store.disk.failed.Load(); failed != nil {
		return *failed
	}
	if m.stale {
		if err := m.load(); err != nil {
			return err
		}
	}
	if err := m.synchronous(group); err != nil {
		return err
	}
	rev := m.tx.state.rev
	spoiled, err := m.attempt(group, false)
	if spoiled {
		_, err = m.attempt(group, true)
	}
	if err != nil {
		return err
	}
	t := m.tx
	if t.state.rev != rev {
		put, gone := t.state.changes.Net()
		m.store.config.Store(m.store.config.Load().With(t.state.rev, put, gone))
	}
	t.state.changes = nil
	return nil
}

// attempt runs and commits the group. Undoing one function among others takes a savepoint for
// each, which costs a fifth of the throughput, while hardly one fails that had already written.
// So a first attempt goes without; where one function does spoil it, all is rolled back and the
// group runs a second time, carefully.
func (m *committer) attempt(group []*commit.Request, careful bool) (spoiled bool, err error) {
	if _, err := m.conn.exec("BEGIN IMMEDIATE"); err != nil {
		return false, m.conn.lost
	}
	t, before := m.tx, m.tx.state
	t.careful = careful
	for _, r := range group {
		spoiled, r.Err = t.run(r.Fn)
		if m.conn.lost != nil {
			return false, m.conn.lost
		}
		if spoiled {
			t.state = before
			if _, err := m.conn.exec("ROLLBACK"); err != nil {
				return false, m.conn.lost
			}
			return true, nil
		}
	}
	if err := t.writeCounts(); err != nil {
		return false, m.conn.lost
	}
	if t.state.rev != before.rev {
		if _, err := m.conn.exec("UPDATE store_state SET config_rev = ?", t.state.rev); err != nil {
			return false, m.conn.lost
		}
	}
	if _, err := m.conn.exec("COMMIT"); err != nil {
		return false, m.conn.lost
	}
	return false, nil
}

// synchronous sets how the group's commit is flushed: a group that is relaxed as a whole leaves
// its part of the WAL to the flush of the next that is not.
func (m *committer) synchronous(group []*commit.Request) error {
	full := false
	for _, r := range group {
		full = full || !r.Relaxed
	}
	if full == m.full {
		return nil
	}
	mode := "NORMAL"
	if full {
		mode = "FULL"
	}
	if _, err := m.conn.c.ExecContext(context.Background(), "PRAGMA synchronous="+mode); err != nil {
		return fmt.Errorf("set synchronous: %w", err)
	}
	m.full = full
	return nil
}

// load reads what the committer holds in memory: the configuration and the audit chain's head.
func (m *committer) load() error {
	st := state{}
	if _, err := m.conn.one("SELECT config_rev, audit_base_seq, audit_base_mac FROM store_state",
		nil, &st.rev, &st.seq, &st.mac); err != nil {
		return m.conn.lost
	}
	if _, err := m.conn.one("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1",
		nil, &st.seq, &st.mac); err != nil {
		return m.conn.lost
	}
	all, err := m.tx.cachedObjects()
	if err != nil {
		return err
	}
	m.tx.state, m.stale = st, false
	m.store.config.Store(store.NewConfig(st.rev, all))
	return nil
}
