package postgres

import (
	"time"

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

// Leases lists by filter, newest first; see [store.Reader]. What does not lead is only checked, so that
// no other index is of use.
func (r *reader) Leases(f store.LeaseFilter, before string, limit int) ([]*store.Lease, error) {
	var q condition
	q.check("tenant = ?", f.Tenant)
	q.check("engine_id = ?", f.EngineID)
	q.check("role = ?", f.Role)
	q.check("identity = ?", f.Identity)
	q.check("token_id = ?", f.TokenID)
	q.check("status = ?", string(f.Status))
	q.check("username = ?", f.Username)
	q.moment("(expires_at < ?) IS TRUE", f.ExpiresBefore)
	q.moment("(expires_at > ?) IS TRUE", f.ExpiresAfter)
	q.moment("(issued_at < ?) IS TRUE", f.IssuedBefore)
	if f.OverdueAt != nil {
		q.and("overdue_at <= ? AND (status <> 'issuing') IS TRUE", micros(*f.OverdueAt))
	}
	if f.ListedAt != nil {
		q.and("listed_until > ? AND status IN ('revoking', 'revoked')", micros(*f.ListedAt))
	}
	if f.Residue {
		q.and("(status = 'revoked') IS TRUE AND residue")
	}
	index := f.Index()
	if index.Few {
		return r.few(q, f, before, limit)
	}
	order := q.lead(index, newest, before) + q.limit(limit)
	return r.leases(q.where()+order, q.args...)
}

// few lists what meets q where that is few: what is overdue, or left a residue. It is found first, in
// whatever order, and brought into the order of the ids then: OFFSET 0 keeps the planner from the other
// way round, which would go through all that is not.
func (r *reader) few(q condition, f store.LeaseFilter, before string, limit int) ([]*store.Lease, error) {
	q.text("engine_id = ?", f.EngineID)
	if (f.OverdueAt != nil || f.ListedAt != nil) && f.EngineID == "" { // leads through the index engine by engine
		q.and("engine_id IN (SELECT engine_id FROM lease_counts)")
	}
	found := condition{args: q.args}
	found.text("id < ?", before)
	ids := "SELECT id FROM (SELECT id FROM leases " + q.where() + " OFFSET 0) AS found " + found.where() + " ORDER BY id DESC"
	ids += found.limit(limit)
	return r.leases("WHERE id = ANY (ARRAY("+ids+")) ORDER BY id DESC", found.args...)
}

// direction is of the ids.
type direction string

const (
	newest direction = " DESC"
	oldest direction = " ASC"
)

// lead has the rows found by an index, past an id where one is given, and answers its order. No other
// index can take its place, whatever the planner knows of the table or believes:
//
// The last column ahead of the id lies between two equal bounds. The planner does not take that for one
// value, as it does an equality, so that only an index of that column and the id gives the order.
//
// Past an id, the row of both takes the place of the bound that the search begins at: PostgreSQL 18
// would begin at the other one of the two. The columns before are equal: behind an interval, the end of
// the next column's does not end the search.
func (c *condition) lead(index store.LeaseIndex, first direction, past string) (order string) {
	beyond, end := " < ", " >= "
	if first == oldest {
		beyond, end = " > ", " <= "
	}
	if index.Only != "" {
		c.and(index.Only)
	}
	n := len(index.Columns)
	if n == 0 {
		c.text("id"+beyond+"?", past)
		return " ORDER BY id" + string(first)
	}
	for _, column := range index.Columns[:n-1] {
		c.and(column.Name+" = ?", column.Value)
	}
	last := index.Columns[n-1]
	if past == "" {
		c.and(last.Name+" BETWEEN ? AND ?", last.Value, last.Value)
	} else {
		c.and(last.Name+end+"? AND ("+last.Name+", id)"+beyond+"(?, ?)", last.Value, last.Value, past)
	}
	return " ORDER BY " + last.Name + string(first) + ", id" + string(first)
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
