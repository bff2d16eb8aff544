package source

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// DeleteEngine removes an engine without living leases, with its roles. With force its leases are
// revoked first; it is gone when e is nil, else it is shown as deleting until the last is dead.
func (s *Service) DeleteEngine(ctx context.Context, c *access.Caller, name string, force bool, wait time.Duration) (e *api.Engine, err error) {
	pass, err := s.admitEngine(ctx, c, "dynamic_engine_delete", name)
	if err != nil {
		return nil, err
	}
	var fence *store.Fence
	var id string
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		e, err := s.Engine(cfg, c.Tenant, name)
		if err != nil {
			return err
		}
		id, fence = e.ID, nil
		if err := tx.LockTenant(c.Tenant, true); err != nil {
			return err
		}
		n, err := living(tx, e.ID, "")
		switch {
		case err != nil:
			return err
		case n == 0:
			return s.removeEngine(tx, e)
		case !force:
			return fault.New(fault.EngineInUse, "engine %s has %d living leases: revoke them first, or delete with ?force=true", name, n).With("active_leases", n)
		}
		fence = &store.Fence{Tenant: c.Tenant, EngineID: e.ID, Reason: api.ReasonEngineDeleted, By: c.Identity}
		if err := s.leases.Fence(tx, fence); err != nil {
			return err
		}
		return s.mark(tx, e.object, func(d *engineDoc) { d.State, d.Next = stateDeleting, nil })
	})
	if err != nil {
		return nil, err
	}
	if fence == nil {
		s.drop(id)
		return nil, nil
	}
	if _, err := s.leases.Await(ctx, fence, wait); err != nil {
		return nil, err
	}
	if err := s.Drained(ctx, c.Tenant, id); err != nil {
		return nil, err
	}
	if o := s.store.Config().Object(c.Tenant, store.KindEngine, id); o != nil {
		still, err := s.engine(o)
		if err != nil {
			return nil, err
		}
		return s.show(ctx, still)
	}
	return nil, nil
}

// Drained finishes what waited for the engine's last lease to die: its deletion, its move to
// another server, the deletion of its roles. It does nothing while something lives.
func (s *Service) Drained(ctx context.Context, tenant, engineID string) error {
	if !s.waits(tenant, engineID) {
		return nil
	}
	gone := false
	err := s.store.Write(ctx, func(tx store.Tx) error {
		gone = false
		o, err := tx.Object(tenant, store.KindEngine, engineID)
		if fault.CodeOf(err) == fault.EngineNotFound {
			return nil
		} else if err != nil {
			return err
		}
		e, err := s.engine(o)
		if err != nil {
			return err
		}
		if err := s.removeDrainedRoles(tx, e); err != nil {
			return err
		}
		n, err := living(tx, engineID, "")
		if err != nil || n > 0 || e.doc.State == "" {
			return err
		}
		gone = true
		entry := &api.AuditEntry{Action: "dynamic_engine_delete", IdentityType: "system", IdentityID: "system:lease",
			SecretPath: "dynamic/" + e.Name, Success: true, ExtraData: map[string]any{"engine": e.Name}}
		if e.doc.State == stateMoving {
			entry.Action = "dynamic_engine_update"
			if err := tx.Audit(tenant, entry); err != nil {
				return err
			}
			return s.mark(tx, o, func(d *engineDoc) { *d = *d.Next })
		}
		if err := tx.Audit(tenant, entry); err != nil {
			return err
		}
		return s.removeEngine(tx, e)
	})
	if gone && err == nil {
		s.drop(engineID)
	}
	return err
}

// DrainedAll is Drained for every engine that waits for something: what a crash left between the
// death of the last lease and the end of what waited for it.
func (s *Service) DrainedAll(ctx context.Context) error {
	var errs []error
	for _, o := range s.store.Config().List(store.DefaultTenant, store.KindEngine, "") {
		errs = append(errs, s.Drained(ctx, o.Tenant, o.ID))
	}
	return errors.Join(errs...)
}

// waits tells whether something of the engine waits for its last lease to die.
func (s *Service) waits(tenant, engineID string) bool {
	cfg := s.store.Config()
	o := cfg.Object(tenant, store.KindEngine, engineID)
	if o == nil {
		return false
	}
	e, err := store.Decode[engineDoc](o)
	if err != nil || e.State != "" {
		return true
	}
	return slices.ContainsFunc(cfg.List(tenant, store.KindRole, e.Name+"/"), func(o *store.Object) bool {
		role, err := store.Decode[roleDoc](o)
		return err != nil || role.State != ""
	})
}

// removeEngine deletes an engine without leases: its roles, and what is bound to its identity.
func (s *Service) removeEngine(tx store.Tx, e *Engine) error {
	roles, err := tx.Objects(e.Tenant, store.KindRole, e.Name+"/", "", 0)
	if err != nil {
		return err
	}
	for _, r := range roles {
		if err := tx.DeleteObject(e.Tenant, store.KindRole, r.ID); err != nil {
			return err
		}
	}
	if err := s.endBindings(tx, e.Tenant, "dynamic:"+e.Name); err != nil {
		return err
	}
	if err := tx.PutMeta(notedKey(e.ID), nil); err != nil {
		return err
	}
	return tx.DeleteObject(e.Tenant, store.KindEngine, e.ID)
}
