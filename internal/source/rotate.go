package source

import (
	"context"
	"encoding/json"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// RotateRoot changes the root credentials at the source and writes them as the root secret's new
// version. A crash at any step leaves a root that is known (law L9): the candidate is durable,
// sealed, before the source has it, and is kept until the secret holds it; refresh tries it when
// the source refuses the secret's version.
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
	path := e.Config.RootCredentialsPath
	if !s.door.Allowed(identity(e), access.Right{Permission: "rotate", Path: path}) {
		return nil, pass.Record(ctx, fault.New(fault.InvalidConfig,
			"engine %s may not rotate its root secret: bind a policy with {\"path_pattern\": %q, \"permissions\": [\"read\", \"rotate\"]} to the system identity dynamic:%s",
			name, path, name))
	}
	if !s.beginRotation(e.ID) {
		return nil, pass.Record(ctx, fault.New(fault.VersionConflict, "the root of engine %s is being rotated already", name))
	}
	defer s.endRotation(e.ID)

	ctx = context.WithoutCancel(ctx) // whoever goes away leaves no rotation half done
	if err := s.finishRotation(ctx, e); err != nil {
		return nil, pass.Record(ctx, err)
	}
	h, err := s.Acquire(ctx, e)
	if err != nil {
		return nil, pass.Record(ctx, Fault(name, err))
	}
	defer h.Release()
	version, err := s.rotate(ctx, pass, e, h)
	if err != nil {
		return nil, err
	}
	s.secrets.Announce(e.Tenant, path, version)
	return s.show(ctx, e)
}

// rotate does the steps; every error is recorded when it returns.
func (s *Service) rotate(ctx context.Context, pass *access.Pass, e *Engine, h *Handle) (version int, err error) {
	rotator, ok := h.Engine.(engine.RootRotator)
	if !ok {
		return 0, pass.Record(ctx, fault.New(fault.InvalidConfig, "an engine of this type cannot rotate its root"))
	}
	candidate, err := rotator.PlanRoot(ctx)
	if err != nil {
		return 0, pass.Record(ctx, Fault(e.Name, err))
	}
	if err := s.keepCandidate(ctx, e, candidate); err != nil {
		return 0, pass.Record(ctx, err)
	}
	bounded, cancel := context.WithTimeout(ctx, e.Config.ConnectTimeout+e.Config.OperationTimeout)
	defer cancel()
	if err := rotator.SetRoot(bounded, candidate); err != nil {
		s.drop(e.ID) // nobody knows which root the source has now: the next use finds out
		return 0, pass.Record(ctx, Fault(e.Name, err))
	}
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		if version, err = s.secrets.AddVersion(tx, e.Tenant, e.Config.RootCredentialsPath, candidate, identity(e).Identity); err != nil {
			return err
		}
		pass.Set("version", version)
		return tx.PutMeta(candidateKey(e), nil)
	})
	return version, err
}

// recoverRoot opens the source with the candidate of a rotation that a crash cut off, and writes
// it down as the root secret's new version if the source accepts it. refused is why the present
// version was not; it is returned where there is no candidate or that is refused, too.
func (s *Service) recoverRoot(ctx context.Context, e *Engine, refused error) (engine.Engine, int, error) {
	candidate, err := s.candidate(ctx, e)
	if err != nil || candidate == nil {
		return nil, 0, refused
	}
	opened, err := s.open(ctx, e, candidate)
	if err != nil {
		return nil, 0, refused
	}
	version, err := s.adopt(ctx, e, candidate)
	if err != nil {
		opened.Close()
		return nil, 0, err
	}
	return opened, version, nil
}

// finishRotation decides about the candidate of a rotation whose end nobody knows, before another
// one takes its place: if the source has it, it becomes the root secret's new version.
func (s *Service) finishRotation(ctx context.Context, e *Engine) error {
	candidate, err := s.candidate(ctx, e)
	if err != nil || candidate == nil {
		return err
	}
	opened, err := s.open(ctx, e, candidate)
	switch {
	case kindOf(err) == engine.Misconfigured:
		return nil // the source does not have it
	case err != nil:
		return Fault(e.Name, err)
	}
	opened.Close()
	if _, err := s.adopt(ctx, e, candidate); err != nil {
		return err
	}
	s.drop(e.ID)
	return nil
}

// adopt writes a candidate that the source has accepted down as the root secret's new version.
func (s *Service) adopt(ctx context.Context, e *Engine, candidate map[string]statement.Secret) (version int, err error) {
	err = s.store.Write(ctx, func(tx store.Tx) (err error) {
		if version, err = s.secrets.AddVersion(tx, e.Tenant, e.Config.RootCredentialsPath, candidate, identity(e).Identity); err != nil {
			return err
		}
		if err := tx.PutMeta(candidateKey(e), nil); err != nil {
			return err
		}
		return tx.Audit(e.Tenant, &api.AuditEntry{Action: "dynamic_engine_rotate_root", IdentityType: "system",
			IdentityID: identity(e).Identity, SecretPath: "dynamic/" + e.Name, Success: true,
			ExtraData: map[string]any{"engine": e.Name, "version": version, "recovered": true}})
	})
	if err == nil {
		s.log.Warn("a root rotation that was cut off has been finished", "engine", e.Name, "version", version)
	}
	return version, err
}

func candidateKey(e *Engine) string { return "root_candidate/" + e.ID }

func candidatePlace(e *Engine) seal.Place {
	return seal.Place{Tenant: e.Tenant, Table: "root_candidate", Path: e.ID, Version: 1}
}

// keepCandidate makes the next root durable, sealed.
func (s *Service) keepCandidate(ctx context.Context, e *Engine, candidate map[string]statement.Secret) error {
	plain := make(map[string]string, len(candidate))
	for k, v := range candidate {
		plain[k] = v.Reveal()
	}
	raw, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	sealed, err := s.keys.Encrypt(candidatePlace(e), raw)
	if err != nil {
		return err
	}
	return s.store.Write(ctx, func(tx store.Tx) error { return tx.PutMeta(candidateKey(e), sealed) })
}

// candidate is the root that a rotation was about to set, nil when there is none.
func (s *Service) candidate(ctx context.Context, e *Engine) (map[string]statement.Secret, error) {
	var sealed []byte
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		sealed, err = r.Meta(candidateKey(e))
		return err
	})
	if err != nil || len(sealed) == 0 {
		return nil, err
	}
	raw, err := s.keys.Decrypt(candidatePlace(e), sealed)
	if err != nil {
		return nil, err
	}
	var plain map[string]string
	if err := json.Unmarshal(raw, &plain); err != nil {
		return nil, err
	}
	candidate := make(map[string]statement.Secret, len(plain))
	for k, v := range plain {
		candidate[k] = statement.Secret(v)
	}
	return candidate, nil
}

func (s *Service) beginRotation(engineID string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rotating[engineID] {
		return false
	}
	s.rotating[engineID] = true
	return true
}

func (s *Service) endRotation(engineID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rotating, engineID)
}
