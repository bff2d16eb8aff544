package source

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// newEngine checks a request and makes the engine that it describes, not stored yet.
func (s *Service) newEngine(tenant string, req *api.EngineRequest) (*Engine, error) {
	var fields map[string]json.RawMessage
	if len(req.Config) == 0 || json.Unmarshal(req.Config, &fields) != nil || fields == nil {
		return nil, fault.New(fault.InvalidConfig, "config is missing: an object with the engine's own settings")
	}
	typ, plugin, err := splitType(req.Type, fields)
	if err != nil {
		return nil, err
	}
	delete(fields, "plugin")
	doc := &engineDoc{Name: req.Name, Type: typ, Plugin: plugin, DefaultTTL: DefaultTTL, MaxTTL: MaxTTL, Metadata: req.Metadata}
	if doc.Config, err = s.placeRoot(doc, fields); err != nil {
		return nil, err
	}
	if req.MaxTTL != nil {
		doc.MaxTTL = *req.MaxTTL
	}
	doc.DefaultTTL = min(doc.DefaultTTL, doc.MaxTTL)
	if req.DefaultTTL != nil {
		doc.DefaultTTL = *req.DefaultTTL
	}
	if req.MaxLeases != nil {
		doc.MaxLeases = *req.MaxLeases
	}
	return s.check(tenant, ident.New("eng"), doc)
}

// patched is the document with a patch merged in.
func (s *Service) patched(old *engineDoc, req *api.EnginePatch) (*engineDoc, error) {
	next := *old
	next.State, next.Next = "", nil
	if req.Config != nil {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(old.Config, &fields); err != nil {
			return nil, err
		}
		for k, v := range req.Config {
			if k == "plugin" {
				var plugin string
				if json.Unmarshal(v, &plugin) != nil || plugin != old.Plugin {
					return nil, fault.New(fault.InvalidConfig, "an engine's plugin cannot be changed: make another engine")
				}
			} else if bytes.Equal(v, []byte("null")) {
				delete(fields, k)
			} else {
				fields[k] = v
			}
		}
		next.Config, _ = json.Marshal(fields)
	}
	if req.DefaultTTL != nil {
		next.DefaultTTL = *req.DefaultTTL
	}
	if req.MaxTTL != nil {
		next.MaxTTL = *req.MaxTTL
		if req.DefaultTTL == nil {
			next.DefaultTTL = min(next.DefaultTTL, next.MaxTTL)
		}
	}
	if req.MaxLeases != nil {
		next.MaxLeases = *req.MaxLeases
	}
	if req.Metadata != nil {
		next.Metadata = req.Metadata
	}
	return &next, nil
}

// check validates a document and makes the engine of it.
func (s *Service) check(tenant, id string, doc *engineDoc) (*Engine, error) {
	if doc.DefaultTTL > doc.MaxTTL {
		return nil, fault.New(fault.InvalidDuration, "default_ttl %s is longer than max_ttl %s", doc.DefaultTTL, doc.MaxTTL)
	}
	if doc.MaxLeases < 0 {
		return nil, fault.New(fault.InvalidConfig, "max_leases is negative: leave it out for no quota")
	}
	if err := CheckMetadata(doc.Metadata); err != nil {
		return nil, err
	}
	kind, err := s.kind(doc)
	if err != nil {
		return nil, err
	}
	config, err := kind.ParseConfig(doc.Config)
	if err != nil {
		return nil, err
	}
	return &Engine{ID: id, Tenant: tenant, Name: doc.Name, Version: 1, Config: config, doc: doc, kind: kind}, nil
}

// mayAim refuses who aims secrets at a host without holding them: an engine hands its root secret
// to the endpoint, so making one is reading the secret by another way.
func mayAim(pass *access.Pass, c engine.Config) error {
	for _, path := range append([]string{c.RootCredentialsPath}, c.SecretPaths...) {
		if path == "" {
			continue
		}
		if err := pass.Check(access.Right{Permission: "rotate", Path: path}); err != nil {
			return fault.New(fault.AccessDenied, "an engine hands the secret %q to a host: whoever aims it there needs rotate or admin on that path", path)
		}
	}
	return nil
}

// saveNew proves a new engine by a connection and stores it.
func (s *Service) saveNew(ctx context.Context, pass *access.Pass, e *Engine) (*api.Engine, error) {
	err := s.setTerms(ctx, nil, e)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	made, err := s.makeRoot(ctx, pass, e)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	opened, root, err := s.prepareNew(ctx, pass, e, made)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	object := &store.Object{Tenant: e.Tenant, Kind: store.KindEngine, ID: e.ID, Key: e.Name}
	object.Doc, _ = json.Marshal(e.doc)
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		if made != nil {
			if root, err = s.keepRoot(tx, pass, e, made); err != nil {
				return err
			}
		}
		return tx.PutObject(object, 0)
	})
	if err != nil {
		opened.Close()
		return nil, err
	}
	if made != nil {
		s.secrets.Announce(e.Tenant, e.Config.RootCredentialsPath, root)
	}
	e.object, e.Version = object, object.Version
	s.noteRoot(ctx, e, root)
	s.liveOf(e).replace(opened, e.Version, root).Release()
	return s.show(ctx, e)
}

// prepareNew proves a new engine by a connection, with the root that was made for it where one was.
func (s *Service) prepareNew(ctx context.Context, pass *access.Pass, e *Engine, made map[string]statement.Secret) (engine.Engine, int, error) {
	if made == nil {
		if err := mayAim(pass, e.Config); err != nil {
			return nil, 0, err
		}
		return s.try(ctx, e)
	}
	opened, err := s.open(ctx, e, made)
	if err != nil {
		return nil, 0, configFault(e.Name, err)
	}
	e.doc.SourceID = opened.SourceID()
	return opened, 0, nil
}

// change proves an engine's new document by a connection and stores it in the place of the old.
func (s *Service) change(ctx context.Context, pass *access.Pass, object *store.Object, doc *engineDoc, force bool, wait time.Duration) (*api.Engine, bool, error) {
	old, err := s.engine(object)
	if err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	if old.doc.State == stateDeleting {
		return nil, false, pass.Record(ctx, old.Issues())
	}
	doc.Accepted = old.doc.Accepted
	next, err := s.check(old.Tenant, old.ID, doc)
	if err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	if next.kind.Name() != old.kind.Name() {
		return nil, false, pass.Record(ctx, fault.New(fault.InvalidConfig, "an engine's type cannot be changed: make another engine"))
	}
	if next.Config.Endpoint != old.Config.Endpoint || next.Config.RootCredentialsPath != old.Config.RootCredentialsPath ||
		!slices.Equal(next.Config.SecretPaths, old.Config.SecretPaths) {
		if err := mayAim(pass, next.Config); err != nil {
			return nil, false, pass.Record(ctx, err)
		}
	}
	if err := s.setTerms(ctx, old, next); err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	opened, root, err := s.try(ctx, next)
	if err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	var fence *store.Fence
	var version int64
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		fence = nil
		if now := cfg.Object(old.Tenant, store.KindEngine, old.ID); now == nil || now.Version != old.Version {
			return fault.New(fault.VersionConflict, "engine %s was changed meanwhile: read it and send the change again", old.Name)
		}
		if doc.SourceID != old.doc.SourceID {
			if err := tx.LockTenant(old.Tenant, true); err != nil {
				return err
			}
			n, err := living(tx, old.ID, "")
			if err != nil {
				return err
			}
			if n > 0 && !force {
				return fault.New(fault.EngineInUse, "the new configuration reaches another server, and %d living leases are on the old one: revoke them first, or repeat with ?force=true; if the server was rebuilt, use accept-source", n).With("active_leases", n)
			}
			if n > 0 {
				fence = &store.Fence{Tenant: old.Tenant, EngineID: old.ID, Reason: api.ReasonRevoked, By: pass.Caller().Identity}
				if err := s.leases.Fence(tx, fence); err != nil {
					return err
				}
				return s.mark(tx, old.object, func(d *engineDoc) { d.State, d.Next = stateMoving, doc })
			}
		}
		object := old.object.Clone()
		object.Doc, _ = json.Marshal(doc)
		if err := tx.PutObject(object, old.Version); err != nil {
			return err
		}
		version = object.Version
		return nil
	})
	if err != nil || fence != nil {
		opened.Close()
	} else {
		s.noteRoot(ctx, next, root)
		s.liveOf(next).replace(opened, version, root).Release()
	}
	if err != nil {
		return nil, false, err
	}
	if fence != nil {
		if _, err := s.leases.Await(ctx, fence, wait); err != nil {
			return nil, false, err
		}
		if err := s.Drained(ctx, old.Tenant, old.ID); err != nil {
			return nil, false, err
		}
	}
	now, err := s.EngineByID(s.store.Config(), old.Tenant, old.ID)
	if err != nil {
		return nil, false, err
	}
	shown, err := s.show(ctx, now)
	return shown, now.doc.State == stateMoving, err
}

// try opens the source of e and notes which server it reached.
func (s *Service) try(ctx context.Context, e *Engine) (engine.Engine, int, error) {
	found, err := s.reopen(ctx, e, true)
	if err != nil {
		return nil, 0, configFault(e.Name, err)
	}
	e.doc.SourceID = found.engine.SourceID()
	return found.engine, found.version, nil
}

// mark changes an engine's stored document.
func (s *Service) mark(tx store.Tx, o *store.Object, fn func(*engineDoc)) error {
	return tx.UpdateObject(o.Tenant, store.KindEngine, o.ID, func(o *store.Object) error {
		doc := new(engineDoc)
		if err := json.Unmarshal(o.Doc, doc); err != nil {
			return err
		}
		fn(doc)
		var err error
		o.Doc, err = json.Marshal(doc)
		return err
	})
}

// configFault is Fault for a configuration that is being saved: what the administrator can mend
// in the configuration or at the source is invalid_config.
func configFault(name string, err error) error {
	f := Fault(name, err)
	if k := engine.KindOf(err); k == engine.Misconfigured {
		return fault.New(fault.InvalidConfig, "engine %s cannot work so: %s", name, Reason(err)).Because(err)
	}
	return f
}
