package source

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// CreateEngine stores a new engine after a test connection; nothing is stored if that fails.
func (s *Service) CreateEngine(ctx context.Context, c *access.Caller, req *api.EngineRequest) (*api.Engine, error) {
	pass, err := s.admitEngine(ctx, c, "dynamic_engine_create", req.Name)
	if err != nil {
		return nil, err
	}
	if old := s.store.Config().ByKey(c.Tenant, store.KindEngine, req.Name); old != nil {
		return nil, pass.Record(ctx, fault.New(fault.EngineExists, "engine %s exists: change it with PATCH or PUT", req.Name))
	}
	e, err := s.newEngine(c.Tenant, req)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	return s.saveNew(ctx, pass, e)
}

// PutEngine creates or replaces an engine. With force, leases made on another server than the one
// that the new configuration reaches are revoked there first; moved tells that this is going on.
func (s *Service) PutEngine(ctx context.Context, c *access.Caller, name string, req *api.EngineRequest, force bool, wait time.Duration) (e *api.Engine, created, moved bool, err error) {
	if req.Name != "" && req.Name != name {
		return nil, false, false, fault.New(fault.InvalidConfig, "the path names engine %s and the body %s", name, req.Name)
	}
	req.Name = name
	object := s.store.Config().ByKey(c.Tenant, store.KindEngine, name)
	action := "dynamic_engine_update"
	if object == nil {
		action = "dynamic_engine_create"
	}
	pass, err := s.admitEngine(ctx, c, action, name)
	if err != nil {
		return nil, false, false, err
	}
	next, err := s.newEngine(c.Tenant, req)
	if err != nil {
		return nil, false, false, pass.Record(ctx, err)
	}
	if object == nil {
		e, err = s.saveNew(ctx, pass, next)
		return e, true, false, err
	}
	e, moved, err = s.change(ctx, pass, object, next.doc, force, wait)
	return e, false, moved, err
}

// PatchEngine changes what is given; config is merged key by key.
func (s *Service) PatchEngine(ctx context.Context, c *access.Caller, name string, req *api.EnginePatch, force bool, wait time.Duration) (e *api.Engine, moved bool, err error) {
	pass, err := s.admitEngine(ctx, c, "dynamic_engine_update", name)
	if err != nil {
		return nil, false, err
	}
	old, err := s.Engine(s.store.Config(), c.Tenant, name)
	if err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	next, err := s.patched(old.doc, req)
	if err != nil {
		return nil, false, pass.Record(ctx, err)
	}
	return s.change(ctx, pass, old.object, next, force, wait)
}

// GetEngine shows one engine.
func (s *Service) GetEngine(ctx context.Context, c *access.Caller, name string) (*api.Engine, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryDynamicAdmin,
		Any: []access.Right{read(name, "")}})
	if err != nil {
		return nil, err
	}
	e, err := s.Engine(s.store.Config(), c.Tenant, name)
	var shown *api.Engine
	if err == nil {
		shown, err = s.show(ctx, e)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return shown, nil
}

// ListEngines lists the engines that the caller may see, in the order of their names.
func (s *Service) ListEngines(ctx context.Context, c *access.Caller, after string, limit int) (*api.EngineList, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: "dynamic", Category: access.CategoryDynamicAdmin,
		Any: []access.Right{{Scope: access.ScopeDynamicRead}}})
	if err != nil {
		return nil, err
	}
	list := &api.EngineList{Engines: []api.Engine{}}
	for _, o := range s.store.Config().List(c.Tenant, store.KindEngine, "") {
		if o.Key <= after || !s.door.Allowed(c, read(o.Key, "")) {
			continue
		}
		if len(list.Engines) == limit {
			last := list.Engines[limit-1].Name
			list.Cursor, list.HasMore = &last, true
			break
		}
		e, err := s.engine(o)
		if err != nil {
			return nil, pass.Record(ctx, err)
		}
		shown, err := s.show(ctx, e)
		if err != nil {
			return nil, pass.Record(ctx, err)
		}
		list.Engines = append(list.Engines, *shown)
	}
	return list, pass.Record(ctx, nil)
}

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

// AcceptSource states that the server behind the engine is another one than leases were made on,
// and that this is right: those leases are settled on the present server from now on.
func (s *Service) AcceptSource(ctx context.Context, c *access.Caller, name string) (*api.Engine, error) {
	pass, err := s.admitEngine(ctx, c, "dynamic_engine_update", name)
	if err != nil {
		return nil, err
	}
	e, err := s.Engine(s.store.Config(), c.Tenant, name)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	s.drop(e.ID) // the very server that answers now is the one that is accepted
	h, err := s.Acquire(ctx, e)
	if err != nil {
		return nil, pass.Record(ctx, Fault(name, err))
	}
	defer h.Release()
	pass.Set("accept_source", h.SourceID())
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o := cfg.Object(c.Tenant, store.KindEngine, e.ID)
		if o == nil {
			return fault.New(fault.EngineNotFound, "engine %s was deleted meanwhile", name)
		}
		return s.mark(tx, o, func(d *engineDoc) {
			if d.SourceID != h.SourceID() {
				d.Accepted = append(slices.DeleteFunc(d.Accepted, func(id string) bool { return id == h.SourceID() }), d.SourceID)
				d.SourceID = h.SourceID()
			}
		})
	})
	if err != nil {
		return nil, err
	}
	now, err := s.Engine(s.store.Config(), c.Tenant, name)
	if err != nil {
		return nil, err
	}
	return s.show(ctx, now)
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
	return tx.DeleteObject(e.Tenant, store.KindEngine, e.ID)
}

func (s *Service) admitEngine(ctx context.Context, c *access.Caller, action, name string) (*access.Pass, error) {
	if !nameForm.MatchString(name) {
		return nil, fault.New(fault.InvalidConfig, "an engine's name has 1 to 63 characters of a-z 0-9 _ - and begins with a letter")
	}
	return s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryDynamicAdmin,
		Any: []access.Right{manage(name, "")}, Extra: map[string]any{"engine": name}})
}

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
	config, _ := json.Marshal(fields)
	doc := &engineDoc{Name: req.Name, Type: typ, Plugin: plugin, Config: config,
		DefaultTTL: DefaultTTL, MaxTTL: MaxTTL, Metadata: req.Metadata}
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
	if err := mayAim(pass, e.Config); err != nil {
		return nil, pass.Record(ctx, err)
	}
	opened, root, err := s.try(ctx, e)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	object := &store.Object{Tenant: e.Tenant, Kind: store.KindEngine, ID: e.ID, Key: e.Name}
	object.Doc, _ = json.Marshal(e.doc)
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error { return tx.PutObject(object, 0) })
	if err != nil {
		opened.Close()
		return nil, err
	}
	e.object, e.Version = object, object.Version
	s.liveOf(e).replace(opened, e.Version, root).Release()
	return s.show(ctx, e)
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
	root, version, err := s.root(ctx, e)
	if err != nil {
		return nil, 0, err
	}
	opened, err := s.open(ctx, e, root)
	if err != nil {
		return nil, 0, configFault(e.Name, err)
	}
	e.doc.SourceID = opened.SourceID()
	return opened, version, nil
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

// show is the engine as the caller sees it.
func (s *Service) show(ctx context.Context, e *Engine) (*api.Engine, error) {
	config, err := e.doc.wireConfig()
	if err != nil {
		return nil, err
	}
	out := &api.Engine{ID: e.ID, Name: e.Name, Type: e.doc.Type, Config: config, DefaultTTL: e.doc.DefaultTTL,
		MaxTTL: e.doc.MaxTTL, MaxLeases: e.doc.MaxLeases, Metadata: e.doc.Metadata, Status: s.status(e),
		RoleCount: len(s.store.Config().List(e.Tenant, store.KindRole, e.Name+"/"))}
	if e.object != nil {
		out.CreatedAt, out.UpdatedAt = e.object.CreatedAt, e.object.UpdatedAt
	}
	err = s.store.Read(ctx, func(r store.Reader) (err error) {
		out.ActiveLeases, err = living(r, e.ID, "")
		return err
	})
	return out, err
}

// status is the engine's state as last seen, without asking the source.
func (s *Service) status(e *Engine) string {
	if e.doc.State != "" {
		return api.EngineDeleting
	}
	l := s.liveOf(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil && (l.now == nil || l.now.version != e.Version) || l.down {
		return api.EngineUnreachable
	}
	return api.EngineHealthy
}

// Observe notes whether the source answered the last operation; the lease manager tells.
func (s *Service) Observe(e *Engine, reachable bool) {
	l := s.liveOf(e)
	l.mu.Lock()
	l.down = !reachable
	l.mu.Unlock()
}

// configFault is Fault for a configuration that is being saved: what the administrator can mend
// in the configuration or at the source is invalid_config.
func configFault(name string, err error) error {
	f := Fault(name, err)
	if k := kindOf(err); k == engine.Misconfigured {
		return fault.New(fault.InvalidConfig, "engine %s cannot work so: %s", name, Reason(err)).Because(err)
	}
	return f
}
