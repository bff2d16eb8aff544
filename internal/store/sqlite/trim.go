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
		func(n int) (int, error) { return t.trimFormer(auditBefore, n) },
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
			AND (listed_until IS NULL OR listed_until < ?)
		ORDER BY revoked_at LIMIT ?`, []any{micros(before), micros(before), limit}, func(scan scanFunc) error {
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
	n, base, mac, err := t.outdated("SELECT seq, at, mac FROM audit ORDER BY seq LIMIT ?", before, limit)
	if err != nil || n == 0 {
		return 0, err
	}
	if err := t.write("UPDATE store_state SET audit_base_seq = ?, audit_base_mac = ?", base, mac); err != nil {
		return 0, err
	}
	return n, t.write("DELETE FROM audit WHERE seq <= ?", base)
}

// trimFormer cuts the beginnings of former chains in the same way.
func (t *tx) trimFormer(before time.Time, limit int) (int, error) {
	nodes, err := t.formerNodes()
	if err != nil {
		return 0, err
	}
	total := 0
	for _, node := range nodes {
		n, base, mac, err := t.outdated("SELECT seq, at, mac FROM former_audit WHERE node = ? ORDER BY seq LIMIT ?", before, node.ID, limit-total)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			continue
		}
		if err := t.write("UPDATE former_chains SET base_seq = ?, base_mac = ? WHERE node = ?", base, mac, node.ID); err != nil {
			return 0, err
		}
		if err := t.write("DELETE FROM former_audit WHERE node = ? AND seq <= ?", node.ID, base); err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// outdated finds the beginning of a chain that is older: how many entries, and the last of them.
func (t *tx) outdated(query string, before time.Time, args ...any) (n int, base int64, mac []byte, err error) {
	err = t.conn.each(query, args, func(scan scanFunc) error {
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
	return n, base, mac, err
}

func (t *tx) trimFences(before time.Time, limit int) (int, error) {
	n, err := t.change(`DELETE FROM fences WHERE rowid IN (
		SELECT f.rowid FROM fences f WHERE f.closed = 1 AND f.at < ?
			AND f.seq < (SELECT max(seq) FROM fences WHERE tenant = f.tenant) LIMIT ?)`, micros(before), limit)
	return int(n), err
}
