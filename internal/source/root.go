package source

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// root reads the root secret as the engine: invalid_config naming the grant that is missing.
func (s *Service) root(ctx context.Context, e *Engine) (map[string]statement.Secret, int, error) {
	data, version, err := s.secrets.ReadAs(ctx, identity(e), e.Config.RootCredentialsPath)
	switch fault.CodeOf(err) {
	case fault.AccessDenied, fault.IPNotAllowed, fault.MFARequired, fault.TimeWindowViolation:
		return nil, 0, fault.New(fault.InvalidConfig,
			"engine %s may not read its root secret: bind a policy with {\"path_pattern\": %q, \"permissions\": [\"read\"]} to the system identity dynamic:%s (or to system:dynamic-engines for all engines)",
			e.Name, e.Config.RootCredentialsPath, e.Name)
	case fault.SecretNotFound, fault.VersionNotFound:
		return nil, 0, fault.New(fault.InvalidConfig,
			"there is no root secret at %q: write it first with PUT /v1/secrets/%s", e.Config.RootCredentialsPath, e.Config.RootCredentialsPath)
	}
	return data, version, err
}

// rootVersion is the root secret's current version. It reads no data, so it needs no grant.
func (s *Service) rootVersion(ctx context.Context, e *Engine) (version int, err error) {
	err = s.store.Read(ctx, func(r store.Reader) error {
		secret, err := r.Secret(e.Tenant, e.Config.RootCredentialsPath)
		if err == nil {
			version = secret.Version
		}
		return err
	})
	return version, err
}

// noteRoot remembers the version of the root secret that the source has accepted, so that a later
// process that finds the newest one wrong knows another. Losing the note loses only that.
func (s *Service) noteRoot(ctx context.Context, e *Engine, version int) {
	var last []byte
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		last, err = r.Meta(notedKey(e.ID))
		return err
	})
	if err == nil && !bytes.Equal(last, noted(version)) {
		err = s.store.WriteRelaxed(ctx, func(tx store.Tx) error {
			return tx.PutMeta(notedKey(e.ID), noted(version))
		})
	}
	if err != nil {
		s.log.Warn("which root secret works could not be noted", "engine", e.Name, "error", err)
	}
}

// formerRoots are the versions that may work where the newest does not: the one that the source
// accepted last, and the one that the last rotation was made from, which a source that was put back
// to an earlier state accepts again.
func formerRoots(r store.Reader, e *Engine) (versions []int, err error) {
	for _, key := range []string{notedKey(e.ID), previousKey(e.Tenant, e.Config.RootCredentialsPath)} {
		raw, err := r.Meta(key)
		if err != nil {
			return nil, err
		}
		if version, _ := strconv.Atoi(string(raw)); version > 0 && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	return versions, nil
}

func noted(version int) []byte { return []byte(strconv.Itoa(version)) }

func notedKey(engineID string) string { return "root_noted/" + engineID }

func previousKey(tenant, path string) string { return "root_previous/" + tenant + "/" + path }

// formerRoot opens the source with the root that it accepted last, or with the one before the last
// rotation, where the newest one and a candidate were refused. refused is why; it is returned where
// those work no longer either.
func (s *Service) formerRoot(ctx context.Context, e *Engine, newest int, refused error) (engine.Engine, int, error) {
	var versions []int
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		versions, err = formerRoots(r, e)
		return err
	})
	if err != nil {
		return nil, 0, refused
	}
	for _, version := range versions {
		if version == newest {
			continue
		}
		root, _, err := s.secrets.VersionAs(ctx, identity(e), e.Config.RootCredentialsPath, version)
		if err != nil {
			continue
		}
		if opened, err := s.open(ctx, e, root); err == nil {
			s.log.Warn("the newest root secret does not work", "engine", e.Name, "version", newest, "in_use", version)
			return opened, version, nil
		}
	}
	return nil, 0, refused
}

// rootTries bounds how often opening begins anew because the root was rotated meanwhile.
const rootTries = 10

// reopen opens the source with the newest version of its root secret, else with the candidate of a
// rotation, else, where nothing else is open, with a former version. It tells the version that works,
// the newest, and why that was refused if it was. A refusal by a root that is no longer the newest
// says nothing: then it begins anew.
func (s *Service) reopen(ctx context.Context, e *Engine, usable bool) (opened engine.Engine, version, newest int, refused, err error) {
	for tried := 1; ; tried++ {
		var root map[string]statement.Secret
		if root, newest, err = s.root(ctx, e); err != nil {
			return nil, 0, newest, nil, err
		}
		version = newest
		opened, refused = s.open(ctx, e, root)
		if err = refused; engine.KindOf(err) == engine.Misconfigured {
			opened, version, err = s.recoverRoot(ctx, e, err)
		}
		if tried < rootTries && s.overtaken(ctx, e, newest, err) {
			continue
		}
		if engine.KindOf(err) == engine.Misconfigured && !usable {
			opened, version, err = s.formerRoot(ctx, e, newest, err)
		}
		return opened, version, newest, refused, err
	}
}

// overtaken tells whether opening failed because the root was rotated meanwhile.
func (s *Service) overtaken(ctx context.Context, e *Engine, newest int, err error) bool {
	switch {
	case fault.CodeOf(err) == fault.VersionConflict: // the candidate that the source accepted is no longer the candidate
		return true
	case engine.KindOf(err) != engine.Misconfigured:
		return false
	}
	now, unread := s.rootVersion(ctx, e)
	return unread == nil && now != newest
}

// rootMoved tells whether there is another root to try than the one that is open and the one that was
// tried last: a newer version of the secret, or the candidate of a rotation. Both are looked at in
// one moment: a candidate becomes a version in one.
func (s *Service) rootMoved(ctx context.Context, l *live, e *Engine) (moved bool) {
	l.mu.Lock()
	open, tried := 0, l.rootTried
	if l.now != nil {
		open = l.now.root
	}
	l.mu.Unlock()
	err := s.store.Read(ctx, func(r store.Reader) error {
		secret, err := r.Secret(e.Tenant, e.Config.RootCredentialsPath)
		if err != nil {
			return err
		}
		pending, err := r.Meta(candidateKey(e.Tenant, e.Config.RootCredentialsPath))
		moved = len(pending) > 0 || secret.Version != open && secret.Version != tried
		return err
	})
	return err == nil && moved
}
