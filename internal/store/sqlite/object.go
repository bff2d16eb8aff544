package sqlite

import (
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const objectColumns = "tenant, kind, id, key, doc, version, rev, created_at, updated_at"

func scanObject(scan scanFunc) (*store.Object, error) {
	o := &store.Object{}
	var created, updated int64
	if err := scan(&o.Tenant, &o.Kind, &o.ID, &o.Key, (*[]byte)(&o.Doc), &o.Version, &o.Rev, &created, &updated); err != nil {
		return nil, err
	}
	o.CreatedAt, o.UpdatedAt = moment(created), moment(updated)
	return o, nil
}

// objects reads those of a condition.
func (r *reader) objects(where string, args ...any) ([]*store.Object, error) {
	var all []*store.Object
	err := r.conn.each("SELECT "+objectColumns+" FROM objects WHERE "+where, args, func(scan scanFunc) error {
		o, err := scanObject(scan)
		all = append(all, o)
		return err
	})
	return all, err
}

func (r *reader) object(where string, kind store.Kind, args ...any) (*store.Object, error) {
	found, err := r.objects(where, args...)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, kind.Absent()
	}
	return found[0], nil
}

// cachedObjects are all that [store.Config] holds.
func (r *reader) cachedObjects() ([]*store.Object, error) {
	return r.objects("kind <> ?", string(store.KindToken))
}

// Object reads one object by id.
func (r *reader) Object(tenant string, kind store.Kind, id string) (*store.Object, error) {
	return r.object("tenant = ? AND kind = ? AND id = ?", kind, tenant, string(kind), id)
}

// ObjectByKey reads one object by key.
func (r *reader) ObjectByKey(tenant string, kind store.Kind, key string) (*store.Object, error) {
	return r.object("tenant = ? AND kind = ? AND key = ?", kind, tenant, string(kind), key)
}

// Objects reads those of a kind by key prefix, after a key.
func (r *reader) Objects(tenant string, kind store.Kind, prefix, afterKey string, limit int) ([]*store.Object, error) {
	where := "tenant = ? AND kind = ? AND key >= ? AND (key > ? OR ? = '')"
	args := []any{tenant, string(kind), max(prefix, afterKey), afterKey, afterKey}
	if end, ok := after(prefix); ok {
		where += " AND key < ?"
		args = append(args, end)
	}
	where += " ORDER BY key LIMIT ?"
	return r.objects(where, append(args, all(limit))...)
}

// all is a limit in SQL, where -1 means none.
func all(limit int) int {
	if limit <= 0 {
		return -1
	}
	return limit
}

// PutObject creates or replaces an object; see [store.Tx].
func (t *tx) PutObject(o *store.Object, ifVersion int64) error {
	old, err := t.Object(o.Tenant, o.Kind, o.ID)
	if err != nil && fault.CodeOf(err) != o.Kind.NotFound() {
		return err
	}
	next, err := o.Next(old, ifVersion, t.Now())
	if err != nil {
		return err
	}
	if err := t.putObject(next); err != nil {
		return err
	}
	o.Version, o.Rev, o.CreatedAt, o.UpdatedAt = next.Version, next.Rev, next.CreatedAt, next.UpdatedAt
	return nil
}

// UpdateObject reads, changes and writes an object; see [store.Tx].
func (t *tx) UpdateObject(tenant string, kind store.Kind, id string, fn func(o *store.Object) error) error {
	o, err := t.Object(tenant, kind, id)
	if err != nil {
		return err
	}
	next, err := o.Edited(fn, t.Now())
	if err != nil {
		return err
	}
	return t.putObject(next)
}

// putObject writes o, which nobody else has, and makes it part of the next Config.
func (t *tx) putObject(o *store.Object) error {
	o.Rev = t.state.rev
	if o.Kind.Cached() || o.Version > 1 {
		o.Rev = t.move()
	}
	err := t.write("INSERT INTO objects ("+objectColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (tenant, kind, id) DO UPDATE SET key = excluded.key, doc = excluded.doc,
			version = excluded.version, rev = excluded.rev, updated_at = excluded.updated_at`,
		o.Tenant, string(o.Kind), o.ID, o.Key, string(o.Doc), o.Version, o.Rev, micros(o.CreatedAt), micros(o.UpdatedAt))
	if _, taken := unique(err); taken {
		return o.Kind.Taken()
	}
	if err == nil && o.Kind.Cached() {
		t.state.changes = append(t.state.changes, store.Change{Object: o})
	}
	return err
}

// DeleteObject removes an object; see [store.Tx].
func (t *tx) DeleteObject(tenant string, kind store.Kind, id string) error {
	n, err := t.change("DELETE FROM objects WHERE tenant = ? AND kind = ? AND id = ?", tenant, string(kind), id)
	if err != nil {
		return err
	}
	if n == 0 {
		return kind.Absent()
	}
	t.move()
	if kind.Cached() {
		gone := &store.Object{Tenant: tenant, Kind: kind, ID: id}
		t.state.changes = append(t.state.changes, store.Change{Object: gone, Gone: true})
	}
	return nil
}

// move gives the configuration a new revision, one for all that a function changes.
func (t *tx) move() int64 {
	if !t.moved {
		t.moved = true
		t.state.rev++
	}
	return t.state.rev
}
