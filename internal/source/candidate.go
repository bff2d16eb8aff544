package source

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/scaivault/scaivault/internal/lock"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// candidate is a root that a rotation was about to set. It belongs to the root secret, not to one of
// the engines that share it.
type candidate struct {
	From   int               `json:"from"`   // version of the root secret that it was made from
	Fields map[string]string `json:"fields"` // the next version's

	fields map[string]statement.Secret
	sealed []byte // as it is stored
}

func candidateKey(tenant, path string) string { return "root_candidate/" + tenant + "/" + path }

func candidatePlace(e *Engine) seal.Place {
	return seal.Place{Tenant: e.Tenant, Table: "root_candidate", Path: e.Config.RootCredentialsPath, Version: 1}
}

// keep makes the next root durable, sealed, in the place of the former candidate, nil for none:
// version_conflict when that is no longer what is stored, or the lock was lost.
func (s *Service) keep(ctx context.Context, e *Engine, alone *lock.Lock, former, c *candidate) (*candidate, error) {
	c.Fields = make(map[string]string, len(c.fields))
	for k, v := range c.fields {
		c.Fields[k] = v.Reveal()
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	if c.sealed, err = s.keys.Encrypt(candidatePlace(e), raw); err != nil {
		return nil, err
	}
	return c, s.exchange(ctx, e, alone, former, c)
}

// forget drops a candidate that the source will never have.
func (s *Service) forget(ctx context.Context, e *Engine, alone *lock.Lock, c *candidate) error {
	return s.exchange(context.WithoutCancel(ctx), e, alone, c, nil)
}

// exchange puts one candidate in the place of another, nil for none.
func (s *Service) exchange(ctx context.Context, e *Engine, alone *lock.Lock, former, next *candidate) error {
	var was, will []byte
	if former != nil {
		was = former.sealed
	}
	if next != nil {
		will = next.sealed
	}
	return s.store.Write(ctx, func(tx store.Tx) error {
		if err := alone.Guard(tx); err != nil {
			return rotatedElsewhere(e)
		}
		kept, err := tx.Meta(candidateKey(e.Tenant, e.Config.RootCredentialsPath))
		if err != nil {
			return err
		}
		if !bytes.Equal(kept, was) {
			return rotatedElsewhere(e)
		}
		return tx.PutMeta(candidateKey(e.Tenant, e.Config.RootCredentialsPath), will)
	})
}

// candidate is the root that a rotation was about to set, nil when there is none.
func (s *Service) candidate(ctx context.Context, e *Engine) (*candidate, error) {
	c := new(candidate)
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		c.sealed, err = r.Meta(candidateKey(e.Tenant, e.Config.RootCredentialsPath))
		return err
	})
	if err != nil || len(c.sealed) == 0 {
		return nil, err
	}
	raw, err := s.keys.Decrypt(candidatePlace(e), c.sealed)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, err
	}
	c.fields = make(map[string]statement.Secret, len(c.Fields))
	for k, v := range c.Fields {
		c.fields[k] = statement.Secret(v)
	}
	return c, nil
}

// ForgetRoot drops what is kept beside a root secret, in the transaction in which the secret goes for
// good. It outlives the engines: what was set at the source and is not in the secret yet is found
// out by the next engine that uses the secret, and is in no other place.
func (s *Service) ForgetRoot(tx store.Tx, tenant, path string) error {
	for _, key := range []string{candidateKey(tenant, path), previousKey(tenant, path)} {
		kept, err := tx.Meta(key)
		if err == nil && len(kept) > 0 {
			err = tx.PutMeta(key, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
