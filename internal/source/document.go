// Package source administers engines and roles and keeps the live connection to each source.
//
// An engine and a role are configuration objects of the store; what one needs of them to issue a
// credential is an [Engine] and a [Role], decoded once per version. A source itself is opened when
// it is first needed and again when its configuration or its root secret changed ([Service.Acquire]).
package source

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// The defaults of api.md section 1.
const (
	DefaultTTL = api.Duration(time.Hour)
	MaxTTL     = api.Duration(24 * time.Hour)
)

// States of engines and roles that are on their way out.
const (
	stateDeleting = "deleting"
	stateMoving   = "moving" // waits for its old server's leases to end; Next is what comes then
)

// engineDoc is an engine as it is stored. Config is the engine's own part, without secrets.
type engineDoc struct {
	Name       string            `json:"name"`
	Type       string            `json:"type"`             // database, or the engine's own name
	Plugin     string            `json:"plugin,omitempty"` // which database
	Config     json.RawMessage   `json:"config"`
	DefaultTTL api.Duration      `json:"default_ttl"`
	MaxTTL     api.Duration      `json:"max_ttl"`
	MaxLeases  int64             `json:"max_leases,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`

	// SourceID is the server that the configuration reached when it was saved; Accepted are
	// earlier ones whose leases an administrator said are to be settled on the present one.
	SourceID string     `json:"source_id"`
	Accepted []string   `json:"accepted,omitempty"`
	State    string     `json:"state,omitempty"`
	Next     *engineDoc `json:"next,omitempty"`

	KeyTerms []engine.KeyTerms `json:"key_terms,omitempty"`
}

// roleDoc is a role as it is stored. Spec is the engine's own part.
type roleDoc struct {
	Engine     string            `json:"engine"`
	EngineID   string            `json:"engine_id"`
	Name       string            `json:"name"`
	DefaultTTL *api.Duration     `json:"default_ttl,omitempty"`
	MaxTTL     *api.Duration     `json:"max_ttl,omitempty"`
	MaxLeases  int64             `json:"max_leases,omitempty"`
	TieToToken bool              `json:"tie_to_token,omitempty"`
	Renewable  bool              `json:"renewable"`
	Metadata   map[string]string `json:"metadata,omitempty"`
	Spec       json.RawMessage   `json:"spec"`
	Warnings   []string          `json:"warnings,omitempty"`
	State      string            `json:"state,omitempty"`

	parse  sync.Once
	parsed engine.Role
	err    error
}

// Engine is an engine's configuration at one version. Read only.
type Engine struct {
	ID      string
	Tenant  string
	Name    string
	Version int64
	Config  engine.Config
	doc     *engineDoc
	kind    engine.Type
	object  *store.Object
}

// MaxTTL is the longest life of the engine's credentials; MaxLeases 0 for no quota.
func (e *Engine) MaxTTL() time.Duration { return time.Duration(e.doc.MaxTTL) }

// MaxLeases is the quota of living leases, 0 for none.
func (e *Engine) MaxLeases() int64 { return e.doc.MaxLeases }

// Issues tells whether the engine may issue now: not while it is deleted or moved to another server.
func (e *Engine) Issues() error {
	if e.doc.State != "" {
		return fault.New(fault.EngineInUse, "engine %s is being %s: it issues nothing until its leases have ended",
			e.Name, map[string]string{stateDeleting: "deleted", stateMoving: "moved to another server"}[e.doc.State])
	}
	return nil
}

// ReconcileEvery is the longest time between two scheduled reconciles, 0 where there is to be none:
// also while the engine is deleted or moved.
func (e *Engine) ReconcileEvery() time.Duration {
	if e.doc.State != "" || e.Config.Reconcile == "" || e.Config.Reconcile == engine.ReconcileOff {
		return 0
	}
	return e.Config.ReconcileInterval
}

// Accepts tells whether leases made on the server sourceID are to be settled on the present one:
// it is that server, or the one that an administrator accepted in its place.
func (e *Engine) Accepts(sourceID, present string) bool {
	return sourceID == present || present == e.doc.SourceID && slices.Contains(e.doc.Accepted, sourceID)
}

// Reached tells whether the server reached is the engine's: nothing is issued on another one, since
// nobody has said that it is right.
func (e *Engine) Reached(sourceID string) error {
	if sourceID == e.doc.SourceID {
		return nil
	}
	return &engine.Error{Kind: engine.WrongServer, Reason: "restore the former server, or state with accept-source that this one is right"}
}

// Role is a role at one version. Read only.
type Role struct {
	ID         string
	Name       string
	Version    int64
	DefaultTTL time.Duration
	MaxTTL     time.Duration
	MaxLeases  int64
	TieToToken bool
	Renewable  bool
	Shortest   time.Duration // that a credential of the role can live; 0 for no bound
	Spec       engine.Role
}

// Engine finds an engine by name: engine_not_found.
func (s *Service) Engine(cfg *store.Config, tenant, name string) (*Engine, error) {
	o := cfg.ByKey(tenant, store.KindEngine, name)
	if o == nil {
		return nil, fault.New(fault.EngineNotFound, "there is no engine %q: list them with GET /v1/dynamic/engines", name)
	}
	return s.engine(o)
}

// EngineByID finds an engine by its id: engine_not_found.
func (s *Service) EngineByID(cfg *store.Config, tenant, id string) (*Engine, error) {
	o := cfg.Object(tenant, store.KindEngine, id)
	if o == nil {
		return nil, fault.New(fault.EngineNotFound, "there is no engine with the id %s", id)
	}
	return s.engine(o)
}

func (s *Service) engine(o *store.Object) (*Engine, error) {
	doc, err := store.Decode[engineDoc](o)
	if err != nil {
		return nil, err
	}
	kind, err := s.kind(doc)
	if err != nil {
		return nil, err
	}
	config, err := s.config(o.ID, doc, kind)
	if err != nil {
		return nil, err
	}
	return &Engine{ID: o.ID, Tenant: o.Tenant, Name: doc.Name, Version: o.Version, Config: config,
		doc: doc, kind: kind, object: o}, nil
}

// config is the engine's part of the document, parsed once per document: every request needs it.
func (s *Service) config(id string, doc *engineDoc, kind engine.Type) (engine.Config, error) {
	if p, ok := s.configs.Load(id); ok && p.(*parsed).of == doc { //nolint:forcetypeassert // nothing else is stored
		return p.(*parsed).config, nil //nolint:forcetypeassert // as above
	}
	config, err := kind.ParseConfig(doc.Config)
	if err == nil {
		s.configs.Store(id, &parsed{doc, config})
	}
	return config, err
}

// parsed is what an engine's document came to. It holds for that very document: a version that was
// never committed may come again with another.
type parsed struct {
	of     *engineDoc
	config engine.Config
}

// Role finds a role of the engine by name: role_not_found.
func (s *Service) Role(cfg *store.Config, e *Engine, name string) (*Role, error) {
	o := cfg.ByKey(e.Tenant, store.KindRole, e.Name+"/"+name)
	if o == nil {
		return nil, fault.New(fault.RoleNotFound, "engine %s has no role %q: list them with GET /v1/dynamic/engines/%s/roles",
			e.Name, name, e.Name)
	}
	doc, err := store.Decode[roleDoc](o)
	if err != nil {
		return nil, err
	}
	if err := doc.read(e.kind); err != nil {
		return nil, err
	}
	if doc.State != "" {
		return nil, fault.New(fault.RoleInUse, "role %s/%s is being deleted: it issues nothing more", e.Name, name)
	}
	bounds := doc.bounds(e)
	r := &Role{ID: o.ID, Name: doc.Name, Version: o.Version, MaxLeases: doc.MaxLeases, TieToToken: doc.TieToToken,
		Renewable: doc.Renewable && !bounds.Fixed, Shortest: bounds.Shortest, Spec: doc.parsed}
	r.DefaultTTL, r.MaxTTL = doc.ttls(e)
	return r, nil
}

// read parses the engine's own part, once.
func (d *roleDoc) read(kind engine.Type) error {
	d.parse.Do(func() { d.parsed, d.err = kind.ParseRole(d.Spec) })
	return d.err
}

// bounds are the limits that the source of the engine sets to a role that was read.
func (d *roleDoc) bounds(e *Engine) engine.Bounds {
	if e.Config.Bounds != nil {
		return e.Config.Bounds(d.parsed)
	}
	if bounded, ok := d.parsed.(engine.Bounded); ok {
		return bounded.Bounds()
	}
	return engine.Bounds{}
}

// ttls are the life times of a role that was read, within the engine's present ones and what its
// source can do.
func (d *roleDoc) ttls(e *Engine) (def, longest time.Duration) {
	bounds := d.bounds(e)
	longest = e.MaxTTL()
	if bounds.Longest > 0 {
		longest = min(longest, bounds.Longest)
	}
	if d.MaxTTL != nil {
		longest = min(longest, time.Duration(*d.MaxTTL))
	}
	def = time.Duration(e.doc.DefaultTTL)
	if d.DefaultTTL != nil {
		def = time.Duration(*d.DefaultTTL)
	}
	return min(max(def, bounds.Shortest), longest), longest
}

// kind finds the engine's type: invalid_config when this build has none of it.
func (s *Service) kind(d *engineDoc) (engine.Type, error) {
	name := d.Type
	if d.Type == "database" {
		name = d.Plugin
	}
	if t := s.types[name]; t != nil {
		return t, nil
	}
	return nil, fault.New(fault.InvalidConfig, "engine type %q is not known: this server has %s", name, strings.Join(s.typeNames, ", "))
}

// splitType reads "database" with config.plugin, "database.postgresql", or an engine's own name,
// and takes plugin out of the configuration: it names the engine, it is not the engine's to read.
func splitType(kind string, config map[string]json.RawMessage) (typ, plugin string, err error) {
	if raw, ok := config["plugin"]; ok {
		if json.Unmarshal(raw, &plugin) != nil {
			return "", "", fault.New(fault.InvalidConfig, "config.plugin is not a string")
		}
	}
	if dotted, ok := strings.CutPrefix(kind, "database."); ok {
		if plugin != "" && plugin != dotted {
			return "", "", fault.New(fault.InvalidConfig, "type says %q and config.plugin %q: give one of them", kind, plugin)
		}
		return "database", dotted, nil
	}
	switch {
	case kind == "":
		return "", "", fault.New(fault.InvalidConfig, `type is missing: give "database" with config.plugin`)
	case kind == "database" && plugin == "":
		return "", "", fault.New(fault.InvalidConfig, `config.plugin is missing: a database engine names its kind, such as "postgresql"`)
	case kind != "database" && plugin != "":
		return "", "", fault.New(fault.InvalidConfig, "config.plugin is for engines of type database only")
	}
	return kind, plugin, nil
}

// wireConfig is the configuration as shown: the engine's part with the plugin beside it.
func (d *engineDoc) wireConfig() (json.RawMessage, error) {
	if d.Plugin == "" {
		return d.Config, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(d.Config, &fields); err != nil {
		return nil, fmt.Errorf("read the stored configuration of engine %s: %w", d.Name, err)
	}
	fields["plugin"], _ = json.Marshal(d.Plugin)
	return json.Marshal(fields)
}
