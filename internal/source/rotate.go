package source

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lock"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// RotateRoot changes the root credentials at the source and writes them as the root secret's new
// version. A crash at any step leaves a root that is known (law L9): the candidate is durable,
// sealed, before the source has it, and is kept until the secret holds it; whoever finds the
// secret's version refused tries it.
func (s *Service) RotateRoot(ctx context.Context, c *access.Caller, name string) (*api.Engine, error) {
	pass, err := s.admitEngine(ctx, c, "dynamic_engine_rotate_root", name)
	if err != nil {
		return nil, err
	}
	e, err := s.Engine(s.store.Config(), c.Tenant, name)
	if err == nil {
		err = e.Issues()
	}
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	if _, err := s.rotate(ctx, pass, e); err != nil {
		return nil, err
	}
	return s.show(ctx, e)
}

// RotateSecret is RotateRoot for who was let through to rotate a secret: one that is the root of
// engines is rotated at their source, once, whichever of them does it. It tells the new version; found
// is false for a secret that is nobody's root. An error is recorded.
func (s *Service) RotateSecret(ctx context.Context, pass *access.Pass, path string) (version int, found bool, err error) {
	e, err := s.rootedIn(pass.Config(), pass.Caller().Tenant, path)
	if err != nil {
		return 0, true, pass.Record(ctx, err)
	}
	if e == nil {
		return 0, false, nil
	}
	pass.Set("engine", e.Name)
	version, err = s.rotate(ctx, pass, e)
	return version, true, err
}

// rootedIn is an engine whose root secret this is, one that works if there is one; nil for none.
func (s *Service) rootedIn(cfg *store.Config, tenant, path string) (found *Engine, err error) {
	for _, name := range s.Uses(cfg, tenant, path) {
		e, unusable := s.Engine(cfg, tenant, name)
		if unusable == nil && e.Config.RootCredentialsPath != path {
			continue
		}
		if unusable == nil {
			unusable = e.Issues()
		}
		if unusable == nil {
			return e, nil
		}
		err = unusable
	}
	return nil, err
}

// rotate is one rotation, of all nodes and engines the only one of this root at its time.
func (s *Service) rotate(ctx context.Context, pass *access.Pass, e *Engine) (version int, err error) {
	path := e.Config.RootCredentialsPath
	if path == "" {
		return 0, pass.Record(ctx, fault.New(fault.InvalidConfig, "engine %s has no root secret that could be rotated", e.Name))
	}
	if !s.door.Allowed(identity(e), access.Right{Permission: "rotate", Path: path}) {
		return 0, pass.Record(ctx, fault.New(fault.InvalidConfig,
			"engine %s may not rotate its root secret: bind a policy with {\"path_pattern\": %q, \"permissions\": [\"read\", \"rotate\"]} to the system identity dynamic:%s",
			e.Name, path, e.Name))
	}
	if err := s.ownsRoot(e); err != nil {
		return 0, pass.Record(ctx, err)
	}
	ctx = context.WithoutCancel(ctx) // whoever goes away leaves no rotation half done
	hold := 3*rootStep(e) + rotationMargin
	alone, err := lock.Acquire(ctx, s.store, "root/"+e.Tenant+"/"+path, hold)
	if errors.Is(err, lock.ErrHeld) {
		err = rotatedElsewhere(e)
	}
	if err != nil {
		return 0, pass.Record(ctx, err)
	}
	defer func() {
		if err := alone.Release(ctx); err != nil {
			s.log.Warn("the lock of a root could not be released, it runs out", "engine", e.Name, "error", err)
		}
	}()

	h, pending, err := s.settleRotation(ctx, e)
	if err != nil {
		return 0, pass.Record(ctx, Fault(e.Name, err))
	}
	defer h.Release()
	next, err := s.setRoot(ctx, e, h, alone, pending)
	if err != nil {
		return 0, pass.Record(ctx, Fault(e.Name, err))
	}
	written := false
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) (err error) {
		if err := alone.Guard(tx); err != nil {
			return rotatedElsewhere(e)
		}
		version, written, err = s.promote(tx, e, next)
		pass.Set("version", version)
		return err
	})
	if err != nil {
		s.suspect(e) // the source has what the secret does not
		return 0, err
	}
	failpoint.Hit(failpoint.RootPromoted)
	if written {
		s.liveOf(e).promoted(h.Engine, version)
	} else {
		s.suspect(e) // the newest version need not be the one that this rotation has set
	}
	s.secrets.Announce(e.Tenant, path, version)
	failpoint.Hit(failpoint.RootDone)
	return version, nil
}

// rotationMargin is what a rotation may take besides its steps at the source: it is opened, makes the
// candidate where no other can, and is told to accept it.
const rotationMargin = 10 * time.Second

// rootStep bounds one step of a rotation at the source.
func rootStep(e *Engine) time.Duration { return e.Config.ConnectTimeout + e.Config.OperationTimeout }

// ownsRoot refuses to change a root secret that another engine hands to another server: that server
// would not learn the new one. Where both have it from one home, it is one root all the same.
func (s *Service) ownsRoot(e *Engine) error {
	cfg := s.store.Config()
	for _, name := range s.Uses(cfg, e.Tenant, e.Config.RootCredentialsPath) {
		other, err := s.Engine(cfg, e.Tenant, name)
		home := e.Config.RootHome
		if err == nil && other.doc.SourceID != e.doc.SourceID && (home == "" || other.Config.RootHome != home) {
			return fault.New(fault.InvalidConfig, "engine %s uses the root secret of engine %s on another server, which would not learn the new one: give each a secret of its own", name, e.Name)
		}
	}
	return nil
}

// settleRotation gives the source open with a root that it accepts. Where a rotation has left a
// candidate and the source has it, it becomes the root secret's new version first. A candidate that
// the source does not have is returned: it may still be on its way there.
func (s *Service) settleRotation(ctx context.Context, e *Engine) (*Handle, *candidate, error) {
	pending, err := s.candidate(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	h, err := s.openNow(ctx, e, pending != nil)
	if err != nil {
		return nil, nil, err
	}
	if err = e.Reached(h.SourceID()); err == nil && pending != nil {
		pending, err = s.candidate(ctx, e)
	}
	if err != nil {
		h.Release()
		return nil, nil, err
	}
	return h, pending, nil
}

// setRoot makes the source accept a candidate, which is durable before. It is the pending one, since
// that may take effect at any time and setting it twice does no harm, unless it was made from a root
// that is no longer in use.
func (s *Service) setRoot(ctx context.Context, e *Engine, h *Handle, alone *lock.Lock, pending *candidate) (*candidate, error) {
	rotator, ok := h.Engine.(engine.RootRotator)
	if !ok {
		return nil, fault.New(fault.InvalidConfig, "an engine of this type cannot rotate its root")
	}
	next := pending
	if next == nil || next.From != h.root {
		fields, err := planRoot(ctx, e, rotator)
		if err != nil {
			return nil, err
		}
		failpoint.Hit(failpoint.RootPlanned)
		if next, err = s.keep(ctx, e, alone, pending, &candidate{From: h.root, fields: fields}); err != nil {
			return nil, err
		}
	}
	failpoint.Hit(failpoint.RootKept)
	ctx, cancel := context.WithTimeout(ctx, rootStep(e))
	defer cancel()
	if err := rotator.SetRoot(ctx, next.fields); err != nil {
		if engine.KindOf(err) == engine.Refused && next != pending {
			return nil, errors.Join(err, s.forget(ctx, e, alone, next)) // never to be tried again
		}
		s.suspect(e) // nobody knows which root the source has now: the next use finds out
		return nil, err
	}
	return next, nil
}

func planRoot(ctx context.Context, e *Engine, rotator engine.RootRotator) (map[string]statement.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, rootStep(e))
	defer cancel()
	return rotator.PlanRoot(ctx)
}

// recoverRoot opens the source with the candidate of a rotation that was cut off, and writes it
// down as the root secret's new version if the source accepts it. refused is why the present
// version was not; it is returned where there is no candidate or that is refused, too. version_conflict
// when the candidate was another's meanwhile, or a version.
func (s *Service) recoverRoot(ctx context.Context, e *Engine, refused error) (engine.Engine, int, error) {
	pending, err := s.candidate(ctx, e)
	if err != nil {
		return nil, 0, err
	} else if pending == nil {
		return nil, 0, refused
	}
	opened, err := s.open(ctx, e, pending.fields)
	if engine.KindOf(err) == engine.Misconfigured {
		return nil, 0, refused
	} else if err != nil {
		return nil, 0, err
	}
	version := 0
	if e.doc.SourceID != "" { // what another server accepts says nothing; a new engine has none yet
		err = e.Reached(opened.SourceID())
	}
	if err == nil {
		version, err = s.adopt(ctx, e, pending)
	}
	if err != nil {
		opened.Close()
		return nil, 0, err
	}
	return opened, version, nil
}

// adopt writes a candidate that the source has accepted down as the root secret's new version:
// version_conflict when somebody else did, since by now the newest version may be yet another.
func (s *Service) adopt(ctx context.Context, e *Engine, c *candidate) (version int, err error) {
	err = s.store.Write(ctx, func(tx store.Tx) (err error) {
		var written bool
		if version, written, err = s.promote(tx, e, c); err != nil {
			return err
		} else if !written {
			return rotatedElsewhere(e)
		}
		return tx.Audit(e.Tenant, &api.AuditEntry{Action: "dynamic_engine_rotate_root", IdentityType: "system",
			IdentityID: identity(e).Identity, SecretPath: "dynamic/" + e.Name, Success: true,
			ExtraData: map[string]any{"engine": e.Name, "version": version, "recovered": true}})
	})
	if err == nil {
		s.log.Warn("a root rotation that was cut off has been finished", "engine", e.Name, "version", version)
		s.secrets.Announce(e.Tenant, e.Config.RootCredentialsPath, version)
	}
	return version, err
}

// promote writes a candidate that the source has accepted as the root secret's new version and
// forgets it, in the caller's transaction; it is noted as the one that works, and the one that it was
// made from as the previous. It is not written twice: whoever found it at the source first has done
// it for all. version_conflict when another candidate has taken its place.
func (s *Service) promote(tx store.Tx, e *Engine, c *candidate) (version int, written bool, err error) {
	path := e.Config.RootCredentialsPath
	kept, err := tx.Meta(candidateKey(e.Tenant, path))
	switch {
	case err != nil:
		return 0, false, err
	case len(kept) == 0:
		secret, err := tx.Secret(e.Tenant, path)
		if err != nil {
			return 0, false, err
		}
		return secret.Version, false, nil
	case !bytes.Equal(kept, c.sealed):
		return 0, false, rotatedElsewhere(e)
	}
	// Before the version: what is no longer former is let go with it.
	if err := tx.PutMeta(previousKey(e.Tenant, path), noted(c.From)); err != nil {
		return 0, false, err
	}
	if version, err = s.secrets.AddVersion(tx, e.Tenant, path, c.fields, identity(e).Identity); err != nil {
		return 0, false, err
	}
	cfg := s.store.Config()
	for _, name := range s.Uses(cfg, e.Tenant, path) {
		if user, err := s.Engine(cfg, e.Tenant, name); err == nil {
			if err := tx.PutMeta(notedKey(user.ID), noted(version)); err != nil {
				return 0, false, err
			}
		}
	}
	return version, true, tx.PutMeta(candidateKey(e.Tenant, path), nil)
}

func rotatedElsewhere(e *Engine) error {
	return fault.New(fault.VersionConflict, "the root of engine %s is being rotated by somebody else: wait for the secret's next version, then try again", e.Name)
}
