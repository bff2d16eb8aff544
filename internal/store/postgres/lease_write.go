package postgres

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// InsertLease makes a lease's row; see [store.Tx].
//
// A name is taken as long as a row bears it, live or dead. The row travels with others: that a name
// is taken then spoils the group, and is told when it is run again with care. It never is: a name
// has 57 random bits.
func (t *tx) InsertLease(l *store.Lease) error {
	if t.careful {
		if err := t.nameFree(l.Username, l.ID); err != nil {
			return err
		}
	}
	l.Version = 1
	row, err := encodeLease(l)
	if err != nil {
		return fmt.Errorf("insert lease: %w", err)
	}
	t.count(l.EngineID, l.Role, l.Status, 1)
	if l.Claim == nil && l.Revocation == nil {
		mine := stored(l)
		mine.Recipe, mine.Metadata = slices.Clone(l.Recipe), maps.Clone(l.Metadata)
		t.state.made = append(t.state.made, mine)
	}
	return t.write(insertLease, row...)
}

// nameFree is nil when no lease but this one bears the name.
func (t *tx) nameFree(username, id string) error {
	var taken bool
	if _, err := t.one("SELECT true FROM leases WHERE username = $1 AND id <> $2", []any{username, id}, &taken); err != nil {
		return err
	}
	if taken {
		return store.ErrUsernameTaken
	}
	return nil
}

// UpdateLease reads, changes and writes a lease; see [store.Tx]. Its row is locked from the reading
// on, so that what fn sees is what it changes. One that this node has just made is not read: that
// nobody has changed it is compared when it is written.
func (t *tx) UpdateLease(id string, fn func(l *store.Lease) error) (*store.Lease, error) {
	made, was := t.recent.take(id), t.mine[id]
	if made != nil && was == nil {
		l := *made
		if fn(&l) == nil && l.Username == made.Username {
			return t.putLease(&l, made, true)
		}
	}
	if was == nil {
		found, err := t.leases("WHERE id = $1 FOR NO KEY UPDATE", id)
		if err == nil && len(found) == 0 {
			err = noLease()
		}
		if err != nil {
			return nil, err
		}
		was = found[0]
	}
	l := cloned(was)
	if err := fn(l); err != nil {
		return nil, err
	}
	if l.Username != was.Username {
		if err := t.nameFree(l.Username, id); err != nil {
			return nil, err
		}
	}
	l, err := t.putLease(l, was, false)
	if err == nil && t.mine[id] != nil {
		t.hold(l)
	}
	return l, err
}

// LockLeases reads rows that UpdateLease is about to change; see [store.Tx]. Their order is that of
// the ids, so that two who lock many do not wait in a circle.
func (t *tx) LockLeases(ids []string) error {
	found, err := t.leases("WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE", ids)
	for _, l := range found {
		t.hold(l)
	}
	return err
}

// hold remembers a row that this transaction has locked, as it leaves it.
func (t *tx) hold(l *store.Lease) {
	if t.mine == nil {
		t.mine = map[string]*store.Lease{}
	}
	t.mine[l.ID] = cloned(l)
}

// cloned is a copy that shares nothing which is changed in place.
func cloned(l *store.Lease) *store.Lease {
	c := stored(l)
	c.Recipe, c.Metadata = slices.Clone(l.Recipe), maps.Clone(l.Metadata)
	if l.Revocation != nil {
		revocation := *l.Revocation
		c.Revocation = &revocation
	}
	return c
}

// putLease writes a lease in place of what it was; compare says that the row may be another by now.
func (t *tx) putLease(l, was *store.Lease, compare bool) (*store.Lease, error) {
	l.ID, l.Version = was.ID, was.Version+1
	row, err := encodeLease(l)
	if err != nil {
		return nil, fmt.Errorf("update lease: %w", err)
	}
	if compare {
		err = t.guarded(fmt.Sprintf("%s AND version = $%d", updateLease, len(row)+1), append(row, was.Version)...)
	} else {
		err = t.write(updateLease, row...)
	}
	if err != nil {
		return nil, err
	}
	if l.Status != was.Status || l.Role != was.Role || l.EngineID != was.EngineID {
		t.count(was.EngineID, was.Role, was.Status, -1)
		t.count(l.EngineID, l.Role, l.Status, 1)
	}
	return stored(l), nil
}

// ClaimDue claims rows that are due; see [store.Tx]. Those that another node is about to claim are
// passed over.
func (t *tx) ClaimDue(engineID string, now time.Time, limit int, c store.Claim) ([]*store.Lease, error) {
	if limit <= 0 {
		return nil, nil
	}
	var due []*store.Lease
	t.wrote = true
	err := t.each(claimDue, []any{micros(now), micros(t.now), silence.Microseconds(), engineID, limit, c.Node, c.Epoch, c.No, micros(c.Until)},
		func(scan scanFunc) error {
			l, err := scanLease(scan)
			if err != nil {
				return err
			}
			t.recent.seen(l)
			t.hold(l)
			due = append(due, l)
			return nil
		})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(due, func(a, b *store.Lease) int { return cmp.Or(a.DueAt.Compare(*b.DueAt), cmp.Compare(a.ID, b.ID)) })
	return due, nil
}

var claimDue = `WITH due AS (
		SELECT id FROM leases WHERE engine_id = $4 AND due_at <= $1
			AND (NOT ` + claimed + ` OR claim_node = $6 AND claim_epoch = $7 AND claim_no < $8)
		ORDER BY due_at LIMIT $5 FOR NO KEY UPDATE SKIP LOCKED)
	UPDATE leases SET claim_node = $6, claim_epoch = $7, claim_no = $8, claim_until = $9, version = leases.version + 1
	FROM due WHERE leases.id = due.id RETURNING ` + leaseList

// count is the move of a kept counter.
type count struct {
	engineID, role string
	status         api.LeaseStatus
	by             int64
}

// count moves a kept counter, in the transaction of the rows that it counts: all moves of a
// transaction become one for each counter, at its end.
func (t *tx) count(engineID, role string, status api.LeaseStatus, by int64) {
	t.state.counts = append(t.state.counts, count{engineID, role, status, by})
}

// sendCounts writes down how the counters moved.
func (t *tx) sendCounts() error {
	moves := map[count]int64{}
	for _, c := range t.state.counts {
		by := c.by
		c.by = 0
		moves[c] += by
	}
	t.state.counts = nil
	var engines, roles, statuses []string
	var by []int64
	for c, n := range moves {
		if n != 0 {
			engines, roles, statuses, by = append(engines, c.engineID), append(roles, c.role), append(statuses, string(c.status)), append(by, n)
		}
	}
	if len(by) == 0 {
		return nil
	}
	return t.write(`INSERT INTO lease_counts (engine_id, role, status, node, n)
		SELECT e, r, s, $1, n FROM unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) AS moves (e, r, s, n)
		ON CONFLICT (engine_id, role, status, node) DO UPDATE SET n = lease_counts.n + excluded.n`,
		t.node, engines, roles, statuses, by)
}

// LeaseCounts are the kept counters with the moves of this transaction.
func (t *tx) LeaseCounts(engineID string) ([]store.LeaseCount, error) {
	if err := t.sendCounts(); err != nil {
		return nil, err
	}
	return t.reader.LeaseCounts(engineID)
}
