package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/store"
)

// groupLimit bounds how many functions share a transaction, and so how long the first one waits.
const groupLimit = 256

// request is one function that waits for its commit.
type request struct {
	fn      func(tx store.Tx) error
	relaxed bool
	taken   atomic.Bool // by the committer, which will answer, or by a caller that gave up
	done    chan struct{}
	err     error
}

// committer runs what waits, a group in one transaction. Everybody of a group is answered after
// its commit, those with an error too: what a function saw, and failed upon, may be the write of
// another one of the group, which is true only once it is committed.
type committer struct {
	store  *Store
	conn   *conn
	tx     *tx
	log    *slog.Logger
	full   bool // PRAGMA synchronous is FULL, else NORMAL
	stale  bool // tx.state is not what the database holds
	wake   chan struct{}
	exited chan struct{}

	mu      sync.Mutex
	queue   []*request
	closing bool
}

func newCommitter(s *Store, c *conn, log *slog.Logger) (*committer, error) {
	m := &committer{store: s, conn: c, log: log, full: true,
		wake: make(chan struct{}, 1), exited: make(chan struct{})}
	m.tx = &tx{reader: &reader{conn: c, node: s.node, epoch: s.epoch}, store: s}
	if err := m.load(); err != nil {
		return nil, err
	}
	go m.run()
	return m, nil
}

// write queues the request and waits for its answer. A caller that gives up takes its request
// back, unless the committer has it: then it waits, since the outcome is real.
func (m *committer) write(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		return errClosed()
	}
	m.queue = append(m.queue, r)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}

	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.err
}

func (m *committer) run() {
	defer close(m.exited)
	for {
		group, closing := m.take()
		switch {
		case len(group) > 0:
			m.commit(group)
		case closing:
			return
		default:
			<-m.wake
		}
	}
}

// take is the next group, without those who gave up.
func (m *committer) take() (group []*request, closing bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, r := range m.queue {
		if len(group) == groupLimit {
			break
		}
		n++
		if r.taken.CompareAndSwap(false, true) {
			group = append(group, r)
		}
	}
	m.queue = m.queue[n:]
	if len(m.queue) == 0 {
		m.queue = nil
	}
	return group, m.closing
}

// stop ends the committer after what was queued before.
func (m *committer) stop() {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
	<-m.exited
}

// commit runs a group and answers it. If the database fails, nothing of the group has happened,
// and what is held in memory is read again before the next.
func (m *committer) commit(group []*request) {
	if err := m.transact(group); err != nil {
		m.log.Error("store: commit failed", "error", err, "writes", len(group))
		m.stale = true
		m.conn.rollback()
		for _, r := range group {
			r.err = unavailable(err)
		}
	}
	for _, r := range group {
		close(r.done)
	}
}

func (m *committer) transact(group []*request) error {
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
		put, gone := t.state.changes.net()
		m.store.config.Store(m.store.config.Load().With(t.state.rev, put, gone))
	}
	t.state.changes = nil
	return nil
}

// attempt runs and commits the group. Undoing one function among others takes a savepoint for
// each, which costs a fifth of the throughput, while hardly one fails that had already written.
// So a first attempt goes without; where one function does spoil it, all is rolled back and the
// group runs a second time, carefully.
func (m *committer) attempt(group []*request, careful bool) (spoiled bool, err error) {
	if _, err := m.conn.exec("BEGIN IMMEDIATE"); err != nil {
		return false, m.conn.lost
	}
	t, before := m.tx, m.tx.state
	t.careful = careful
	for _, r := range group {
		spoiled, r.err = t.run(r.fn)
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
func (m *committer) synchronous(group []*request) error {
	full := false
	for _, r := range group {
		full = full || !r.relaxed
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
