// Package lock lets one process at a time, of all nodes that share a store, do what must not be done
// twice at once: rotate a root, reconcile an engine. Locks stand in the store, so in the embedded
// one they order the goroutines of the one node.
//
// A lock is void when its holder's node fell silent or began a newer epoch, or when it runs out,
// whichever is first; so a holder that died is followed within seconds. A holder that only stood
// still does not know that it was followed: therefore every lock bears a number that grows with each
// holder, and what is written back under a lock is written in a transaction that asks [Lock.Guard].
// What the holder may still do outside the store, at a source, no lock can prevent: that must be
// harmless by itself.
package lock

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/scaivault/scaivault/internal/store"
)

var (
	// ErrHeld is Acquire's answer when another holder has the lock.
	ErrHeld = errors.New("the lock is held by another")
	// ErrLost is Guard's answer when the lock ran out or went to another holder.
	ErrLost = errors.New("the lock was lost")
)

// clockStep is how far the store's clock may be set back without making locks void that were taken
// before: one that lies further in the future was taken by a clock that was wrong.
const clockStep = time.Minute

// Lock is a lock that is held. Its methods are safe for concurrent use.
type Lock struct {
	store store.Store
	key   string
	held  holder
}

// holder is what the store keeps of a lock.
type holder struct {
	Node   string    `json:"node"` // "": free
	Epoch  int64     `json:"epoch"`
	Number int64     `json:"number"` // never used twice
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
}

// Acquire takes the lock of a name for at most the time given, or fails with ErrHeld at once. Any
// other error is the store's. The holder releases it.
func Acquire(ctx context.Context, s store.Store, name string, hold time.Duration) (*Lock, error) {
	l := &Lock{store: s, key: "lock/" + name}
	err := s.Write(ctx, func(tx store.Tx) error {
		_, last, err := read(tx, l.key)
		if err != nil {
			return err
		}
		valid, err := last.valid(tx)
		if err != nil {
			return err
		}
		if valid {
			return ErrHeld
		}
		now := tx.Now()
		l.held = holder{Node: s.Node(), Epoch: s.Epoch(), Number: last.Number + 1, Since: now, Until: now.Add(hold)}
		return put(tx, l.key, l.held)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Number is greater than that of every holder before.
func (l *Lock) Number() int64 { return l.held.Number }

// Guard fails with ErrLost unless the lock is still held, and keeps it held until the transaction
// is committed: what the transaction writes is written by the one holder, or not at all.
func (l *Lock) Guard(tx store.Tx) error {
	raw, now, err := read(tx, l.key)
	if err != nil {
		return err
	}
	if now.Number != l.held.Number || now.Node == "" || !tx.Now().Before(now.Until) {
		return ErrLost
	}
	return tx.PutMeta(l.key, raw) // a holder that takes it over meanwhile writes it, too: one of both begins anew
}

// Extend holds the lock for at most the time given from now on; ErrLost when it is lost.
func (l *Lock) Extend(ctx context.Context, hold time.Duration) error {
	return l.store.Write(ctx, func(tx store.Tx) error {
		if err := l.Guard(tx); err != nil {
			return err
		}
		next := l.held
		next.Since = tx.Now()
		next.Until = next.Since.Add(hold)
		return put(tx, l.key, next)
	})
}

// Release lets others have the lock at once. It does so also when ctx has ended; a store that is
// lost leaves the lock to run out. Releasing one that was lost does nothing.
func (l *Lock) Release(ctx context.Context) error {
	return l.store.Write(context.WithoutCancel(ctx), func(tx store.Tx) error {
		_, now, err := read(tx, l.key)
		if err != nil || now.Number != l.held.Number {
			return err
		}
		return put(tx, l.key, holder{Number: now.Number})
	})
}

func read(r store.Reader, key string) (raw []byte, h holder, err error) {
	if raw, err = r.Meta(key); err == nil && len(raw) > 0 {
		err = json.Unmarshal(raw, &h)
	}
	return raw, h, err
}

func put(tx store.Tx, key string, h holder) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return tx.PutMeta(key, raw)
}

// valid tells whether the holder still has the lock.
func (h holder) valid(r store.Reader) (bool, error) {
	now := r.Now()
	if h.Node == "" || !now.Before(h.Until) || h.Since.After(now.Add(clockStep)) {
		return false, nil
	}
	return r.Alive(h.Node, h.Epoch)
}
