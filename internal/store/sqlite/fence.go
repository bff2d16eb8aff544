package sqlite

import (
	"database/sql"
	"maps"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const fenceColumns = `tenant, seq, engine_id, role, identity, token_id, tied_only, issued_before,
	reason, requested_by, at, audit_id, matched, closed`

func (r *reader) fences(where string, args ...any) ([]*store.Fence, error) {
	var fences []*store.Fence
	err := r.conn.each("SELECT "+fenceColumns+" FROM fences "+where, args, func(scan scanFunc) error {
		f := &store.Fence{}
		var at int64
		var issued sql.NullInt64
		if err := scan(&f.Tenant, &f.Seq, &f.EngineID, &f.Role, &f.Identity, &f.TokenID, &f.TiedOnly, &issued,
			&f.Reason, &f.By, &at, &f.AuditID, &f.Matched, &f.Closed); err != nil {
			return err
		}
		f.IssuedBefore, f.At = momentOrNil(issued), moment(at)
		fences = append(fences, f)
		return nil
	})
	return fences, err
}

// OpenFences are those whose leases are not all marked yet, in their order within a tenant.
func (r *reader) OpenFences() ([]*store.Fence, error) {
	return r.fences("WHERE closed = 0 ORDER BY tenant, seq")
}

// FencesSince are the fences of a tenant newer than seq, oldest first.
func (r *reader) FencesSince(tenant string, seq int64) ([]*store.Fence, error) {
	return r.fences("WHERE tenant = ? AND seq > ? ORDER BY seq", tenant, seq)
}

// FenceSeq is the newest fence's number in the tenant.
func (r *reader) FenceSeq(tenant string) (int64, error) {
	var seq int64
	_, err := r.conn.one("SELECT seq FROM fences WHERE tenant = ? ORDER BY seq DESC LIMIT 1", []any{tenant}, &seq)
	return seq, err
}

// FenceSeq is the newest fence's number in the tenant, which every intent asks for.
func (t *tx) FenceSeq(tenant string) (int64, error) {
	if seq, ok := t.state.fences[tenant]; ok {
		return seq, nil
	}
	seq, err := t.reader.FenceSeq(tenant)
	if err == nil {
		t.newestFence(tenant, seq)
	}
	return seq, err
}

// newestFence remembers the newest fence of a tenant.
func (t *tx) newestFence(tenant string, seq int64) {
	fences := maps.Clone(t.state.fences)
	if fences == nil {
		fences = map[string]int64{}
	}
	fences[tenant] = seq
	t.state.fences = fences
}

// FencesSince are the fences of a tenant newer than seq; nearly always there are none.
func (t *tx) FencesSince(tenant string, seq int64) ([]*store.Fence, error) {
	if newest, err := t.FenceSeq(tenant); err != nil || newest <= seq {
		return nil, err
	}
	return t.reader.FencesSince(tenant, seq)
}

// AddFence writes a fence under the tenant's next number.
func (t *tx) AddFence(f *store.Fence) error {
	last, err := t.FenceSeq(f.Tenant)
	if err != nil {
		return err
	}
	f.Seq = last + 1
	if err = t.insertFence(f); err == nil {
		t.newestFence(f.Tenant, f.Seq)
	}
	return err
}

func (t *tx) insertFence(f *store.Fence) error {
	return t.write("INSERT INTO fences ("+fenceColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		f.Tenant, f.Seq, f.EngineID, f.Role, f.Identity, f.TokenID, flag(f.TiedOnly), microsOrNull(f.IssuedBefore),
		f.Reason, f.By, micros(f.At), f.AuditID, f.Matched, flag(f.Closed))
}

// FenceTargets are the leases that the fence still has to mark; see [store.Tx].
func (t *tx) FenceTargets(f *store.Fence, after string, limit int) ([]string, error) {
	index, q := fenceScope(f)
	q.and("status IN ('issuing', 'active') AND id > ?", after)
	return t.leaseIDs(index, q, limit)
}

// FencePending counts what the fence has not killed yet, and names the first; see [store.Reader].
func (r *reader) FencePending(f *store.Fence, limit int) (n int64, ids []string, err error) {
	index, q := fenceScope(f)
	if _, err := r.conn.one("SELECT count(*) FROM leases "+index+q.where(), q.args, &n); err != nil {
		return 0, nil, err
	}
	if n > 0 && limit > 0 {
		ids, err = r.leaseIDs(index, q, limit)
	}
	return n, ids, err
}

// fenceScope is the condition that a lease is in the fence's scope, older than it and not dead,
// and the index that gives such leases in the order of their ids.
func fenceScope(f *store.Fence) (index string, q condition) {
	q.and("status <> 'revoked' AND tenant = ? AND fence_seq < ?", f.Tenant, f.Seq)
	q.text("engine_id = ?", f.EngineID)
	q.text("role = ?", f.Role)
	q.text("identity = ?", f.Identity)
	q.text("token_id = ?", f.TokenID)
	q.moment("issued_at < ?", f.IssuedBefore)
	if f.TiedOnly {
		q.and("tied = 1")
	}
	index = q.by(f.Index())
	return index, q
}

func (r *reader) leaseIDs(index string, q condition, limit int) ([]string, error) {
	var ids []string
	err := r.conn.each("SELECT id FROM leases "+index+q.where()+" ORDER BY id LIMIT ?",
		append(q.args, all(limit)), func(scan scanFunc) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		})
	return ids, err
}

// CloseFence says that all leases of the fence are marked.
func (t *tx) CloseFence(tenant string, seq int64) error {
	n, err := t.change("UPDATE fences SET closed = 1 WHERE tenant = ? AND seq = ?", tenant, seq)
	if err == nil && n == 0 {
		err = fault.New(fault.NotFound, "there is no such fence")
	}
	return err
}
