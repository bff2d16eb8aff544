package source

import (
	"context"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
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

func (s *Service) admitEngine(ctx context.Context, c *access.Caller, action, name string) (*access.Pass, error) {
	if !nameForm.MatchString(name) {
		return nil, fault.New(fault.InvalidConfig, "an engine's name has 1 to 63 characters of a-z 0-9 _ - and begins with a letter")
	}
	return s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryDynamicAdmin,
		Any: []access.Right{manage(name, "")}, Extra: map[string]any{"engine": name}})
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
