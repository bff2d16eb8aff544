package sqlite

import (
	"time"

	"github.com/scaivault/scaivault/api"
)

// Trim removes what is past its keeping; see [store.Tx].
func (t *tx) Trim(leaseBefore, auditBefore time.Time, limit int) (int, error) {
	removed := 0
	for _, step := range []func(int) (int, error){
		func(n int) (int, error) { return t.trimLeases(leaseBefore, n) },
		func(n int) (int, error) { return t.trimAudit(auditBefore, n) },
		func(n int) (int, error) { return t.trimFences(leaseBefore, n) },
	} {
		if removed >= limit {
			break
		}
		n, err := step(limit - removed)
		if err != nil {
			return 0, err
		}
		removed += n
	}
	return removed, nil
}

func (t *tx) trimLeases(before time.Time, limit int) (int, error) {
	type lease struct{ id, engineID, role string }
	var dead []lease
	err := t.conn.each(`SELECT id, engine_id, role FROM leases INDEXED BY leases_ended
		WHERE status = 'revoked' AND due_at IS NULL AND residue = 0 AND revoked_at < ?
		ORDER BY revoked_at LIMIT ?`, []any{micros(before), limit}, func(scan scanFunc) error {
		var l lease
		err := scan(&l.id, &l.engineID, &l.role)
		dead = append(dead, l)
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, l := range dead {
		if err := t.write("DELETE FROM leases WHERE id = ?", l.id); err != nil {
			return 0, err
		}
		t.count(l.engineID, l.role, api.LeaseRevoked, -1)
	}
	if len(dead) > 0 {
		if err := t.writeCounts(); err != nil {
			return 0, err
		}
		if err := t.write("DELETE FROM lease_counts WHERE n = 0"); err != nil {
			return 0, err
		}
	}
	return len(dead), nil
}

// trimAudit cuts the beginning of the chain, up to the first entry that is not older, and keeps
// the MAC that the rest goes on from.
func (t *tx) trimAudit(before time.Time, limit int) (int, error) {
	var n int
	var base int64
	var mac []byte
	err := t.conn.each("SELECT seq, at, mac FROM audit ORDER BY seq LIMIT ?", []any{limit}, func(scan scanFunc) error {
		var seq, at int64
		var m []byte
		if err := scan(&seq, &at, &m); err != nil {
			return err
		}
		if at >= micros(before) {
			return errStop
		}
		n, base, mac = n+1, seq, m
		return nil
	})
	if err != nil || n == 0 {
		return 0, err
	}
	if err := t.write("UPDATE store_state SET audit_base_seq = ?, audit_base_mac = ?", base, mac); err != nil {
		return 0, err
	}
	return n, t.write("DELETE FROM audit WHERE seq <= ?", base)
}

func (t *tx) trimFences(before time.Time, limit int) (int, error) {
	n, err := t.change(`DELETE FROM fences WHERE rowid IN (
		SELECT f.rowid FROM fences f WHERE f.closed = 1 AND f.at < ?
			AND f.seq < (SELECT max(seq) FROM fences WHERE tenant = f.tenant) LIMIT ?)`, micros(before), limit)
	return int(n), err
}
