package sqlite

import (
	"cmp"
	"database/sql"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

// leases reads those of a condition; keep tells that the statement is prepared once.
func (r *reader) leases(keep bool, condition string, args ...any) ([]*store.Lease, error) {
	var found []*store.Lease
	read := r.conn.eachOnce
	if keep {
		read = r.conn.each
	}
	err := read("SELECT "+leaseList+" FROM leases "+condition, args, func(scan scanFunc) error {
		row, err := scanLease(scan)
		if err != nil {
			return err
		}
		l, err := decodeLease(row)
		if err != nil {
			return damaged("lease", err)
		}
		found = append(found, l)
		return nil
	})
	return found, err
}

// Lease reads one lease of the tenant.
func (r *reader) Lease(tenant, id string) (*store.Lease, error) {
	found, err := r.leases(true, "WHERE id = ? AND tenant = ?", id, tenant)
	if err == nil && len(found) == 0 {
		err = noLease()
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// LeasesByUsername looks names up among all leases of the store.
func (r *reader) LeasesByUsername(usernames []string) (map[string]*store.Lease, error) {
	byName := make(map[string]*store.Lease, len(usernames))
	for _, name := range usernames {
		found, err := r.leases(true, "WHERE username = ?", name)
		if err != nil {
			return nil, err
		}
		for _, l := range found {
			byName[name] = l
		}
	}
	return byName, nil
}

// Leases lists by filter, newest first; see [store.Reader].
func (r *reader) Leases(f store.LeaseFilter, before string, limit int) ([]*store.Lease, error) {
	condition, args := leasesWhere(f, before, limit)
	return r.leases(false, condition, args...)
}

func leasesWhere(f store.LeaseFilter, before string, limit int) (string, []any) {
	var q condition
	q.text("tenant = ?", f.Tenant)
	q.text("engine_id = ?", f.EngineID)
	q.text("role = ?", f.Role)
	q.text("identity = ?", f.Identity)
	q.text("token_id = ?", f.TokenID)
	q.text("status = ?", string(f.Status))
	q.text("username = ?", f.Username)
	q.moment("expires_at < ?", f.ExpiresBefore)
	q.moment("expires_at > ?", f.ExpiresAfter)
	q.moment("issued_at < ?", f.IssuedBefore)
	q.moment("overdue_at <= ?", f.OverdueAt)
	if f.OverdueAt != nil {
		q.and("status <> 'issuing'")
	}
	q.moment("listed_until > ?", f.ListedAt)
	if f.Residue {
		q.and("status = 'revoked' AND residue = 1")
	}
	if before != "" {
		q.and("id < ?", before)
	}
	index := f.Index()
	if index.Few && f.EngineID == "" { // leads through the index engine by engine
		q.and("engine_id IN (SELECT engine_id FROM lease_counts)")
	}
	by := q.by(index)
	return by + q.where() + " ORDER BY id DESC LIMIT ?", append(q.args, all(limit))
}

// by has the leases found by an index.
func (c *condition) by(index store.LeaseIndex) string {
	if index.Only != "" {
		c.and(index.Only) // SQLite takes a partial index only where its condition stands word for word
	}
	return "INDEXED BY " + cmp.Or(index.Name, "sqlite_autoindex_leases_1") + " "
}

// LeaseCounts are the kept counters of an engine, or of all.
func (r *reader) LeaseCounts(engineID string) ([]store.LeaseCount, error) {
	var counts []store.LeaseCount
	query, args := "SELECT engine_id, role, status, n FROM lease_counts WHERE n <> 0", []any(nil)
	if engineID != "" {
		query, args = query+" AND engine_id = ?", []any{engineID}
	}
	err := r.conn.each(query, args, func(scan scanFunc) error {
		var c store.LeaseCount
		err := scan(&c.EngineID, &c.Role, &c.Status, &c.N)
		counts = append(counts, c)
		return err
	})
	return counts, err
}

// Overdue tells how many leases of the engine should be dead, and since when; see [store.Reader].
func (r *reader) Overdue(engineID string, now time.Time) (n int, oldest time.Time, err error) {
	var since sql.NullInt64
	_, err = r.conn.one(`SELECT count(*), min(overdue_at) FROM leases INDEXED BY leases_overdue
		WHERE engine_id = ? AND overdue_at <= ? AND overdue_at IS NOT NULL`, []any{engineID, micros(now)}, &n, &since)
	if since.Valid {
		oldest = moment(since.Int64)
	}
	return n, oldest, err
}

// NextDue tells for each engine when its next lease is due; see [store.Reader].
func (r *reader) NextDue(now time.Time) (map[string]time.Time, error) {
	var engines []string
	err := r.conn.each(enginesDue, nil, func(scan scanFunc) error {
		var id string
		err := scan(&id)
		engines = append(engines, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	next := make(map[string]time.Time, len(engines))
	for _, id := range engines {
		if at, ok, err := r.nextDue(id, now); err != nil {
			return nil, err
		} else if ok {
			next[id] = at
		}
	}
	return next, nil
}

// enginesDue steps through the index from engine to engine, whatever lies between.
const enginesDue = `WITH RECURSIVE engines (id) AS (
		SELECT min(engine_id) FROM leases INDEXED BY leases_due WHERE due_at IS NOT NULL
		UNION ALL
		SELECT (SELECT min(engine_id) FROM leases INDEXED BY leases_due WHERE due_at IS NOT NULL AND engine_id > engines.id)
		FROM engines WHERE engines.id IS NOT NULL)
	SELECT id FROM engines WHERE id IS NOT NULL`

// nextDue goes through the engine's rows in the order of their moments, over those under a valid
// claim, which are due at its end, to the first that is free: none after it can be earlier.
func (r *reader) nextDue(engineID string, now time.Time) (next time.Time, found bool, err error) {
	err = r.conn.each(`SELECT due_at, claim_until, `+unclaimed+` FROM leases INDEXED BY leases_due
		WHERE engine_id = ? AND due_at IS NOT NULL ORDER BY due_at`,
		[]any{micros(now), r.node, r.epoch, engineID}, func(scan scanFunc) error {
			var due int64
			var until sql.NullInt64
			var free bool
			if err := scan(&due, &until, &free); err != nil {
				return err
			}
			at := due
			if !free {
				at = max(due, until.Int64)
			}
			if !found || moment(at).Before(next) {
				next, found = moment(at), true
			}
			if free {
				return errStop
			}
			return nil
		})
	return next, found, err
}

// condition collects the parts of a WHERE.
type condition struct {
	parts []string
	args  []any
}

func (c *condition) and(part string, args ...any) {
	c.parts = append(c.parts, part)
	c.args = append(c.args, args...)
}

func (c *condition) text(part, value string) {
	if value != "" {
		c.and(part, value)
	}
}

func (c *condition) moment(part string, t *time.Time) {
	if t != nil {
		c.and(part, micros(*t))
	}
}

func (c *condition) where() string {
	if len(c.parts) == 0 {
		return ""
	}
	return "WHERE " + strings.Join(c.parts, " AND ")
}
