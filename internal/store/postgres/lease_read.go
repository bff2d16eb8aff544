package postgres

import (
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// silence is how long a node may give no sign of life before its claims are void.
const silence = 5 * time.Second

func (r *reader) leases(condition string, args ...any) ([]*store.Lease, error) {
	var found []*store.Lease
	err := r.each("SELECT "+leaseList+" FROM leases "+condition, args, func(scan scanFunc) error {
		l, err := scanLease(scan)
		if err != nil {
			return err
		}
		r.recent.seen(l)
		found = append(found, l)
		return nil
	})
	return found, err
}

// Lease reads one lease of the tenant.
func (r *reader) Lease(tenant, id string) (*store.Lease, error) {
	found, err := r.leases("WHERE id = $1 AND tenant = $2", id, tenant)
	if err == nil && len(found) == 0 {
		err = noLease()
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func noLease() error { return fault.New(fault.LeaseNotFound, "there is no such lease") }

// LeasesByUsername looks names up among all leases of the store.
func (r *reader) LeasesByUsername(usernames []string) (map[string]*store.Lease, error) {
	found, err := r.leases("WHERE username = ANY($1)", usernames)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]*store.Lease, len(found))
	for _, l := range found {
		byName[l.Username] = l
	}
	return byName, nil
}

// Leases lists by filter, newest first; see [store.Reader]. What no index is made for is only checked:
// the planner, which knows nothing of a table that has no statistics yet, would gather all that a
// wrong index holds and sort it.
func (r *reader) Leases(f store.LeaseFilter, before string, limit int) ([]*store.Lease, error) {
	var q condition
	q.check("tenant = ?", f.Tenant)
	q.text("username = ?", f.Username)
	q.text("engine_id = ?", f.EngineID)
	q.text("identity = ?", f.Identity)
	if f.TokenID != "" {
		q.and("token_id = ? AND token_id <> ''", f.TokenID)
	}
	live := f.Status != "" && f.Status != api.LeaseRevoked
	if live && f.EngineID+f.Identity+f.TokenID != "" {
		q.and("status <> 'revoked'") // a parameter does not tell the planner that a partial index will do
	}
	if live && f.EngineID != "" {
		q.text("role = ?", f.Role)
	} else {
		q.check("role = ?", f.Role)
	}
	q.check("status = ?", string(f.Status))
	q.moment("(expires_at < ?) IS TRUE", f.ExpiresBefore)
	q.moment("(expires_at > ?) IS TRUE", f.ExpiresAfter)
	q.moment("(issued_at < ?) IS TRUE", f.IssuedBefore)
	if f.Residue {
		q.and("status = 'revoked' AND residue")
	}
	if f.OverdueAt != nil {
		return r.overdueLeases(q, f, before, limit)
	}
	q.text("id < ?", before)
	order := " ORDER BY id DESC" + q.limit(limit)
	return r.leases(q.where()+order, q.args...)
}

// overdueLeases lists what is overdue and meets q. It is found first, in whatever order, and brought
// into the order of the ids then: OFFSET 0 keeps the planner from the other way round, which would go
// through all that is not overdue.
func (r *reader) overdueLeases(q condition, f store.LeaseFilter, before string, limit int) ([]*store.Lease, error) {
	q.and("overdue_at <= ? AND (status <> 'issuing') IS TRUE", micros(*f.OverdueAt))
	if f.EngineID == "" { // leads through the index engine by engine
		q.and("engine_id IN (SELECT engine_id FROM lease_counts)")
	}
	overdue := condition{args: q.args}
	overdue.text("id < ?", before)
	ids := "SELECT id FROM (SELECT id FROM leases " + q.where() + " OFFSET 0) AS overdue " + overdue.where() + " ORDER BY id DESC"
	ids += overdue.limit(limit)
	return r.leases("WHERE id = ANY (ARRAY("+ids+")) ORDER BY id DESC", overdue.args...)
}

// LeaseCounts are the kept counters of an engine, or of all.
func (r *reader) LeaseCounts(engineID string) ([]store.LeaseCount, error) {
	var q condition
	q.text("engine_id = ?", engineID)
	var counts []store.LeaseCount
	err := r.each("SELECT engine_id, role, status, sum(n)::bigint FROM lease_counts "+q.where()+
		" GROUP BY engine_id, role, status HAVING sum(n) <> 0", q.args, func(scan scanFunc) error {
		var c store.LeaseCount
		err := scan(&c.EngineID, &c.Role, (*string)(&c.Status), &c.N)
		counts = append(counts, c)
		return err
	})
	return counts, err
}

// Overdue tells how many leases of the engine should be dead, and since when; see [store.Reader].
func (r *reader) Overdue(engineID string, now time.Time) (n int, oldest time.Time, err error) {
	var since *int64
	_, err = r.one("SELECT count(*), min(overdue_at) FROM leases WHERE engine_id = $1 AND overdue_at <= $2",
		[]any{engineID, micros(now)}, &n, &since)
	if since != nil {
		oldest = moment(*since)
	}
	return n, oldest, err
}

// claimed is the condition that a row's claim is valid at $1: not past its end, and of a node that
// has begun no newer epoch and gave a sign of life within $3 of the database's clock, which is $2. A
// sign that lies further ahead than that was given before the clock was set back. Rows in the
// hands of somebody are skipped one by one: they are as few as the operations at work.
const claimed = `(claim_until IS NOT NULL AND claim_until > $1 AND EXISTS (
	SELECT 1 FROM beats WHERE beats.node = claim_node AND beats.epoch <= claim_epoch
		AND beats.at > $2::bigint - $3::bigint AND beats.at < $2::bigint + $3::bigint))`

// NextDue tells for each engine when its next lease is due; see [store.Reader]. A row under a claim
// of another node is due again when that node may have fallen silent, which the database's clock
// tells, wherever now lies.
func (r *reader) NextDue(now time.Time) (map[string]time.Time, error) {
	next := map[string]time.Time{}
	err := r.each(nextDue, []any{micros(now), micros(r.now), silence.Microseconds(), r.node, now.Sub(r.now).Microseconds()}, func(scan scanFunc) error {
		var id string
		var at int64
		if err := scan(&id, &at); err != nil {
			return err
		}
		if t, ok := next[id]; !ok || moment(at).Before(t) {
			next[id] = moment(at)
		}
		return nil
	})
	return next, err
}

// nextDue steps through the index from engine to engine, whatever lies between, to each one's first
// row that is free; and adds the claimed ones.
const nextDue = `WITH RECURSIVE engines (id) AS (
		(SELECT engine_id FROM leases WHERE due_at IS NOT NULL ORDER BY engine_id LIMIT 1)
		UNION ALL
		SELECT (SELECT engine_id FROM leases WHERE due_at IS NOT NULL AND engine_id > engines.id ORDER BY engine_id LIMIT 1)
		FROM engines WHERE engines.id IS NOT NULL)
	SELECT engines.id, free.due_at FROM engines CROSS JOIN LATERAL (
		SELECT due_at FROM leases WHERE engine_id = engines.id AND due_at IS NOT NULL AND NOT ` + claimed + `
		ORDER BY due_at LIMIT 1) free
	UNION ALL
	SELECT engine_id, min(greatest(due_at, CASE WHEN claim_node = $4 THEN claim_until
		ELSE least(claim_until, (SELECT at FROM beats WHERE beats.node = claim_node) + $3::bigint + $5::bigint) END))
	FROM leases WHERE due_at IS NOT NULL AND claim_until IS NOT NULL AND ` + claimed + ` GROUP BY engine_id`
