package sqlite

import (
	"fmt"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// InsertLease makes a lease's row; see [store.Tx].
//
// A name is taken as long as a row bears it, live or dead. Trim makes names of long dead leases
// free again in theory; in practice a name has 57 random bits, and the account that bore the old
// one is proven dead.
func (t *tx) InsertLease(l *store.Lease) error {
	l.Version = 1
	row, err := encodeLease(l)
	if err != nil {
		return fmt.Errorf("insert lease: %w", err)
	}
	if err := t.write(insertLease, row...); err != nil {
		return taken(err)
	}
	t.count(l.EngineID, l.Role, l.Status, 1)
	return nil
}

var insertLease = "INSERT INTO leases (" + leaseList + ") VALUES (?" + strings.Repeat(", ?", len(leaseColumns)-1) + ")"

// taken names the violated uniqueness.
func taken(err error) error {
	columns, ok := unique(err)
	switch {
	case !ok:
		return err
	case strings.HasPrefix(columns, "leases.username"):
		return store.ErrUsernameTaken
	default:
		return fault.New(fault.InternalError, "internal error").Because(fmt.Errorf("write lease: %w", err))
	}
}

// UpdateLease reads, changes and writes a lease; see [store.Tx]. Only columns that changed are
// written, so that only their indexes are touched.
func (t *tx) UpdateLease(id string, fn func(l *store.Lease) error) (*store.Lease, error) {
	old, err := t.leaseRow(id)
	if err != nil {
		return nil, err
	}
	l, err := decodeLease(old)
	if err != nil {
		return nil, damaged("lease "+id, err)
	}
	was := *l
	if err := fn(l); err != nil {
		return nil, err
	}
	l.ID, l.Version = id, was.Version+1
	row, err := encodeLease(l)
	if err != nil {
		return nil, fmt.Errorf("update lease: %w", err)
	}
	var set []string
	var args []any
	for i, column := range leaseColumns {
		if row[i] != old[i] {
			set = append(set, column+" = ?")
			args = append(args, row[i])
		}
	}
	query := "UPDATE leases SET " + strings.Join(set, ", ") + " WHERE id = ?"
	if err := t.write(query, append(args, id)...); err != nil {
		return nil, taken(err)
	}
	if l.Status != was.Status || l.Role != was.Role || l.EngineID != was.EngineID {
		t.count(was.EngineID, was.Role, was.Status, -1)
		t.count(l.EngineID, l.Role, l.Status, 1)
	}
	return decodeLease(row)
}

func (r *reader) leaseRow(id string) (row []any, err error) {
	err = r.conn.each("SELECT "+leaseList+" FROM leases WHERE id = ?", []any{id}, func(scan scanFunc) error {
		row, err = scanLease(scan)
		return err
	})
	if err == nil && row == nil {
		err = noLease()
	}
	return row, err
}

func noLease() error { return fault.New(fault.LeaseNotFound, "there is no such lease") }

// LockLeases has nothing to do: nobody else writes, and reading a row is no trip.
func (t *tx) LockLeases([]string) error { return nil }

// ClaimDue claims rows that are due; see [store.Tx].
func (t *tx) ClaimDue(engineID string, now time.Time, limit int, c store.Claim) ([]*store.Lease, error) {
	if limit <= 0 {
		return nil, nil
	}
	c.Until = moment(micros(c.Until))
	due, err := t.leases(true, `INDEXED BY leases_due WHERE engine_id = ? AND due_at <= ? AND due_at IS NOT NULL AND (`+unclaimed+`
		OR claim_node = ? AND claim_epoch = ? AND claim_no < ?) ORDER BY due_at LIMIT ?`,
		engineID, micros(now), micros(now), t.node, t.epoch, c.Node, c.Epoch, c.No, limit)
	if err != nil {
		return nil, err
	}
	for _, l := range due {
		mine := c
		l.Claim = &mine
		l.Version++
		err := t.write(`UPDATE leases SET claim_node = ?, claim_epoch = ?, claim_no = ?, claim_until = ?, version = ? WHERE id = ?`,
			c.Node, c.Epoch, c.No, micros(c.Until), l.Version, l.ID)
		if err != nil {
			return nil, err
		}
	}
	return due, nil
}

// unclaimed is the condition that a row is under no valid claim; its arguments are the present
// time, and this node with its epoch. Rows in the hands of somebody are skipped one by one: they
// are as few as the operations at work.
const unclaimed = `(claim_until IS NULL OR claim_until <= ? OR (claim_node = ? AND claim_epoch < ?))`
