package postgres

import (
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const fenceColumns = `tenant, seq, engine_id, role, identity, token_id, tied_only, issued_before,
	reason, requested_by, at, audit_id, matched, closed`

func (r *reader) fencesOf(where string, args ...any) ([]*store.Fence, error) {
	var fences []*store.Fence
	err := r.each("SELECT "+fenceColumns+" FROM fences WHERE "+where, args, func(scan scanFunc) error {
		f := &store.Fence{}
		var at int64
		var issued *int64
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
	return r.fencesOf("NOT closed ORDER BY tenant, seq")
}

// FencesSince are the fences of a tenant newer than seq, oldest first.
func (r *reader) FencesSince(tenant string, seq int64) ([]*store.Fence, error) {
	return r.fencesOf("tenant = $1 AND seq > $2 ORDER BY seq", tenant, seq)
}

const newestFence = "SELECT coalesce((SELECT seq FROM fences WHERE tenant = $1 ORDER BY seq DESC LIMIT 1), 0)"

// FenceSeq is the newest fence's number in the tenant.
func (r *reader) FenceSeq(tenant string) (seq int64, err error) {
	_, err = r.one(newestFence, []any{tenant}, &seq)
	return seq, err
}

// LockTenant orders intents and fences of all nodes; see [store.Tx]. What is not free at once is
// waited for at the beginning of the next attempt, where nothing else is held. What is read after
// it is what was committed before it was free.
func (t *tx) LockTenant(tenant string, exclusive bool) error {
	t.asked[tenant] = false
	if is, held := t.held[tenant]; held && (is || !exclusive) {
		if _, known := t.fenceSeq[tenant]; known {
			return nil
		}
		seq, err := t.reader.FenceSeq(tenant)
		t.fenceSeq[tenant] = seq
		return err
	}
	lock := "SELECT pg_try_advisory_xact_lock_shared($1)"
	if exclusive {
		lock = "SELECT pg_try_advisory_xact_lock($1)"
	}
	var free bool
	var rev, seq int64
	err := t.send(
		statement{sql: lock, args: []any{t.tenantKey(tenant)}, row: func(scan scanFunc) error { return scan(&free) }},
		statement{sql: "SELECT config_rev, (" + newestFence + ") FROM store_state", args: []any{tenant},
			row: func(scan scanFunc) error { return scan(&rev, &seq) }},
	)
	if err != nil {
		return err
	}
	if !free || rev != t.begun {
		if t.tenants == nil {
			t.tenants = map[string]bool{}
		}
		t.tenants[tenant] = exclusive || t.tenants[tenant]
		return t.fail(errNeedLock)
	}
	t.held[tenant], t.fenceSeq[tenant] = exclusive, seq
	return nil
}

// FenceSeq is the newest fence's number: known where no other node can add one.
func (t *tx) FenceSeq(tenant string) (int64, error) {
	if seq, known := t.fenceSeq[tenant]; known {
		return seq, nil
	}
	return t.reader.FenceSeq(tenant)
}

// knownFences are those of a tenant newer than a number.
type knownFences struct {
	since  int64
	fences []*store.Fence
}

// FencesSince are the fences of a tenant newer than seq, as of the group's first asking: a fence
// that came to be since then finds the lease as this transaction leaves it.
func (t *tx) FencesSince(tenant string, seq int64) ([]*store.Fence, error) {
	if newest, known := t.fenceSeq[tenant]; known && newest <= seq {
		return nil, nil
	}
	known := t.fences[tenant]
	if known == nil || known.since > seq {
		fences, err := t.reader.FencesSince(tenant, seq)
		if err != nil {
			return nil, err
		}
		known = &knownFences{seq, fences}
		t.fences[tenant] = known
	}
	var newer []*store.Fence
	for _, f := range known.fences {
		if f.Seq > seq {
			own := *f
			newer = append(newer, &own)
		}
	}
	return newer, nil
}

// AddFence writes a fence under the tenant's next number.
func (t *tx) AddFence(f *store.Fence) error {
	last, err := t.FenceSeq(f.Tenant)
	if err != nil {
		return err
	}
	f.Seq = last + 1
	delete(t.fences, f.Tenant)
	if _, known := t.fenceSeq[f.Tenant]; known {
		t.fenceSeq[f.Tenant] = f.Seq
	}
	return t.insertFence(f)
}

func (t *tx) insertFence(f *store.Fence) error {
	return t.write("INSERT INTO fences ("+fenceColumns+") VALUES ("+places(14)+")",
		f.Tenant, f.Seq, f.EngineID, f.Role, f.Identity, f.TokenID, f.TiedOnly, microsOrNull(f.IssuedBefore),
		f.Reason, f.By, micros(f.At), f.AuditID, f.Matched, f.Closed)
}

// FenceTargets are the leases that the fence still has to mark; see [store.Tx].
func (t *tx) FenceTargets(f *store.Fence, after string, limit int) ([]string, error) {
	q := fenceScope(f)
	q.and("(status IN ('issuing', 'active')) IS TRUE")
	order := q.lead(f.Index(), oldest, after)
	return t.leaseIDs(q, order, limit)
}

// FencePending counts what the fence has not killed yet, and names the first; see [store.Reader].
func (r *reader) FencePending(f *store.Fence, limit int) (n int64, ids []string, err error) {
	q := fenceScope(f)
	order := q.lead(f.Index(), oldest, "")
	if _, err := r.one("SELECT count(*) FROM leases "+q.where(), q.args, &n); err != nil {
		return 0, nil, err
	}
	if n > 0 && limit > 0 {
		ids, err = r.leaseIDs(q, order, limit)
	}
	return n, ids, err
}

// fenceScope is the condition that a lease is in the fence's scope, older than it and not dead.
func fenceScope(f *store.Fence) (q condition) {
	q.and("status <> 'revoked'")
	q.check("tenant = ?", f.Tenant)
	q.and("fence_seq < ?", f.Seq)
	q.check("engine_id = ?", f.EngineID)
	q.check("role = ?", f.Role)
	q.check("identity = ?", f.Identity)
	q.check("token_id = ?", f.TokenID)
	q.moment("issued_at < ?", f.IssuedBefore)
	if f.TiedOnly {
		q.and("tied")
	}
	return q
}

func (r *reader) leaseIDs(q condition, order string, limit int) ([]string, error) {
	var ids []string
	order += q.limit(limit)
	err := r.each("SELECT id FROM leases "+q.where()+order, q.args, func(scan scanFunc) error {
		var id string
		err := scan(&id)
		ids = append(ids, id)
		return err
	})
	return ids, err
}

// CloseFence says that all leases of the fence are marked.
func (t *tx) CloseFence(tenant string, seq int64) error {
	n, err := t.change("UPDATE fences SET closed = true WHERE tenant = $1 AND seq = $2", tenant, seq)
	if err == nil && n == 0 {
		err = fault.New(fault.NotFound, "there is no such fence")
	}
	delete(t.fences, tenant)
	return err
}
