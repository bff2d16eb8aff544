package access

import "sync"

// recent is a bounded map that forgets what was not used lately. It holds two generations: a full
// young one becomes the old one, and what is used again moves back. So no sweep is ever needed, and
// a flood of new keys costs at most twice its size in memory. Safe for concurrent use.
type recent[K comparable, V any] struct {
	size int // of one generation

	mu         sync.Mutex
	young, old map[K]V
}

func newRecent[K comparable, V any](size int) *recent[K, V] {
	return &recent[K, V]{size: size, young: map[K]V{}}
}

func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.find(k)
}

func (r *recent[K, V]) put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(k, v)
}

// getOr is the value of the key, made when there is none.
func (r *recent[K, V]) getOr(k K, makeOne func() V) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok := r.find(k)
	if !ok {
		v = makeOne()
		r.keep(k, v)
	}
	return v
}

func (r *recent[K, V]) find(k K) (V, bool) {
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	if ok {
		r.keep(k, v)
	}
	return v, ok
}

func (r *recent[K, V]) keep(k K, v V) {
	if len(r.young) >= r.size {
		r.old, r.young = r.young, make(map[K]V, r.size)
	}
	r.young[k] = v
}
