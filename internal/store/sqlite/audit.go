package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// Audit appends the entry to this node's chain; see [store.Tx].
func (t *tx) Audit(tenant string, e *api.AuditEntry) error {
	chain := t.store.chain.Load()
	if chain == nil {
		return fault.New(fault.InternalError, "internal error").
			Because(errors.New("write audit entry: the chain's key is not set yet"))
	}
	if e.ID == "" {
		e.ID = ident.New(ident.AuditEntry)
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = t.Now()
	}
	e.Timestamp = moment(micros(e.Timestamp))
	raw, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write audit entry: %w", err)
	}
	row := store.AuditRow{Node: t.node, Seq: t.state.seq + 1, Tenant: tenant, Raw: raw}
	row.MAC = (*chain)(t.state.mac, store.AuditMessage(&row))
	if err := t.insertAudit(&row, e); err != nil {
		return err
	}
	t.state.seq, t.state.mac = row.Seq, row.MAC
	return nil
}

func (t *tx) insertAudit(row *store.AuditRow, e *api.AuditEntry) error {
	return t.write(`INSERT INTO audit (seq, tenant, at, action, identity_id, path, success, raw, mac)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, row.Seq, row.Tenant, micros(e.Timestamp),
		e.Action, e.IdentityID, e.SecretPath, flag(e.Success), string(row.Raw), row.MAC)
}

// rows reads this node's entries of a condition; past is the number of the last entry before them.
func (r *reader) rows(past int64, condition string, args ...any) ([]*store.AuditRow, error) {
	return r.entries("SELECT ?, seq + ?, seq, tenant, raw, mac FROM audit "+condition, append([]any{r.node, past}, args...)...)
}

func (r *reader) entries(query string, args ...any) ([]*store.AuditRow, error) {
	var rows []*store.AuditRow
	err := r.conn.eachOnce(query, args, func(scan scanFunc) error {
		a := &store.AuditRow{}
		if err := scan(&a.Node, &a.Pos, &a.Seq, &a.Tenant, &a.Raw, &a.MAC); err != nil {
			return err
		}
		// A row that somebody has tampered with may not decode: it is shown as it is, and the
		// chain's verification names it.
		_ = json.Unmarshal(a.Raw, &a.Entry)
		rows = append(rows, a)
		return nil
	})
	return rows, err
}

// AuditEntries lists entries by their time, newest first, and those of one moment by their number; see
// [store.Reader]. Numbers follow the order of commit, which differs from the order of the times
// only when the clock is set back. Those of former chains follow on this node's.
func (r *reader) AuditEntries(f store.AuditFilter, before int64, limit int) ([]*store.AuditRow, error) {
	past, err := r.formerEnd()
	if err != nil {
		return nil, err
	}
	var own []*store.AuditRow
	if before == 0 || before > past {
		if own, err = r.ownEntries(f, past, before, limit); err != nil || past == 0 || limit > 0 && len(own) >= limit {
			return own, err
		}
		before, limit = past+1, max(limit-len(own), 0)
	}
	former, err := r.formerEntries(f, before, limit)
	return append(own, former...), err
}

// ownEntries are those of this node, numbered after past.
func (r *reader) ownEntries(f store.AuditFilter, past, before int64, limit int) ([]*store.AuditRow, error) {
	q := auditCondition(f)
	if seq := before - past; before > 0 {
		var at int64
		found, err := r.conn.one("SELECT at FROM audit WHERE seq >= ? ORDER BY seq LIMIT 1", []any{seq}, &at)
		if err != nil {
			return nil, err
		}
		if found {
			q.and("(at, seq) < (?, ?)", at, seq)
		}
	}
	return r.rows(past, "INDEXED BY audit_"+auditIndex(f)+" "+q.where()+" ORDER BY at DESC, seq DESC LIMIT ?", append(q.args, all(limit))...)
}

func auditCondition(f store.AuditFilter) (q condition) {
	q.text("tenant = ?", f.Tenant)
	q.moment("at >= ?", f.From)
	q.moment("at < ?", f.To)
	q.text("action = ?", f.Action)
	q.text("identity_id = ?", f.IdentityID)
	q.text("path = ?", f.Path)
	if f.Success != nil {
		q.and("success = ?", flag(*f.Success))
	}
	q.text("json_extract(raw, '$.identity_type') = ?", f.IdentityType)
	q.text("json_extract(raw, '$.source_ip') = ?", f.SourceIP)
	q.text("json_extract(raw, '$.request_id') = ?", f.RequestID)
	if f.PathPrefix != "" {
		q.and("path >= ?", f.PathPrefix)
		if end, ok := after(f.PathPrefix); ok {
			q.and("path < ?", end)
		}
	}
	return q
}

// auditIndex is the index that finds the fewest.
func auditIndex(f store.AuditFilter) string {
	switch {
	case f.IdentityID != "":
		return "identity"
	case f.Path != "":
		return "path"
	default:
		return "at"
	}
}

// AuditChain reads a node's chain upwards from a sequence, that one included.
func (r *reader) AuditChain(node string, from int64, limit int) ([]*store.AuditRow, error) {
	if node != r.node {
		return r.formerChain(node, from, limit)
	}
	past, err := r.formerEnd()
	if err != nil {
		return nil, err
	}
	return r.rows(past, "WHERE seq >= ? ORDER BY seq LIMIT ?", from, all(limit))
}

// AuditHeads are the first and last rows kept of each chain; see [store.Reader]. A chain whose rows are all
// trimmed begins after its end.
func (r *reader) AuditHeads() ([]store.AuditHead, error) {
	h := store.AuditHead{Node: r.node}
	if _, err := r.conn.one("SELECT audit_base_seq, audit_base_mac FROM store_state", nil, &h.LastSeq, &h.Base); err != nil {
		return nil, err
	}
	h.FirstSeq, h.LastMAC = h.LastSeq+1, h.Base
	if _, err := r.conn.one("SELECT seq FROM audit ORDER BY seq LIMIT 1", nil, &h.FirstSeq); err != nil {
		return nil, err
	}
	if _, err := r.conn.one("SELECT seq, mac FROM audit ORDER BY seq DESC LIMIT 1", nil, &h.LastSeq, &h.LastMAC); err != nil {
		return nil, err
	}
	heads, err := r.formerHeads()
	if h.LastSeq > 0 {
		heads = append(heads, h)
	}
	return heads, err
}

// AuditCounts counts entries from a moment to before another.
func (r *reader) AuditCounts(tenant string, from, to time.Time) ([]store.AuditCount, error) {
	var counts []store.AuditCount
	err := r.conn.each(`SELECT action, success, count(*) FROM (
			SELECT tenant, at, action, success FROM audit INDEXED BY audit_at WHERE at >= ?2 AND at < ?3
			UNION ALL SELECT tenant, at, action, success FROM former_audit INDEXED BY former_audit_at WHERE at >= ?2 AND at < ?3)
		WHERE tenant = ?1 GROUP BY action, success ORDER BY action, success`,
		[]any{tenant, micros(from), micros(to)}, func(scan scanFunc) error {
			var c store.AuditCount
			err := scan(&c.Action, &c.Success, &c.N)
			counts = append(counts, c)
			return err
		})
	return counts, err
}
