package postgres

import (
	"encoding/json"
	"strings"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

const objectColumns = "tenant, kind, id, key, doc, version, rev, created_at, updated_at"

func scanObject(scan scanFunc) (*store.Object, error) {
	o := &store.Object{}
	var doc string
	var created, updated int64
	if err := scan(&o.Tenant, (*string)(&o.Kind), &o.ID, &o.Key, &doc, &o.Version, &o.Rev, &created, &updated); err != nil {
		return nil, err
	}
	o.Doc, o.CreatedAt, o.UpdatedAt = json.RawMessage(doc), moment(created), moment(updated)
	return o, nil
}

// objects reads those of a condition.
func (r *reader) objects(where string, args ...any) ([]*store.Object, error) {
	var all []*store.Object
	err := r.each("SELECT "+objectColumns+" FROM objects WHERE "+where, args, func(scan scanFunc) error {
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

const byID = "tenant = $1 AND kind = $2 AND id = $3"

// Object reads one object by id.
func (r *reader) Object(tenant string, kind store.Kind, id string) (*store.Object, error) {
	return r.object(byID, kind, tenant, string(kind), id)
}

// ObjectByKey reads one object by key.
func (r *reader) ObjectByKey(tenant string, kind store.Kind, key string) (*store.Object, error) {
	return r.object("tenant = $1 AND kind = $2 AND key = $3", kind, tenant, string(kind), key)
}

// Objects reads those of a kind by key prefix, after a key.
func (r *reader) Objects(tenant string, kind store.Kind, prefix, afterKey string, limit int) ([]*store.Object, error) {
	var q condition
	q.and("tenant = ? AND kind = ? AND key >= ?", tenant, string(kind), max(prefix, afterKey))
	q.text("key > ?", afterKey)
	if end, ok := after(prefix); ok {
		q.and("key < ?", end)
	}
	end := " ORDER BY key" + q.limit(limit)
	return r.objects(strings.Join(q.parts, " AND ")+end, q.args...)
}

// PutObject creates or replaces an object; see [store.Tx].
func (t *tx) PutObject(o *store.Object, ifVersion int64) error {
	old, err := t.forChange(o.Tenant, o.Kind, o.ID)
	if err != nil && fault.CodeOf(err) != o.Kind.NotFound() {
		return err
	}
	next, err := o.Next(old, ifVersion, t.Now())
	if err != nil {
		return err
	}
	if err := t.putObject(next, old); err != nil {
		return err
	}
	o.Version, o.Rev, o.CreatedAt, o.UpdatedAt = next.Version, next.Rev, next.CreatedAt, next.UpdatedAt
	return nil
}

// UpdateObject reads, changes and writes an object; see [store.Tx].
func (t *tx) UpdateObject(tenant string, kind store.Kind, id string, fn func(o *store.Object) error) error {
	o, err := t.forChange(tenant, kind, id)
	if err != nil {
		return err
	}
	next, err := o.Edited(fn, t.Now())
	if err != nil {
		return err
	}
	return t.putObject(next, o)
}

// forChange reads an object that no other node changes before the commit: all that are cached are
// under the configuration's lock, others under their row's.
func (t *tx) forChange(tenant string, kind store.Kind, id string) (*store.Object, error) {
	if kind.Cached() {
		if err := t.lockConfig(); err != nil {
			return nil, err
		}
		return t.Object(tenant, kind, id)
	}
	return t.object(byID+" FOR NO KEY UPDATE", kind, tenant, string(kind), id)
}

// putObject writes o, which nobody else has, in place of old, and makes it part of the next Config.
func (t *tx) putObject(o, old *store.Object) error {
	if old == nil || old.Key != o.Key {
		var taken bool
		_, err := t.one("SELECT true FROM objects WHERE tenant = $1 AND kind = $2 AND key = $3 AND id <> $4",
			[]any{o.Tenant, string(o.Kind), o.Key, o.ID}, &taken)
		if err != nil {
			return err
		}
		if taken {
			return o.Kind.Taken()
		}
	}
	o.Rev = t.state.rev
	if o.Kind.Cached() || o.Version > 1 {
		if err := t.move(); err != nil {
			return err
		}
		o.Rev = t.state.rev
	}
	args := []any{o.Tenant, string(o.Kind), o.ID, o.Key, string(o.Doc), o.Version, o.Rev, micros(o.CreatedAt), micros(o.UpdatedAt)}
	sql := "INSERT INTO objects (" + objectColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
	if old != nil {
		sql = "UPDATE objects SET key = $4, doc = $5, version = $6, rev = $7, created_at = $8, updated_at = $9 WHERE " + byID
	}
	err := t.write(sql, args...)
	if err == nil && o.Kind.Cached() {
		t.state.changes = append(t.state.changes, store.Change{Object: o})
	}
	return err
}

// DeleteObject removes an object; see [store.Tx].
func (t *tx) DeleteObject(tenant string, kind store.Kind, id string) error {
	if _, err := t.forChange(tenant, kind, id); err != nil {
		return err
	}
	if err := t.move(); err != nil {
		return err
	}
	if err := t.write("DELETE FROM objects WHERE "+byID, tenant, string(kind), id); err != nil || !kind.Cached() {
		return err
	}
	t.state.changes = append(t.state.changes, store.Change{Object: &store.Object{Tenant: tenant, Kind: kind, ID: id}, Gone: true})
	return t.write(`INSERT INTO removed_objects (tenant, kind, id, rev, removed_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, kind, id) DO UPDATE SET rev = excluded.rev, removed_at = excluded.removed_at`,
		tenant, string(kind), id, t.state.rev, micros(t.Now()))
}

// move gives the configuration a new revision, one for all that a function changes.
func (t *tx) move() error {
	if err := t.lockConfig(); err != nil {
		return err
	}
	if !t.moved {
		t.moved = true
		t.state.rev++
	}
	return nil
}

// lockConfig takes the right to change the configuration, for the rest of the transaction. What
// the functions decided so far must still hold: the revision is still that of the beginning.
func (t *tx) lockConfig() error {
	if t.locked {
		return nil
	}
	free := false
	var rev int64
	err := t.each("SELECT config_rev FROM store_state FOR NO KEY UPDATE SKIP LOCKED", nil, func(scan scanFunc) error {
		free = true
		return scan(&rev)
	})
	if err != nil {
		return err
	}
	if !free || rev != t.begun {
		t.config = true
		return t.fail(errNeedLock)
	}
	t.locked = true
	return nil
}
