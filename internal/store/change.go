package store

import (
	"slices"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
)

// Next is the object as it is stored in the place of old, nil for none, at a moment: version_conflict
// unless old has the version that the writer knows (0: there is none; [AnyVersion]: no matter).
func (o *Object) Next(old *Object, ifVersion int64, now time.Time) (*Object, error) {
	next := o.Clone()
	next.Doc = slices.Clone(o.Doc)
	next.Version, next.CreatedAt, next.UpdatedAt = 1, now, now
	stored := int64(0)
	if old != nil {
		stored = old.Version
		next.Version, next.CreatedAt = old.Version+1, old.CreatedAt
	}
	if ifVersion != AnyVersion && ifVersion != stored {
		return nil, fault.New(fault.VersionConflict, "the %s has changed meanwhile; read it again", o.Kind).
			With("version", stored)
	}
	return next, nil
}

// Edited is the object as it is stored after fn has changed a copy of it. What names an object is
// not fn's to change.
func (o *Object) Edited(fn func(o *Object) error, now time.Time) (*Object, error) {
	edited := o.Clone()
	if err := fn(edited); err != nil {
		return nil, err
	}
	next := edited.Clone()
	next.Tenant, next.Kind, next.ID, next.CreatedAt = o.Tenant, o.Kind, o.ID, o.CreatedAt
	next.Doc = slices.Clone(next.Doc)
	next.Version, next.UpdatedAt = o.Version+1, now
	return next, nil
}

// Absent is the answer to an object that is not there.
func (k Kind) Absent() error { return fault.New(k.NotFound(), "there is no such %s", k) }

// Taken is the answer to an object whose key another has.
func (k Kind) Taken() error { return fault.New(k.Exists(), "there is already a %s of this name", k) }

// Change is one object of the configuration written or removed.
type Change struct {
	Object *Object
	Gone   bool
}

// Changes are those of a transaction, in their order.
type Changes []Change

// Net is what the changes come to, for [Config.With]: for each object the last one.
func (cs Changes) Net() (put, gone []*Object) {
	type id struct {
		tenant string
		kind   Kind
		id     string
	}
	seen := map[id]bool{}
	for _, c := range slices.Backward(cs) {
		k := id{c.Object.Tenant, c.Object.Kind, c.Object.ID}
		if seen[k] {
			continue
		}
		seen[k] = true
		if c.Gone {
			gone = append(gone, c.Object)
		} else {
			put = append(put, c.Object)
		}
	}
	return put, gone
}
