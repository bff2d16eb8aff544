package seal

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// MetaKey is under what the wrapped keyring is kept in the store.
const MetaKey = "keyring"

// Keyring is the keys of one installation, open. Safe for concurrent use.
type Keyring struct {
	store  store.Store
	seal   Seal
	random io.Reader

	mu      sync.Mutex // one rotation at a time
	current atomic.Pointer[contents]
}

// contents of a keyring: immutable.
type contents struct {
	// Base is what the keys that never rotate are derived from: the audit chain's, the names'.
	Base []byte `json:"base"`
	// Tenants are each tenant's keys, oldest first; the newest encrypts, all decrypt.
	Tenants map[string][][]byte `json:"tenants"`

	aeads map[string][]cipher.AEAD
}

// wrapped is a keyring as it stands in the store.
type wrapped struct {
	Form   int    `json:"form"`
	KeyID  string `json:"key_id"`
	Sealed []byte `json:"sealed"`
}

// Check tells whether the seal opens a keyring as it stands in the store. A node asks before it
// changes anything in a store that it found.
func Check(ctx context.Context, s Seal, stored []byte) error {
	_, err := unwrap(ctx, s, stored)
	return err
}

// Open opens the store's keyring, and makes one where there is none: in an empty store.
func Open(ctx context.Context, st store.Store, s Seal) (*Keyring, error) {
	k := &Keyring{store: st, seal: s, random: rand.Reader}
	fresh, err := k.draw()
	if err != nil {
		return nil, err
	}
	raw, err := wrap(ctx, s, fresh)
	if err != nil {
		return nil, err
	}
	var stored []byte
	err = st.Write(ctx, func(tx store.Tx) error {
		if stored, err = tx.Meta(MetaKey); err != nil || stored != nil {
			return err
		}
		heads, err := tx.AuditHeads()
		if err != nil {
			return err
		}
		if len(heads) > 0 {
			return errors.New("the store holds data and no keyring: restore it from a backup")
		}
		stored = raw
		return tx.PutMeta(MetaKey, raw)
	})
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	c, err := unwrap(ctx, s, stored)
	if err != nil {
		return nil, err
	}
	k.current.Store(c)
	return k, nil
}

// OpenSealed opens a keyring that is part of a backup: it decrypts and derives, and cannot rotate.
func OpenSealed(ctx context.Context, s Seal, stored []byte) (*Keyring, error) {
	c, err := unwrap(ctx, s, stored)
	if err != nil {
		return nil, err
	}
	k := &Keyring{seal: s, random: rand.Reader}
	k.current.Store(c)
	return k, nil
}

func (k *Keyring) draw() (*contents, error) {
	base, err := k.newKey()
	if err != nil {
		return nil, err
	}
	first, err := k.newKey()
	if err != nil {
		return nil, err
	}
	return &contents{Base: base, Tenants: map[string][][]byte{store.DefaultTenant: {first}}}, nil
}

func (k *Keyring) newKey() ([]byte, error) {
	key := make([]byte, keySize)
	if _, err := io.ReadFull(k.random, key); err != nil {
		return nil, fmt.Errorf("draw a key: %w", err)
	}
	return key, nil
}

func wrap(ctx context.Context, s Seal, c *contents) ([]byte, error) {
	plaintext, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	sealed, err := s.Wrap(ctx, plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal keyring: %w", err)
	}
	return json.Marshal(wrapped{Form: 1, KeyID: s.ID(), Sealed: sealed})
}

func unwrap(ctx context.Context, s Seal, stored []byte) (*contents, error) {
	var w wrapped
	if err := json.Unmarshal(stored, &w); err != nil || w.Form != 1 {
		return nil, errors.New("open keyring: what the store holds is damaged, or of a newer release")
	}
	if w.KeyID != s.ID() {
		return nil, fmt.Errorf("open keyring: the data were sealed by key %s, and this key is %s: %w", w.KeyID, s.ID(), ErrOtherKey)
	}
	plaintext, err := s.Unwrap(ctx, w.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open keyring: %w", err)
	}
	c := &contents{}
	if err := json.Unmarshal(plaintext, c); err != nil {
		return nil, errors.New("open keyring: what the store holds is damaged")
	}
	c.aeads = make(map[string][]cipher.AEAD, len(c.Tenants))
	for tenant, keys := range c.Tenants {
		for _, key := range keys {
			aead, err := newAEAD(key)
			if err != nil {
				return nil, errors.New("open keyring: what the store holds is damaged")
			}
			c.aeads[tenant] = append(c.aeads[tenant], aead)
		}
	}
	return c, nil
}

// AuditKey is the key of the audit chain's MAC. It stays the same for the life of the store.
func (k *Keyring) AuditKey() ([]byte, error) { return k.derive("scaivault audit chain") }

// NameKey is the key of the checksum in account names (law L11). It stays the same, too.
func (k *Keyring) NameKey() ([]byte, error) { return k.derive("scaivault account names") }

// BackupKey is the key of the MAC over a backup: who has only the recipients' public keys can
// encrypt a file to them, but not make one that is restored. It stays the same, too.
func (k *Keyring) BackupKey() ([]byte, error) { return k.derive("scaivault backup") }

func (k *Keyring) derive(use string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, k.current.Load().Base, nil, use, keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	return key, nil
}

// RotateTenant gives the tenant a newer key, durable when it returns. What is there stays readable
// and is not written again.
func (k *Keyring) RotateTenant(ctx context.Context, tenant string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, err := k.newKey()
	if err != nil {
		return err
	}
	var next *contents
	err = k.store.Write(ctx, func(tx store.Tx) error {
		stored, err := tx.Meta(MetaKey)
		if err != nil {
			return err
		}
		now, err := unwrap(ctx, k.seal, stored) // another node may have rotated
		if err != nil {
			return err
		}
		next = &contents{Base: now.Base, Tenants: maps.Clone(now.Tenants)}
		next.Tenants[tenant] = append(next.Tenants[tenant][:len(next.Tenants[tenant]):len(next.Tenants[tenant])], key)
		raw, err := wrap(ctx, k.seal, next)
		if err != nil {
			return err
		}
		if next, err = unwrap(ctx, k.seal, raw); err != nil {
			return err
		}
		return tx.PutMeta(MetaKey, raw)
	})
	if err != nil {
		return fault.From(fmt.Errorf("rotate the tenant's key: %w", err))
	}
	k.current.Store(next)
	return nil
}
