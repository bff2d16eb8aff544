package access

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

// Create makes a policy, which is bound to nobody yet.
func (s *Policies) Create(ctx context.Context, c *Caller, req *api.PolicyRequest) (*api.Policy, error) {
	pass, err := s.door.Admit(ctx, c, Ask{Action: "policy_create", Category: CategoryPolicy,
		Any: []Right{policyRight(policy.Write, req.Name)}})
	if err != nil {
		return nil, err
	}
	next := newPolicy(req)
	if err := next.check(req.Name); err != nil {
		return nil, pass.Record(ctx, err)
	}
	pass.Set("policy", req.Name)
	var answer *api.Policy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if err := mayGrant(cfg, c, next.compiled, nil); err != nil {
			return err
		}
		all := cfg.List(c.Tenant, store.KindPolicy, "")
		if len(all) >= maxPolicies {
			return fault.New(fault.InvalidPolicy, "create the policy: there are %d already, which is the most", len(all))
		}
		o := &store.Object{Tenant: c.Tenant, Kind: store.KindPolicy, ID: ident.New(ident.Policy), Key: req.Name, Doc: document(next)}
		if err := ChangeAccess(tx, cfg, []*store.Object{o}, nil); err != nil {
			return err
		}
		answer = showPolicy(cfg, o, next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Replace sets all of a policy but its bindings.
func (s *Policies) Replace(ctx context.Context, c *Caller, id string, req *api.PolicyRequest) (*api.Policy, error) {
	return s.change(ctx, c, id, func(_ string, old *policyDoc) (string, *policyDoc) {
		next := newPolicy(req)
		next.Scope = old.Scope
		return req.Name, next
	})
}

// Patch changes what is given.
func (s *Policies) Patch(ctx context.Context, c *Caller, id string, req *api.PolicyPatch) (*api.Policy, error) {
	return s.change(ctx, c, id, func(name string, old *policyDoc) (string, *policyDoc) {
		next := *old
		set(&name, req.Name)
		set(&next.Description, req.Description)
		set(&next.Rules, req.Rules)
		set(&next.IsActive, req.IsActive)
		return name, &next
	})
}

func set[T any](at, given *T) {
	if given != nil {
		*at = *given
	}
}

// change writes what edit makes of a policy. A new name asks for write there, too.
func (s *Policies) change(ctx context.Context, c *Caller, id string, edit func(string, *policyDoc) (string, *policyDoc)) (*api.Policy, error) {
	pass, judged, err := s.admit(ctx, c, "policy_update", id, policy.Write)
	if err != nil {
		return nil, err
	}
	var answer *api.Policy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o, old, err := theOne(cfg, c.Tenant, id, judged)
		if err != nil {
			return err
		}
		name, next := edit(o.Key, old)
		if err := next.check(name); err != nil {
			return err
		}
		if name != o.Key {
			if err := pass.Check(policyRight(policy.Write, name)); err != nil {
				return err
			}
		}
		if err := mayGrant(cfg, c, next.brings(old), nil); err != nil {
			return err
		}
		changed := o.Clone()
		changed.Key, changed.Doc = name, document(next)
		if err := ChangeAccess(tx, cfg, []*store.Object{changed}, nil); err != nil {
			return err
		}
		answer = showPolicy(cfg, changed, next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Delete removes a policy: policy_in_use while it is bound, unless force ends the bindings too.
func (s *Policies) Delete(ctx context.Context, c *Caller, id string, force bool) error {
	pass, judged, err := s.admit(ctx, c, "policy_delete", id, policy.Delete)
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o, _, err := theOne(cfg, c.Tenant, id, judged)
		if err != nil {
			return err
		}
		bindings := bindingsOf(cfg, o)
		living := slices.ContainsFunc(bindings, func(b boundTo) bool { return !b.doc.endedBy(tx.Now()) })
		if living && !force {
			return fault.New(fault.PolicyInUse, "delete the policy: it is bound; unbind it first, or use force=true").
				With("bindings", len(bindings))
		}
		gone := []*store.Object{o}
		for _, b := range bindings {
			gone = append(gone, b.object)
		}
		return ChangeAccess(tx, cfg, nil, gone)
	})
}

// SystemPolicy is a policy of the server's own making and its binding, not stored yet: that of the
// first administrator. Once stored it is data like any other.
func SystemPolicy(tenant, name, identity string, rules ...policy.Rule) []*store.Object {
	p := &store.Object{Tenant: tenant, Kind: store.KindPolicy, ID: ident.New(ident.Policy), Key: name,
		Doc: document(policyDoc{Description: "made at the first start", Scope: scopeSystem, Rules: rules, IsActive: true})}
	b := &store.Object{Tenant: tenant, Kind: store.KindBinding, ID: ident.New(ident.Binding), Key: bindingKey(identity, p.ID),
		Doc: document(bindingDoc{Policy: p.ID, IdentityType: identityType(identity), Identity: identity})}
	return []*store.Object{p, b}
}

func newPolicy(req *api.PolicyRequest) *policyDoc {
	return &policyDoc{Description: req.Description, Scope: scopeTenant, Rules: req.Rules,
		IsActive: req.IsActive == nil || *req.IsActive}
}

// check refuses what cannot be stored, and compiles the rules.
func (p *policyDoc) check(name string) error {
	if !ValidName(name) {
		return fault.New(fault.InvalidPolicy, "name the policy: a name is a lower case letter and up to 62 of a-z, 0-9, _ and -")
	}
	if len(p.Description) > maxDescription {
		return fault.New(fault.InvalidPolicy, "describe the policy: a description has at most %d bytes", maxDescription)
	}
	var err error
	p.compiled, err = policy.Compile(p.Rules)
	return err
}

// brings are the rules that hold because of the change: those that were not there or not active.
func (p *policyDoc) brings(old *policyDoc) policy.Rules {
	if !old.IsActive {
		return p.compiled
	}
	var brought policy.Rules
	for i, r := range p.Rules {
		if !slices.ContainsFunc(old.Rules, func(o policy.Rule) bool { return reflect.DeepEqual(o, r) }) {
			brought = append(brought, p.compiled[i])
		}
	}
	return brought
}

// document is what is stored; the types stored here cannot fail to marshal.
func document(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("marshal a document of our own: " + err.Error())
	}
	return b
}

// mayGrant refuses to hand out what the caller does not hold, at least until the moment; nil is
// for ever. Who holds admin on ** holds everything.
func mayGrant(cfg *store.Config, c *Caller, granted policy.Rules, until *time.Time) error {
	if len(granted) == 0 {
		return nil
	}
	held := policiesOf(cfg, c.Tenant, c.Identity, c.Groups, time.Now())
	if policy.Covers(held.lasting(until), granted) {
		return nil
	}
	return fault.New(fault.AccessDenied,
		"grant a rule: %s does not hold all that it grants, or not as long; only what one holds can be given on", c.Identity)
}
