package postgres

import (
	"time"

	"github.com/scaivault/scaivault/api"
)

// Trim removes what is past its keeping; see [store.Tx]. What another node is trimming just now is
// left to it.
func (t *tx) Trim(leaseBefore, auditBefore time.Time, limit int) (int, error) {
	removed := 0
	for _, step := range []func(limit int) (int, error){
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
	return removed, t.forgetRemoved(leaseBefore)
}

func (t *tx) trimLeases(before time.Time, limit int) (n int, err error) {
	err = t.each(`DELETE FROM leases WHERE id IN (
			SELECT id FROM leases WHERE status = 'revoked' AND due_at IS NULL AND NOT residue AND revoked_at < $1
				AND (listed_until IS NULL OR listed_until < $1)
			ORDER BY revoked_at LIMIT $2 FOR UPDATE SKIP LOCKED)
		RETURNING engine_id, role`, []any{micros(before), limit}, func(scan scanFunc) error {
		var engineID, role string
		err := scan(&engineID, &role)
		t.count(engineID, role, api.LeaseRevoked, -1)
		n++
		return err
	})
	t.wrote = t.wrote || n > 0
	return n, err
}

// trimAudit cuts the beginnings of all chains, each up to its first entry that is not older, and
// keeps the MACs that the rests go on from. Chains of nodes that are no more are cut like others.
func (t *tx) trimAudit(before time.Time, limit int) (int, error) {
	var nodes []string
	err := t.each("SELECT node FROM chains ORDER BY node FOR NO KEY UPDATE SKIP LOCKED", nil, func(scan scanFunc) error {
		var node string
		err := scan(&node)
		nodes = append(nodes, node)
		return err
	})
	if err != nil {
		return 0, err
	}
	total := 0
	for _, node := range nodes {
		if total == limit {
			break
		}
		n, err := t.trimChain(node, before, limit-total)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func (t *tx) trimChain(node string, before time.Time, limit int) (n int, err error) {
	var base int64
	var mac []byte
	err = t.each("SELECT seq, at, mac FROM audit WHERE node = $1 ORDER BY seq LIMIT $2", []any{node, limit}, func(scan scanFunc) error {
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
	if err := t.write("UPDATE chains SET base_seq = $2, base_mac = $3 WHERE node = $1", node, base, mac); err != nil {
		return 0, err
	}
	return n, t.write("DELETE FROM audit WHERE node = $1 AND seq <= $2", node, base)
}

func (t *tx) trimFences(before time.Time, limit int) (int, error) {
	n, err := t.change(`DELETE FROM fences WHERE (tenant, seq) IN (
		SELECT f.tenant, f.seq FROM fences f WHERE f.closed AND f.at < $1
			AND f.seq < (SELECT max(seq) FROM fences WHERE tenant = f.tenant) LIMIT $2 FOR UPDATE SKIP LOCKED)`, micros(before), limit)
	return int(n), err
}

// forgetRemoved drops what tells other nodes of objects that were removed: a node that did not look
// for so long reads its configuration anew.
func (t *tx) forgetRemoved(before time.Time) error {
	var some bool
	if _, err := t.one("SELECT EXISTS (SELECT 1 FROM removed_objects WHERE removed_at < $1)", []any{micros(before)}, &some); err != nil || !some {
		return err
	}
	if err := t.lockConfig(); err != nil {
		return err
	}
	return t.write(`WITH gone AS (DELETE FROM removed_objects WHERE removed_at < $1 RETURNING rev)
		UPDATE store_state SET removed_rev = greatest(removed_rev, (SELECT coalesce(max(rev), 0) FROM gone))`, micros(before))
}
