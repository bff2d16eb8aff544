package sqlite

import (
	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// A store that several nodes wrote to, and that is restored into an embedded one, brings the chains
// of them all. They are kept beside this node's, to be read and verified.

const formerColumns = "node, pos, seq, tenant, raw, mac"

// formerEnd is the number of the last entry of former chains in lists, 0 without any. It stays when
// entries are trimmed.
func (r *reader) formerEnd() (pos int64, err error) {
	_, err = r.conn.one("SELECT coalesce(max(last_pos), 0) FROM former_chains", nil, &pos)
	return pos, err
}

// formerEntries lists entries of former chains before a number.
func (r *reader) formerEntries(f store.AuditFilter, before int64, limit int) ([]*store.AuditRow, error) {
	q := auditCondition(f)
	var at int64
	found, err := r.conn.one("SELECT at FROM former_audit WHERE pos >= ? ORDER BY pos LIMIT 1", []any{before}, &at)
	if err != nil {
		return nil, err
	}
	if found {
		q.and("(at, pos) < (?, ?)", at, before)
	}
	return r.entries("SELECT "+formerColumns+" FROM former_audit INDEXED BY former_audit_"+auditIndex(f)+" "+q.where()+
		" ORDER BY at DESC, pos DESC LIMIT ?", append(q.args, all(limit))...)
}

func (r *reader) formerChain(node string, from int64, limit int) ([]*store.AuditRow, error) {
	return r.entries("SELECT "+formerColumns+" FROM former_audit WHERE node = ? AND seq >= ? ORDER BY seq LIMIT ?", node, from, all(limit))
}

// formerNodes are the former chains, where they begin and end.
func (r *reader) formerNodes() ([]store.NodeState, error) {
	var nodes []store.NodeState
	err := r.conn.each("SELECT node, epoch, base_seq, base_mac FROM former_chains ORDER BY node", nil, func(scan scanFunc) error {
		n := store.NodeState{}
		err := scan(&n.ID, &n.Epoch, &n.BaseSeq, &n.BaseMAC)
		n.LastSeq, n.LastMAC = n.BaseSeq, n.BaseMAC
		nodes = append(nodes, n)
		return err
	})
	for i := range nodes {
		if err != nil {
			return nil, err
		}
		_, err = r.conn.one("SELECT seq, mac FROM former_audit WHERE node = ? ORDER BY seq DESC LIMIT 1", []any{nodes[i].ID}, &nodes[i].LastSeq, &nodes[i].LastMAC)
	}
	return nodes, err
}

func (r *reader) formerHeads() ([]store.AuditHead, error) {
	nodes, err := r.formerNodes()
	var heads []store.AuditHead
	for _, n := range nodes {
		if n.LastSeq > 0 {
			heads = append(heads, store.AuditHead{Node: n.ID, FirstSeq: n.BaseSeq + 1, Base: n.BaseMAC, LastSeq: n.LastSeq, LastMAC: n.LastMAC})
		}
	}
	return heads, err
}

// insertFormer adds an entry to a former chain.
func (t *tx) insertFormer(row *store.AuditRow, e *api.AuditEntry) error {
	pos, err := t.formerEnd()
	if err != nil {
		return err
	}
	if err := t.write("UPDATE former_chains SET last_pos = ? WHERE node = ?", pos+1, row.Node); err != nil {
		return err
	}
	return t.write(`INSERT INTO former_audit (pos, node, seq, tenant, at, action, identity_id, path, success, raw, mac)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, pos+1, row.Node, row.Seq, row.Tenant, micros(e.Timestamp),
		e.Action, e.IdentityID, e.SecretPath, flag(e.Success), string(row.Raw), row.MAC)
}
