package sqlite

import (
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/store/commit"
)

// state is what a failed function's undo restores in memory, as the rollback does on disk.
type state struct {
	rev     int64 // of the configuration
	seq     int64 // of the audit chain's last entry
	mac     []byte
	changes store.Changes
	counts  []store.LeaseCount // what the counters have moved by and do not say yet
	fences  map[string]int64   // the newest fence of the tenants asked for; replaced, never changed
}

// tx is the transaction of the group, lent to one function after the other.
type tx struct {
	*reader
	store *Store
	state state

	careful bool // each function that writes gets a savepoint
	wrote   bool // the present function has written
	moved   bool // the present function has moved the configuration's revision
}

var _ store.Tx = (*tx)(nil)

// run runs one function; an error or a panic of it undoes what it did and nothing else. Where that
// takes a savepoint that is not there, the transaction is spoiled.
func (t *tx) run(fn func(store.Tx) error) (spoiled bool, err error) {
	before := t.state
	t.wrote, t.moved = false, false
	err = commit.Run(fn, t)
	if err != nil {
		t.state = before
	}
	if !t.wrote || t.conn.lost != nil {
		return false, err
	}
	if !t.careful {
		return err != nil, err
	}
	if err != nil {
		if _, lost := t.conn.exec("ROLLBACK TO fn"); lost != nil {
			return false, lost
		}
	}
	if _, lost := t.conn.exec("RELEASE fn"); lost != nil {
		return false, lost
	}
	return false, err
}

// write runs a statement that changes something.
func (t *tx) write(query string, args ...any) error {
	_, err := t.change(query, args...)
	return err
}

// change is write that tells how many rows changed.
func (t *tx) change(query string, args ...any) (int64, error) {
	if t.careful && !t.wrote {
		if _, err := t.conn.exec("SAVEPOINT fn"); err != nil {
			return 0, err
		}
		t.wrote = true
	}
	n, err := t.conn.exec(query, args...)
	t.wrote = t.wrote || n > 0 // a statement that fails undoes itself
	return n, err
}

// LockTenant has nothing to do: the committer runs one function at a time.
func (t *tx) LockTenant(string, bool) error { return nil }

// ConfigRev is the revision as this transaction leaves it so far.
func (t *tx) ConfigRev() int64 { return t.state.rev }
