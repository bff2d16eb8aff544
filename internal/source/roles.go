package source

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// CreateRole stores a new role after the source has shown that it can work.
func (s *Service) CreateRole(ctx context.Context, c *access.Caller, engineName string, body []byte) (*api.Role, error) {
	req, spec, err := splitRole(body)
	if err != nil {
		return nil, err
	}
	pass, err := s.admitRole(ctx, c, "dynamic_role_create", engineName, req.Name)
	if err != nil {
		return nil, err
	}
	if old := s.store.Config().ByKey(c.Tenant, store.KindRole, engineName+"/"+req.Name); old != nil {
		return nil, pass.Record(ctx, fault.New(fault.RoleExists, "role %s/%s exists: change it with PATCH or PUT", engineName, req.Name))
	}
	return s.saveRole(ctx, pass, engineName, nil, req, spec)
}

// PutRole creates or replaces a role. Leases that live keep the recipe they were made by.
func (s *Service) PutRole(ctx context.Context, c *access.Caller, engineName, name string, body []byte) (r *api.Role, created bool, err error) {
	req, spec, err := splitRole(body)
	if err != nil {
		return nil, false, err
	}
	if req.Name != "" && req.Name != name {
		return nil, false, fault.New(fault.InvalidRole, "the path names role %s and the body %s", name, req.Name)
	}
	req.Name = name
	old := s.store.Config().ByKey(c.Tenant, store.KindRole, engineName+"/"+name)
	action := "dynamic_role_update"
	if old == nil {
		action = "dynamic_role_create"
	}
	pass, err := s.admitRole(ctx, c, action, engineName, name)
	if err != nil {
		return nil, false, err
	}
	r, err = s.saveRole(ctx, pass, engineName, old, req, spec)
	return r, old == nil, err
}

// PatchRole changes what is given; a field of the engine's own is removed by null.
func (s *Service) PatchRole(ctx context.Context, c *access.Caller, engineName, name string, body []byte) (*api.Role, error) {
	pass, err := s.admitRole(ctx, c, "dynamic_role_update", engineName, name)
	if err != nil {
		return nil, err
	}
	old := s.store.Config().ByKey(c.Tenant, store.KindRole, engineName+"/"+name)
	if old == nil {
		return nil, pass.Record(ctx, roleNotFound(engineName, name))
	}
	doc, err := store.Decode[roleDoc](old)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	merged, err := mergeRole(doc, body)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	req, spec, err := splitRole(merged)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	return s.saveRole(ctx, pass, engineName, old, req, spec)
}

// GetRole shows one role.
func (s *Service) GetRole(ctx context.Context, c *access.Caller, engineName, name string) (*api.Role, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryDynamicAdmin,
		Any: []access.Right{read(engineName, name)}})
	if err != nil {
		return nil, err
	}
	var shown *api.Role
	o := s.store.Config().ByKey(c.Tenant, store.KindRole, engineName+"/"+name)
	if o == nil {
		err = roleNotFound(engineName, name)
	} else {
		shown, err = s.showRole(ctx, o)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return shown, nil
}

// ListRoles lists the engine's roles that the caller may see, in the order of their names.
func (s *Service) ListRoles(ctx context.Context, c *access.Caller, engineName, after string, limit int) (*api.RoleList, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: "dynamic/" + engineName, Category: access.CategoryDynamicAdmin,
		Any: []access.Right{{Scope: access.ScopeDynamicRead}}})
	if err != nil {
		return nil, err
	}
	whole := pass.Check(read(engineName, ""))
	if _, err := s.Engine(s.store.Config(), c.Tenant, engineName); err != nil {
		return nil, pass.Record(ctx, cmp.Or[error](whole, err)) // who may not see the engine is not told whether there is one
	}
	list := &api.RoleList{Roles: []api.Role{}}
	for _, o := range s.store.Config().List(c.Tenant, store.KindRole, engineName+"/") {
		name := strings.TrimPrefix(o.Key, engineName+"/")
		if name <= after || !s.door.Allowed(c, read(engineName, name)) {
			continue
		}
		if len(list.Roles) == limit {
			last := list.Roles[limit-1].Name
			list.Cursor, list.HasMore = &last, true
			break
		}
		shown, err := s.showRole(ctx, o)
		if err != nil {
			return nil, pass.Record(ctx, err)
		}
		list.Roles = append(list.Roles, *shown)
	}
	if len(list.Roles) == 0 && after == "" && whole != nil {
		return nil, pass.Record(ctx, whole)
	}
	return list, pass.Record(ctx, nil)
}

// DeleteRole removes a role without living leases. With force its leases are revoked first; it is
// gone when r is nil, else it goes with its last lease.
func (s *Service) DeleteRole(ctx context.Context, c *access.Caller, engineName, name string, force bool, wait time.Duration) (*api.Role, error) {
	pass, err := s.admitRole(ctx, c, "dynamic_role_delete", engineName, name)
	if err != nil {
		return nil, err
	}
	var fence *store.Fence
	var engineID, id string
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		e, err := s.Engine(cfg, c.Tenant, engineName)
		if err != nil {
			return err
		}
		o := cfg.ByKey(c.Tenant, store.KindRole, engineName+"/"+name)
		if o == nil {
			return roleNotFound(engineName, name)
		}
		engineID, id, fence = e.ID, o.ID, nil
		if err := tx.LockTenant(c.Tenant, true); err != nil {
			return err
		}
		n, err := living(tx, e.ID, name)
		switch {
		case err != nil:
			return err
		case n == 0:
			return tx.DeleteObject(c.Tenant, store.KindRole, o.ID)
		case !force:
			return fault.New(fault.RoleInUse, "role %s/%s has %d living leases: revoke them first, or delete with ?force=true", engineName, name, n).With("active_leases", n)
		}
		fence = &store.Fence{Tenant: c.Tenant, EngineID: e.ID, Role: name, Reason: api.ReasonRoleDeleted, By: c.Identity}
		if err := s.leases.Fence(tx, fence); err != nil {
			return err
		}
		return tx.UpdateObject(c.Tenant, store.KindRole, o.ID, func(o *store.Object) error {
			doc := new(roleDoc)
			if err := json.Unmarshal(o.Doc, doc); err != nil {
				return err
			}
			doc.State = stateDeleting
			o.Doc, err = json.Marshal(doc)
			return err
		})
	})
	if err != nil || fence == nil {
		return nil, err
	}
	if _, err := s.leases.Await(ctx, fence, wait); err != nil {
		return nil, err
	}
	if err := s.Drained(ctx, c.Tenant, engineID); err != nil {
		return nil, err
	}
	if o := s.store.Config().Object(c.Tenant, store.KindRole, id); o != nil {
		return s.showRole(ctx, o)
	}
	return nil, nil
}

// removeDrainedRoles deletes the roles that waited for their last lease.
func (s *Service) removeDrainedRoles(tx store.Tx, e *Engine) error {
	roles, err := tx.Objects(e.Tenant, store.KindRole, e.Name+"/", "", 0)
	if err != nil {
		return err
	}
	for _, o := range roles {
		doc := new(roleDoc)
		if err := json.Unmarshal(o.Doc, doc); err != nil {
			return err
		}
		if doc.State != stateDeleting {
			continue
		}
		n, err := living(tx, e.ID, doc.Name)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		entry := &api.AuditEntry{Action: "dynamic_role_delete", IdentityType: "system", IdentityID: "system:lease",
			SecretPath: "dynamic/" + o.Key, Success: true, ExtraData: map[string]any{"engine": e.Name, "role": doc.Name}}
		if err := tx.Audit(e.Tenant, entry); err != nil {
			return err
		}
		if err := tx.DeleteObject(e.Tenant, store.KindRole, o.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) admitRole(ctx context.Context, c *access.Caller, action, engineName, name string) (*access.Pass, error) {
	if !nameForm.MatchString(name) {
		return nil, fault.New(fault.InvalidRole, "a role's name has 1 to 63 characters of a-z 0-9 _ - and begins with a letter")
	}
	return s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryDynamicAdmin,
		Any: []access.Right{manage(engineName, name)}, Extra: map[string]any{"engine": engineName, "role": name}})
}

func roleNotFound(engineName, name string) error {
	return fault.New(fault.RoleNotFound, "engine %s has no role %q", engineName, name)
}

// saveRole checks a role, proves it at the source, and stores it.
func (s *Service) saveRole(ctx context.Context, pass *access.Pass, engineName string, old *store.Object, req *api.RoleRequest, spec json.RawMessage) (*api.Role, error) {
	tenant := pass.Caller().Tenant
	e, err := s.Engine(s.store.Config(), tenant, engineName)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	doc, err := s.newRole(e, req, spec)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	if doc.Warnings, err = s.prove(ctx, e, doc); err != nil {
		return nil, pass.Record(ctx, err)
	}
	if old != nil {
		if before, err := store.Decode[roleDoc](old); err == nil && before.State != "" {
			return nil, pass.Record(ctx, fault.New(fault.RoleInUse, "role %s/%s is being deleted: make it again when its leases have ended", engineName, doc.Name))
		}
	}
	object := &store.Object{Tenant: tenant, Kind: store.KindRole, ID: ident.New("role"), Key: engineName + "/" + doc.Name}
	var version int64
	if old != nil {
		object, version = old.Clone(), old.Version
	}
	if object.Doc, err = json.Marshal(doc); err != nil {
		return nil, pass.Record(ctx, err)
	}
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		now := cfg.Object(tenant, store.KindEngine, e.ID)
		if now == nil || now.Version != e.Version {
			return fault.New(fault.VersionConflict, "engine %s was changed meanwhile: send the role again", engineName)
		}
		o := object.Clone()
		if err := tx.PutObject(o, version); err != nil {
			return err
		}
		object.CreatedAt, object.UpdatedAt, object.Version = o.CreatedAt, o.UpdatedAt, o.Version
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.showRole(ctx, object)
}

// prove asks the source whether the role can work, and makes there what its credentials share.
func (s *Service) prove(ctx context.Context, e *Engine, doc *roleDoc) ([]string, error) {
	h, err := s.Acquire(ctx, e)
	if err != nil {
		return nil, Fault(e.Name, err)
	}
	defer h.Release()
	if _, ok := h.Engine.(engine.RolePreparer); !ok {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.Config.OperationTimeout)
	defer cancel()
	var warnings []string
	err = s.Follow(ctx, e, h, func() (err error) {
		warnings, err = h.Engine.(engine.RolePreparer).PrepareRole(ctx, doc.Name, doc.parsed) //nolint:forcetypeassert // all of an engine are of one type
		return err
	})
	if err != nil {
		return nil, configFault(e.Name, err)
	}
	return warnings, nil
}

func (s *Service) newRole(e *Engine, req *api.RoleRequest, spec json.RawMessage) (*roleDoc, error) {
	if e.doc.State != "" {
		return nil, e.Issues()
	}
	doc := &roleDoc{Engine: e.Name, EngineID: e.ID, Name: req.Name, DefaultTTL: req.DefaultTTL, MaxTTL: req.MaxTTL,
		TieToToken: req.TieToToken, Renewable: req.Renewable == nil || *req.Renewable, Metadata: req.Metadata, Spec: spec}
	if req.MaxLeases != nil {
		doc.MaxLeases = *req.MaxLeases
	}
	switch {
	case doc.MaxLeases < 0:
		return nil, fault.New(fault.InvalidRole, "max_leases is negative: leave it out for no quota")
	case doc.MaxTTL != nil && *doc.MaxTTL > e.doc.MaxTTL:
		return nil, fault.New(fault.InvalidDuration, "the role's max_ttl %s is longer than the engine's %s", *doc.MaxTTL, e.doc.MaxTTL).With("max_ttl", e.doc.MaxTTL.String())
	}
	if err := CheckMetadata(doc.Metadata); err != nil {
		return nil, err
	}
	if err := doc.read(e.kind); err != nil {
		return nil, err
	}
	return doc, doc.checkLife(e, req.Renewable != nil && *req.Renewable)
}

// checkLife refuses life times of a role that contradict each other or what its source can do.
func (d *roleDoc) checkLife(e *Engine, renewable bool) error {
	bounds := d.bounds(e)
	_, longest := d.ttls(e)
	switch {
	case bounds.Longest > 0 && d.MaxTTL != nil && time.Duration(*d.MaxTTL) > bounds.Longest:
		return fault.New(fault.InvalidDuration, "the role's max_ttl %s is longer than its credentials can live at the source, which is %s", *d.MaxTTL, api.Duration(bounds.Longest)).
			With("max_ttl", api.Duration(bounds.Longest).String())
	case d.DefaultTTL != nil && time.Duration(*d.DefaultTTL) > longest:
		return fault.New(fault.InvalidDuration, "the role's default_ttl %s is longer than its max_ttl %s", *d.DefaultTTL, api.Duration(longest)).With("max_ttl", api.Duration(longest).String())
	case longest < bounds.Shortest || d.DefaultTTL != nil && time.Duration(*d.DefaultTTL) < bounds.Shortest:
		return fault.New(fault.InvalidDuration, "the source makes no credential for this role that lives less than %s: raise default_ttl and max_ttl of role and engine", api.Duration(bounds.Shortest)).
			With("min_ttl", api.Duration(bounds.Shortest).String())
	case bounds.Fixed && renewable:
		return fault.New(fault.InvalidRole, "the source cannot move the end of this role's credentials: leave renewable out")
	}
	return nil
}

// commonRoleFields are api.RoleRequest's; every other field of a role is the engine's own.
var commonRoleFields = []string{"name", "default_ttl", "max_ttl", "max_leases", "tie_to_token", "renewable", "metadata"}

// splitRole reads the common fields of a role strictly and leaves the others to the engine.
func splitRole(body []byte) (*api.RoleRequest, json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := strictjson.Decode(body, &fields); err != nil {
		return nil, nil, err
	}
	common := map[string]json.RawMessage{}
	for _, name := range commonRoleFields {
		if v, ok := fields[name]; ok {
			common[name] = v
			delete(fields, name)
		}
	}
	raw, _ := json.Marshal(common)
	req := new(api.RoleRequest)
	if err := strictjson.Decode(raw, req); err != nil {
		return nil, nil, err
	}
	spec, _ := json.Marshal(fields)
	return req, spec, nil
}

// mergeRole is a role's document as a request, with a patch merged in key by key.
func mergeRole(doc *roleDoc, patch []byte) ([]byte, error) {
	var fields, changes map[string]json.RawMessage
	if err := strictjson.Decode(patch, &changes); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc.Spec, &fields); err != nil {
		return nil, err
	}
	var renewable *bool // said only where it is not what a role is without a word
	if !doc.Renewable {
		renewable = &doc.Renewable
	}
	common, err := json.Marshal(api.RoleRequest{Name: doc.Name, DefaultTTL: doc.DefaultTTL, MaxTTL: doc.MaxTTL,
		MaxLeases: &doc.MaxLeases, TieToToken: doc.TieToToken, Renewable: renewable, Metadata: doc.Metadata})
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(common, &fields); err != nil {
		return nil, err
	}
	for k, v := range changes {
		switch {
		case k == "name" && string(v) != `"`+doc.Name+`"`:
			return nil, fault.New(fault.InvalidRole, "a role cannot be renamed: create another and delete this one")
		case string(v) == "null":
			delete(fields, k)
		default:
			fields[k] = v
		}
	}
	return json.Marshal(fields)
}

// showRole is the role as the caller sees it.
func (s *Service) showRole(ctx context.Context, o *store.Object) (*api.Role, error) {
	doc, err := store.Decode[roleDoc](o)
	if err != nil {
		return nil, err
	}
	eo := s.store.Config().Object(o.Tenant, store.KindEngine, doc.EngineID)
	if eo == nil {
		return nil, fault.New(fault.EngineNotFound, "engine %s was deleted meanwhile", doc.Engine)
	}
	e, err := s.engine(eo)
	if err == nil {
		err = doc.read(e.kind)
	}
	if err != nil {
		return nil, err
	}
	out := &api.Role{Name: doc.Name, Engine: doc.Engine, MaxLeases: doc.MaxLeases, TieToToken: doc.TieToToken,
		Renewable: doc.Renewable && !doc.bounds(e).Fixed, Metadata: doc.Metadata, Warnings: doc.Warnings, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
	def, longest := doc.ttls(e)
	out.DefaultTTL, out.MaxTTL = api.Duration(def), api.Duration(longest)
	if err := json.Unmarshal(doc.Spec, &out.Spec); err != nil {
		return nil, err
	}
	err = s.store.Read(ctx, func(r store.Reader) (err error) {
		out.ActiveLeases, err = living(r, doc.EngineID, doc.Name)
		return err
	})
	return out, err
}
