package source

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// placeRoot is the engine's part of a new configuration, with the usual place of the root where the
// server makes that itself and none was named.
func (s *Service) placeRoot(doc *engineDoc, fields map[string]json.RawMessage) (json.RawMessage, error) {
	kind, err := s.kind(doc)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	maker, ok := kind.(engine.RootMaker)
	if !ok {
		return config, nil
	}
	path := maker.RootPath(doc.Name, config)
	if path == "" {
		return config, nil
	}
	if fields["root_credentials_path"], err = json.Marshal(path); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// makeRoot makes the first root of a new engine, where its source has none and there is no secret yet;
// nil where there is nothing to make. The engine must be allowed to read it, and who creates the engine
// to write it.
func (s *Service) makeRoot(ctx context.Context, pass *access.Pass, e *Engine) (map[string]statement.Secret, error) {
	maker, ok := e.kind.(engine.RootMaker)
	path := e.Config.RootCredentialsPath
	if !ok || path == "" {
		return nil, nil
	}
	state, err := s.rootState(ctx, e)
	if err != nil || state.version > 0 {
		return nil, err
	}
	if err := pass.Check(access.Right{Permission: "write", Path: path}); err != nil {
		return nil, fault.New(fault.AccessDenied, "there is no secret at %q: it would be made with the engine, for which you need write on that path", path)
	}
	if !s.door.Allowed(identity(e), access.Right{Permission: "read", Path: path}) {
		return nil, mayNotRead(e)
	}
	return maker.MakeRoot(e.doc.Config)
}

// keepRoot writes a root that was made here as the first version of its secret, with the entry.
func (s *Service) keepRoot(tx store.Tx, pass *access.Pass, e *Engine, made map[string]statement.Secret) (int, error) {
	path := e.Config.RootCredentialsPath
	version, err := s.secrets.Create(tx, e.Tenant, path, made, pass.Caller().Identity)
	if err != nil {
		return 0, err
	}
	pass.Set("root_made", path)
	entry := pass.Entry(true, map[string]any{"version": version})
	entry.Action, entry.SecretPath = "write", path
	return version, tx.Audit(e.Tenant, entry)
}

// rootVersions are the versions of the root secret that were current at since or later, newest first.
func (s *Service) rootVersions(ctx context.Context, e *Engine, since time.Time) ([]engine.RootVersion, error) {
	path := e.Config.RootCredentialsPath
	if path == "" {
		return nil, nil
	}
	var stored []*store.SecretVersion
	current := 0
	err := s.store.Read(ctx, func(r store.Reader) error {
		secret, err := r.Secret(e.Tenant, path)
		if err != nil {
			return err
		}
		current = secret.Version
		stored, err = r.SecretVersions(e.Tenant, path)
		return err
	})
	if fault.CodeOf(err) == fault.SecretNotFound {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var versions []engine.RootVersion
	for i := len(stored) - 1; i >= 0; i-- {
		v := stored[i]
		if v.Version > current {
			continue
		}
		if n := len(versions); n > 0 && versions[n-1].Since.Before(since) {
			break // followed by another before since
		}
		fields, _, err := s.secrets.VersionAs(ctx, identity(e), path, v.Version)
		if fault.CodeOf(err) == fault.VersionNotFound {
			continue // let go of meanwhile
		} else if err != nil {
			return nil, err
		}
		versions = append(versions, engine.RootVersion{Fields: fields, Since: v.CreatedAt})
	}
	return versions, nil
}

// PublicKeys are the keys by which the credentials of an engine are checked: anybody may read them.
// engine_not_found where the engine publishes none.
func (s *Service) PublicKeys(ctx context.Context, tenant, name string) ([]byte, error) {
	e, err := s.Engine(s.store.Config(), tenant, name)
	if err != nil {
		return nil, err
	}
	if !e.Config.Listed {
		return nil, NotPublished(name)
	}
	h, err := s.Acquire(ctx, e)
	if err != nil {
		return nil, Fault(name, err)
	}
	defer h.Release()
	publisher, ok := h.Engine.(engine.KeyPublisher)
	if !ok {
		return nil, NotPublished(name)
	}
	return publisher.PublicKeys(), nil
}

// NotPublished answers for an engine that publishes nothing what is answered for one that is not there.
func NotPublished(name string) error {
	return fault.New(fault.EngineNotFound, "there is no engine %q: list them with GET /v1/dynamic/engines", name)
}

// Lister is the Type that makes the list of what is revoked of an engine; nil where there is no list.
func (e *Engine) Lister() engine.RevocationLister {
	if l, ok := e.kind.(engine.RevocationLister); ok && e.Config.Listed {
		return l
	}
	return nil
}

// OneTime is the Type by which one-time credentials of the engine are checked; nil where it has none.
func (e *Engine) OneTime() engine.OneTime {
	o, _ := e.kind.(engine.OneTime)
	return o
}
