package secret

import (
	"context"
	"strings"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Delete removes a secret; it can be brought back for 30 days.
func (s *Service) Delete(ctx context.Context, c *access.Caller, path string) (*api.SecretDeleted, error) {
	var a *api.SecretDeleted
	err := s.remove(ctx, c, path, false, func(tx store.Tx) error {
		sec, err := live(tx, c.Tenant, path)
		if err != nil {
			return err
		}
		now := tx.Now()
		until := now.Add(retention)
		sec.DeletedAt, sec.RecoverableUntil, sec.UpdatedAt = &now, &until, now
		sec.RotateAt, sec.RotateDueAt = nil, nil
		a = &api.SecretDeleted{Path: path, DeletedAt: now, RecoverableUntil: until}
		return tx.PutSecret(sec)
	})
	return a, err
}

// Destroy removes a secret with all its versions, for good, also one that was deleted before.
func (s *Service) Destroy(ctx context.Context, c *access.Caller, path string) error {
	return s.remove(ctx, c, path, true, func(tx store.Tx) error {
		return s.destroy(tx, c.Tenant, path)
	})
}

// destroy removes all of a secret, and what others keep beside it.
func (s *Service) destroy(tx store.Tx, tenant, path string) error {
	if s.hooks.Gone != nil {
		if err := s.hooks.Gone(tx, tenant, path); err != nil {
			return err
		}
	}
	return tx.DeleteSecret(tenant, path)
}

func (s *Service) remove(ctx context.Context, c *access.Caller, path string, permanent bool, fn func(tx store.Tx) error) error {
	if err := CheckPath(path); err != nil {
		return err
	}
	a := ask("delete", path, access.ScopeSecretsDelete, permDelete, access.CategorySecretWrite)
	a.Extra = map[string]any{"permanent": permanent}
	pass, err := s.door.Admit(ctx, c, a)
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if _, err := tx.Secret(c.Tenant, path); err != nil {
			return err
		}
		if s.hooks.InUse != nil {
			if engines := s.hooks.InUse(cfg, c.Tenant, path); len(engines) > 0 {
				return fault.New(fault.SecretInUse, "delete the secret: %s uses it; delete or change that engine first",
					strings.Join(engines, ", ")).With("engines", engines)
			}
		}
		return fn(tx)
	})
}

// Undelete brings a deleted secret back. It is idempotent: one that is not deleted stays as it is.
func (s *Service) Undelete(ctx context.Context, c *access.Caller, path string) (*api.Secret, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	pass, err := s.door.Admit(ctx, c, ask("write", path, access.ScopeSecretsWrite, permWrite, access.CategorySecretWrite))
	if err != nil {
		return nil, err
	}
	pass.Set("change", "undelete")
	var a *api.Secret
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		sec, err := tx.Secret(c.Tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		now := tx.Now()
		if sec.DeletedAt != nil {
			if !now.Before(*sec.RecoverableUntil) {
				return notFound()
			}
			sec.DeletedAt, sec.RecoverableUntil, sec.UpdatedAt = nil, nil, now
			d.schedule(cfg, sec, now)
			if err := tx.PutSecret(sec); err != nil {
				return err
			}
		}
		a = s.answer(sec, d, now)
		return nil
	})
	return a, err
}

// Purge destroys up to a chunk of secrets whose time to be brought back has ended, as the server
// itself, and tells how many went.
func (s *Service) Purge(ctx context.Context, tenant string) (int, error) {
	var due []string
	for after := ""; ; {
		var rows []*store.Secret
		err := s.store.Read(ctx, func(r store.Reader) (err error) {
			rows, err = r.Secrets(tenant, "", after, chunk)
			for _, sec := range rows {
				if sec.RecoverableUntil != nil && !r.Now().Before(*sec.RecoverableUntil) {
					due = append(due, sec.Path)
				}
			}
			return err
		})
		if err != nil {
			return 0, err
		}
		if len(rows) < chunk || len(due) >= chunk {
			break
		}
		after = rows[len(rows)-1].Path
	}
	for i, path := range due {
		if err := s.purge(ctx, tenant, path); err != nil {
			return i, err
		}
	}
	return len(due), nil
}

func (s *Service) purge(ctx context.Context, tenant, path string) error {
	system := access.System(tenant, "system:retention")
	pass, err := s.door.Admit(ctx, system, access.Ask{Action: "delete", Path: path,
		Extra: map[string]any{"permanent": true, "reason": "retention"}})
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		sec, err := tx.Secret(tenant, path)
		if err != nil {
			return err
		}
		if sec.RecoverableUntil == nil || tx.Now().Before(*sec.RecoverableUntil) {
			return nil // brought back or written anew meanwhile
		}
		return s.destroy(tx, tenant, path)
	})
}
