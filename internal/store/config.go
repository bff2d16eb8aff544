package store

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/fault"
)

// Config is the configuration at one revision: immutable. Lookups never touch the database.
type Config struct {
	Rev   int64
	kinds map[scope]*objects
}

type scope struct {
	tenant string
	kind   Kind
}

// objects of one scope; byKey is sorted by key.
type objects struct {
	byID  map[string]*Object
	byKey []*Object
}

// NewConfig makes the configuration of a revision from all its objects.
func NewConfig(rev int64, all []*Object) *Config {
	return (&Config{}).With(rev, all, nil)
}

// With is the configuration after a commit: put replaces or adds, gone removes. c is unchanged.
func (c *Config) With(rev int64, put, gone []*Object) *Config {
	next := &Config{Rev: rev, kinds: make(map[scope]*objects, len(c.kinds)+1)}
	for k, v := range c.kinds {
		next.kinds[k] = v
	}
	changed := map[scope]map[string]*Object{}
	change := func(o *Object, v *Object) {
		k := scope{o.Tenant, o.Kind}
		if changed[k] == nil {
			changed[k] = map[string]*Object{}
		}
		changed[k][o.ID] = v
	}
	for _, o := range gone {
		change(o, nil)
	}
	for _, o := range put {
		change(o, o)
	}
	for k, ids := range changed {
		next.kinds[k] = c.kinds[k].with(ids)
	}
	return next
}

func (s *objects) with(changed map[string]*Object) *objects {
	n := &objects{byID: map[string]*Object{}}
	if s != nil {
		for id, o := range s.byID {
			n.byID[id] = o
		}
	}
	for id, o := range changed {
		if o == nil {
			delete(n.byID, id)
		} else {
			n.byID[id] = o
		}
	}
	n.byKey = make([]*Object, 0, len(n.byID))
	for _, o := range n.byID {
		n.byKey = append(n.byKey, o)
	}
	sort.Slice(n.byKey, func(i, j int) bool { return n.byKey[i].Key < n.byKey[j].Key })
	return n
}

// Object finds one by id; nil when absent.
func (c *Config) Object(tenant string, kind Kind, id string) *Object {
	s := c.kinds[scope{tenant, kind}]
	if s == nil {
		return nil
	}
	return s.byID[id]
}

// ByKey finds one by key; nil when absent.
func (c *Config) ByKey(tenant string, kind Kind, key string) *Object {
	if rest := c.from(tenant, kind, key); len(rest) > 0 && rest[0].Key == key {
		return rest[0]
	}
	return nil
}

// List is all of a kind whose key has the prefix, in the order of the keys.
func (c *Config) List(tenant string, kind Kind, prefix string) []*Object {
	all := c.from(tenant, kind, prefix)
	end := sort.Search(len(all), func(i int) bool { return !strings.HasPrefix(all[i].Key, prefix) })
	return all[:end]
}

func (c *Config) from(tenant string, kind Kind, key string) []*Object {
	s := c.kinds[scope{tenant, kind}]
	if s == nil {
		return nil
	}
	return s.byKey[sort.Search(len(s.byKey), func(i int) bool { return s.byKey[i].Key >= key }):]
}

// decoded caches what a document decodes to, since objects are immutable once stored.
type decoded struct{ v atomic.Value }

// Decode is o's document as a T, decoded once per object: the result is shared, so it is read
// only. One object is always decoded to one type.
func Decode[T any](o *Object) (*T, error) {
	if v, ok := o.decoded.v.Load().(*T); ok {
		return v, nil
	}
	v := new(T)
	if err := json.Unmarshal(o.Doc, v); err != nil {
		return nil, fault.New(fault.InternalError, "internal error").Because(
			fmt.Errorf("decode %s %s: %w", o.Kind, o.ID, err))
	}
	o.decoded.v.Store(v)
	return v, nil
}

// Clone is a copy that may be changed: it does not carry what the document decoded to.
func (o *Object) Clone() *Object {
	return &Object{Tenant: o.Tenant, Kind: o.Kind, ID: o.ID, Key: o.Key, Doc: o.Doc,
		Version: o.Version, Rev: o.Rev, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
}
