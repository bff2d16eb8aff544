package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// Audit appends the entry to this node's chain, which no other node writes to; see [store.Tx].
func (t *tx) Audit(tenant string, e *api.AuditEntry) error {
	chain := t.committer.store.chain.Load()
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
	return t.write(`INSERT INTO audit (node, seq, tenant, at, action, identity_id, identity_type, path, success, source_ip, request_id, raw, mac)
		VALUES (`+places(13)+`)`, row.Node, row.Seq, row.Tenant, micros(e.Timestamp), plain(e.Action), plain(e.IdentityID),
		plain(e.IdentityType), plain(e.SecretPath), e.Success, plain(e.SourceIP), plain(e.RequestID), string(row.Raw), row.MAC)
}

// plain is a text without what the database has no place for, so that a request is recorded
// whatever it held. The entry itself has it in full.
func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// rows reads entries of a condition.
func (r *reader) rows(condition string, args ...any) ([]*store.AuditRow, error) {
	var rows []*store.AuditRow
	err := r.each("SELECT node, seq, pos, tenant, raw, mac FROM audit "+condition, args, func(scan scanFunc) error {
		a := &store.AuditRow{}
		var raw string
		if err := scan(&a.Node, &a.Seq, &a.Pos, &a.Tenant, &raw, &a.MAC); err != nil {
			return err
		}
		a.Raw = []byte(raw)
		// A row that somebody has tampered with may not decode: it is shown as it is, and the
		// chain's verification names it.
		_ = json.Unmarshal(a.Raw, &a.Entry)
		rows = append(rows, a)
		return nil
	})
	return rows, err
}

// AuditEntries lists entries of all chains by their time, newest first; see [store.Reader].
func (r *reader) AuditEntries(f store.AuditFilter, before int64, limit int) ([]*store.AuditRow, error) {
	var q condition
	q.text("tenant = ?", f.Tenant)
	q.moment("at >= ?", f.From)
	q.moment("at < ?", f.To)
	q.text("action = ?", f.Action)
	q.text("identity_id = ?", f.IdentityID)
	q.text("path = ?", f.Path)
	q.text("identity_type = ?", f.IdentityType)
	q.text("source_ip = ?", f.SourceIP)
	q.text("request_id = ?", f.RequestID)
	if f.Success != nil {
		q.and("success = ?", *f.Success)
	}
	if f.PathPrefix != "" {
		q.and("path >= ?", f.PathPrefix)
		if end, ok := after(f.PathPrefix); ok {
			q.and("path < ?", end)
		}
	}
	if before > 0 {
		var at int64
		found, err := r.one("SELECT at FROM audit WHERE pos >= $1 ORDER BY pos LIMIT 1", []any{before}, &at)
		if err != nil {
			return nil, err
		}
		if found {
			q.and("(at, pos) < (?, ?)", at, before)
		}
	}
	order := " ORDER BY at DESC, pos DESC" + q.limit(limit)
	return r.rows(q.where()+order, q.args...)
}

// AuditChain reads a node's chain upwards from a sequence, that one included.
func (r *reader) AuditChain(node string, from int64, limit int) ([]*store.AuditRow, error) {
	var q condition
	q.and("node = ? AND seq >= ?", node, from)
	order := " ORDER BY seq" + q.limit(limit)
	return r.rows(q.where()+order, q.args...)
}

// AuditHeads are the first and last rows kept of each node's chain; see [store.Reader]. A chain
// whose rows are all trimmed begins after its end.
func (r *reader) AuditHeads() ([]store.AuditHead, error) {
	var heads []store.AuditHead
	err := r.each(`SELECT c.node, c.base_seq, c.base_mac, first.seq, last.seq, last.mac FROM chains c
		LEFT JOIN LATERAL (SELECT seq FROM audit WHERE node = c.node ORDER BY seq LIMIT 1) first ON true
		LEFT JOIN LATERAL (SELECT seq, mac FROM audit WHERE node = c.node ORDER BY seq DESC LIMIT 1) last ON true
		WHERE last.seq IS NOT NULL OR c.base_seq > 0 ORDER BY c.node`, nil, func(scan scanFunc) error {
		h := store.AuditHead{}
		var base int64
		var first, last *int64
		if err := scan(&h.Node, &base, &h.Base, &first, &last, &h.LastMAC); err != nil {
			return err
		}
		if last == nil {
			h.FirstSeq, h.LastSeq, h.LastMAC = base+1, base, h.Base
		} else {
			h.FirstSeq, h.LastSeq = *first, *last
		}
		heads = append(heads, h)
		return nil
	})
	return heads, err
}

// AuditCounts counts entries from a moment to before another.
func (r *reader) AuditCounts(tenant string, from, to time.Time) ([]store.AuditCount, error) {
	var counts []store.AuditCount
	err := r.each(`SELECT action, success, count(*) FROM audit
		WHERE tenant = $1 AND at >= $2 AND at < $3 GROUP BY action, success ORDER BY action, success`,
		[]any{tenant, micros(from), micros(to)}, func(scan scanFunc) error {
			var c store.AuditCount
			err := scan(&c.Action, &c.Success, &c.N)
			counts = append(counts, c)
			return err
		})
	return counts, err
}
