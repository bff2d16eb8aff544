package postgres

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

// shortWait is how long a row's lock is waited for, at least, in milliseconds.
const shortWait = 100

// attempt is a group's way to its commit. What one run learns, the next one goes by.
type attempt struct {
	committer *committer
	group     []*commit.Request

	// careful: each function gets a savepoint, and what it writes is sent before it ends. Without,
	// one that fails after it wrote spoils the group; but hardly one does.
	careful bool
	// What was not free when it was asked for in the middle is waited for at the beginning, always
	// in the same order: so nodes wait for each other, but never in a circle.
	config  bool
	tenants map[string]bool // exclusively?

	tx *tx
}

// state is what a failed function's undo restores in memory, as the savepoint does in the database.
type state struct {
	rev     int64 // of the configuration
	seq     int64 // of the chain's last entry
	mac     []byte
	changes store.Changes
	counts  []count
	made    []*store.Lease
}

// tx is the transaction of the group, lent to one function after the other. It reads what is
// committed at each statement (READ COMMITTED), since a lock would be worth nothing if what is read
// behind it were older. What it read before it writes is either locked or compared.
type tx struct {
	*reader
	*attempt
	state state

	commits  int64 // of the node, before this one
	begun    int64 // the configuration's revision at the beginning
	locked   bool  // nobody else changes the configuration
	held     map[string]bool
	fenceSeq map[string]int64        // of tenants that are locked
	fences   map[string]*knownFences // of tenants that were asked for
	asked    map[string]bool         // tenants that were to be locked; all false

	mine map[string]*store.Lease // rows that are locked, as this transaction leaves them; not all

	wrote        bool                // the present function
	dirty        bool                // the transaction
	moved        bool                // the present function has moved the configuration's revision
	secretWrites map[secretKey]int64 // what the present function has read: how often it was written
	metas        map[string][]byte   // the same, its value
}

var _ store.Tx = (*tx)(nil)

// run begins a transaction, runs the group and commits. Its error tells what to do next.
func (a *attempt) run(ctx context.Context) (err error) {
	m := a.committer
	if m.conn == nil {
		if m.conn, err = m.store.pool.Acquire(ctx); err != nil {
			m.conn = nil
			return err
		}
	}
	if err = a.begin(ctx); err == nil {
		err = a.work()
	}
	if err == nil {
		a.publish()
		return nil
	}
	if a.tx.failed != nil { // what it was before it was made fit for a caller
		err = a.tx.failed
	}
	if c := m.conn.Conn(); c.IsClosed() || rollback(ctx, c) != nil {
		m.release()
	}
	return err
}

// work runs the functions and commits.
func (a *attempt) work() error {
	t := a.tx
	for _, r := range a.group {
		if r.Err = t.run(r.Fn); t.failed != nil {
			return t.failed
		}
		if r.Rev = 0; t.moved && r.Err == nil {
			r.Rev = t.state.rev
		}
	}
	return t.commit(a.relaxed())
}

func (a *attempt) relaxed() bool {
	return !slices.ContainsFunc(a.group, func(r *commit.Request) bool { return !r.Relaxed })
}

// begin takes the lock of the node's row, which orders this node's transactions, also one whose
// connection was lost, then the locks that are known to be needed, then reads where things stand.
func (a *attempt) begin(ctx context.Context) error {
	s := a.committer.store
	t := &tx{attempt: a, held: map[string]bool{}, fenceSeq: map[string]int64{}, fences: map[string]*knownFences{},
		asked: map[string]bool{}}
	t.reader = &reader{session: &session{ctx: ctx, conn: a.committer.conn.Conn()}, node: s.node, epoch: s.epoch, recent: &s.recent}
	a.tx = t
	all := []statement{
		{sql: "BEGIN"},
		{sql: "SELECT 1 FROM nodes WHERE id = $1 FOR NO KEY UPDATE", args: []any{s.node}},
	}
	if a.config {
		all = append(all, statement{sql: "SELECT 1 FROM store_state FOR NO KEY UPDATE"})
		t.locked = true
	}
	maps.Copy(t.held, a.committer.usual) // shared
	maps.Copy(t.held, a.tenants)
	tenants := slices.Sorted(maps.Keys(t.held))
	for _, tenant := range tenants {
		lock := "SELECT pg_advisory_xact_lock_shared($1)"
		if t.held[tenant] {
			lock = "SELECT pg_advisory_xact_lock($1)"
		}
		all = append(all, statement{sql: lock, args: []any{t.tenantKey(tenant)}})
	}
	var now, epoch int64
	var limit string
	var newest []int64
	all = append(all, statement{
		sql:  standing,
		args: []any{s.node, fmt.Sprint(shortWait + rand.N(shortWait)), tenants}, //nolint:gosec // to get out of step, no secret
		row: func(scan scanFunc) error {
			return scan(&now, &t.begun, &epoch, &t.commits, &t.state.seq, &t.state.mac, &newest, &limit)
		},
		done: func(rows int64) error {
			if rows != 1 || epoch != s.epoch {
				return errSuperseded
			}
			return nil
		},
	})
	if err := t.send(all...); err != nil {
		return err
	}
	for i, tenant := range tenants {
		t.fenceSeq[tenant] = newest[i]
	}
	t.now, t.rev, t.state.rev = moment(now), t.begun, t.begun
	return s.view.catchUp(t.session, t.begun)
}

// standing reads where things stand once the locks are held, and the newest fences of the tenants
// $3. From then on nobody is waited for for long: two nodes that lock rows in different orders do
// not sit out the server's deadlock timeout, one of them begins anew.
const standing = "SELECT " + clock + `, s.config_rev, n.epoch, n.commits, n.audit_seq, n.audit_mac,
		ARRAY(SELECT coalesce((SELECT seq FROM fences WHERE tenant = t.name ORDER BY seq DESC LIMIT 1), 0)
			FROM unnest($3::text[]) WITH ORDINALITY AS t (name, i) ORDER BY i),
		set_config('lock_timeout', $2, true)
	FROM nodes n, store_state s WHERE n.id = $1`

func (t *tx) tenantKey(tenant string) int64 {
	return lockKey("tenant", t.committer.store.installation, tenant)
}

// run runs one function; an error or a panic of it undoes what it did and nothing else. Where that
// takes a savepoint that is not there, the transaction is spoiled.
func (t *tx) run(fn func(store.Tx) error) error {
	before := t.state
	t.wrote, t.moved, t.secretWrites, t.metas = false, false, nil, nil
	if t.careful {
		if err := t.send(statement{sql: "SAVEPOINT fn"}); err != nil {
			return err
		}
	}
	err := commit.Run(fn, t)
	if t.careful && err == nil && t.failed == nil {
		err = t.sendCounts()
		if err == nil {
			err = t.send(statement{sql: "RELEASE fn"})
		}
	}
	if err == nil && t.failed == nil {
		t.dirty = t.dirty || t.wrote
		return nil
	}
	if !t.careful {
		if t.failed == nil && t.wrote {
			t.failed = errSpoiled
		}
		return err
	}
	return t.undo(before, err)
}

// undo takes back what the function did. A statement that the server refuses for its data is the
// function's failure, and nobody else's.
func (t *tx) undo(before state, err error) error {
	if refusesData(t.failed) {
		err = fault.New(fault.InternalError, "internal error").Because(reason(t.failed))
		t.failed = nil
	}
	if t.failed != nil {
		return err
	}
	t.state, t.pending = before, nil
	clear(t.fences) // one of the function's own is gone
	clear(t.fenceSeq)
	clear(t.mine)
	if _, lost := t.conn.Exec(t.ctx, "ROLLBACK TO fn; RELEASE fn"); lost != nil {
		return t.fail(lost)
	}
	return err
}

// refusesData tells whether the server refused a value: one that no text can hold, or no number.
func refusesData(err error) bool {
	state := sqlState(err)
	return len(state) == 5 && (state[:2] == "22" || state[:2] == "23" && state != "23505")
}

// write queues a statement that changes something.
func (t *tx) write(sql string, args ...any) error {
	t.wrote = true
	return t.queue(statement{sql: sql, args: args})
}

// guarded queues a write that must change one row: else another node was faster, and the group
// begins anew.
func (t *tx) guarded(sql string, args ...any) error {
	t.wrote = true
	return t.queue(statement{sql: sql, args: args, done: func(rows int64) error {
		if rows != 1 {
			return errConflict
		}
		return nil
	}})
}

// change sends a statement that changes something, and tells how many rows it changed.
func (t *tx) change(sql string, args ...any) (n int64, err error) {
	err = t.send(statement{sql: sql, args: args, done: func(rows int64) error { n = rows; return nil }})
	t.wrote = t.wrote || n > 0
	return n, err
}

// commit sends what is left and commits. A group that wrote nothing has nothing to flush.
func (t *tx) commit(relaxed bool) error {
	if !t.dirty {
		if err := rollback(t.ctx, t.conn); err != nil {
			return t.fail(err)
		}
		return nil
	}
	if err := t.sendCounts(); err != nil {
		return err
	}
	if t.state.rev != t.begun {
		t.pending = append(t.pending, statement{sql: "UPDATE store_state SET config_rev = $1", args: []any{t.state.rev}},
			statement{sql: "SELECT pg_notify($1, '')", args: []any{t.committer.store.channel()}})
	}
	if relaxed {
		t.pending = append(t.pending, statement{sql: "SET LOCAL synchronous_commit = off"})
	}
	// Nothing that is still judged here, after the server did it, may travel with the commit.
	if slices.ContainsFunc(t.pending, func(s statement) bool { return s.done != nil }) {
		if err := t.send(); err != nil {
			return err
		}
	}
	t.pending = append(t.pending, statement{
		sql:  "UPDATE nodes SET commits = $2, audit_seq = $3, audit_mac = $4 WHERE id = $1",
		args: []any{t.node, t.commits + 1, t.state.seq, t.state.mac},
	})
	t.recent.put(t.state.made)
	if err := t.send(statement{sql: "COMMIT"}); err != nil {
		if t.conn.IsClosed() { // else the server has said that it undid the transaction
			t.failed = &unansweredError{t.commits + 1, t.failed}
		}
		return err
	}
	return nil
}

// publish makes what was committed the configuration that this node goes by.
func (a *attempt) publish() {
	t, m := a.tx, a.committer
	if t.state.rev != t.begun {
		put, gone := t.state.changes.Net()
		m.store.view.advance(t.begun, t.state.rev, put, gone)
	}
	switch n := len(t.asked); {
	case n > usualTenants:
		m.usual = nil
	case n > 0:
		m.usual = t.asked
	}
}

func rollback(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, "ROLLBACK")
	return err
}
