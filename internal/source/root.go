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
// An engine without a root has none, of version 0.
func (s *Service) root(ctx context.Context, e *Engine) (map[string]statement.Secret, int, error) {
	if e.Config.RootCredentialsPath == "" {
		return nil, 0, nil
	}
	data, version, err := s.secrets.ReadAs(ctx, identity(e), e.Config.RootCredentialsPath)
	switch fault.CodeOf(err) {
	case fault.AccessDenied, fault.IPNotAllowed, fault.MFARequired, fault.TimeWindowViolation:
		return nil, 0, mayNotRead(e)
	case fault.SecretNotFound, fault.VersionNotFound:
		return nil, 0, fault.New(fault.InvalidConfig,
			"there is no root secret at %q: write it first with PUT /v1/secrets/%s", e.Config.RootCredentialsPath, e.Config.RootCredentialsPath)
	}
	return data, version, err
}

func mayNotRead(e *Engine) error {
	return fault.New(fault.InvalidConfig,
		"engine %s may not read its root secret: bind a policy with {\"path_pattern\": %q, \"permissions\": [\"read\"]} to the system identity dynamic:%s (or to system:dynamic-engines for all engines)",
		e.Name, e.Config.RootCredentialsPath, e.Name)
}

// rootVersion is the root secret's current version. It reads no data, so it needs no grant.
func (s *Service) rootVersion(ctx context.Context, e *Engine) (version int, err error) {
	if e.Config.RootCredentialsPath == "" {
		return 0, nil
	}
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

// rootState is what the store has of a root. A rotation changes it before it sets the next root at the
// source, and after.
type rootState struct {
	version   int    // of the root secret; 0 where there is none
	candidate string // of a rotation that is under way or was cut off, as it is stored; "" for none
}

// rootState reads both in one moment: a candidate becomes a version in one.
func (s *Service) rootState(ctx context.Context, e *Engine) (state rootState, err error) {
	err = s.store.Read(ctx, func(r store.Reader) error {
		secret, err := r.Secret(e.Tenant, e.Config.RootCredentialsPath)
		if fault.CodeOf(err) == fault.SecretNotFound {
			return nil
		} else if err != nil {
			return err
		}
		pending, err := r.Meta(candidateKey(e.Tenant, e.Config.RootCredentialsPath))
		state = rootState{secret.Version, string(pending)}
		return err
	})
	return state, err
}

// rootTries bounds how often the root is followed while it is rotated.
const rootTries = 10

func rotatedTooFast() error {
	return &engine.Error{Kind: engine.Busy, Reason: "its root credentials are rotated faster than they can be followed"}
}

// reopened is how an opening ended.
type reopened struct {
	engine  engine.Engine
	version int       // of the root secret that works
	newest  int       // that there is
	refused error     // why the newest does not work
	state   rootState // before any was read
}

// reopen opens the source with the newest version of its root secret, else with the candidate of a
// rotation, else, where nothing else is usable, with a former version. A refusal of what the store no
// longer has says nothing: then it begins anew. Misconfigured is told only of all that there is; a
// store that cannot be read is the store's error.
func (s *Service) reopen(ctx context.Context, e *Engine, usable bool) (found reopened, err error) {
	for range rootTries {
		found, err = s.openPresent(ctx, e)
		if fault.CodeOf(err) == fault.VersionConflict { // what the source accepted is no longer the candidate
			continue
		} else if engine.KindOf(err) != engine.Misconfigured {
			return found, err
		}
		now, unread := s.rootState(ctx, e)
		if unread != nil {
			return found, unread
		} else if now != found.state {
			continue
		}
		if !usable {
			found.engine, found.version, err = s.formerRoot(ctx, e, found.newest, err)
		}
		return found, err
	}
	return found, rotatedTooFast()
}

// openPresent opens the source with the newest version of its root secret, else with the candidate.
func (s *Service) openPresent(ctx context.Context, e *Engine) (found reopened, err error) {
	if found.state, err = s.rootState(ctx, e); err != nil {
		return found, err
	}
	root, newest, err := s.root(ctx, e)
	if err != nil {
		return found, err
	}
	found.version, found.newest = newest, newest
	if found.engine, found.refused = s.open(ctx, e, root); engine.KindOf(found.refused) != engine.Misconfigured {
		return found, found.refused
	}
	found.engine, found.version, err = s.recoverRoot(ctx, e, found.refused)
	return found, err
}

// formerRoot opens the source with the root that it accepted last, or with the one before the last
// rotation, where the newest one and a candidate were refused. refused is why; it is returned where
// those are refused, too.
func (s *Service) formerRoot(ctx context.Context, e *Engine, newest int, refused error) (engine.Engine, int, error) {
	var versions []int
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		versions, err = formerRoots(r, e)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	for _, version := range versions {
		if version == newest {
			continue
		}
		root, _, err := s.secrets.VersionAs(ctx, identity(e), e.Config.RootCredentialsPath, version)
		if fault.CodeOf(err) == fault.VersionNotFound {
			continue
		} else if err != nil {
			return nil, 0, err
		}
		opened, err := s.open(ctx, e, root)
		if err == nil {
			s.log.Warn("the newest root secret does not work", "engine", e.Name, "version", newest, "in_use", version)
			return opened, version, nil
		} else if engine.KindOf(err) != engine.Misconfigured {
			return nil, 0, err
		}
	}
	return nil, 0, refused
}
