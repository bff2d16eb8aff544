package access

import (
	"context"
	"slices"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

// boundTo is a binding with its document.
type boundTo struct {
	object *store.Object
	doc    *bindingDoc
}

// bindingsOf are a policy's, in the order of the identities.
func bindingsOf(cfg *store.Config, p *store.Object) []boundTo {
	var found []boundTo
	for _, o := range cfg.List(p.Tenant, store.KindBinding, "") {
		if b, err := store.Decode[bindingDoc](o); err == nil && b.Policy == p.ID {
			found = append(found, boundTo{o, b})
		}
	}
	return found
}

// Bindings lists to whom a policy is bound.
func (s *Policies) Bindings(ctx context.Context, c *Caller, id string, p page.Request) (*api.BindingList, error) {
	pass, judged, err := s.admit(ctx, c, "list", id, policy.Read)
	if err != nil {
		return nil, err
	}
	list := &api.BindingList{Bindings: []api.Binding{}}
	err = func() error {
		o, _, err := theOne(pass.Config(), c.Tenant, id, judged)
		if err != nil {
			return err
		}
		after, err := p.After("bindings")
		if err != nil {
			return err
		}
		var found []boundTo
		for _, b := range bindingsOf(pass.Config(), o) {
			if b.object.Key > after {
				found = append(found, b)
			}
		}
		found, list.Page = page.Cut(p, "bindings", found, func(b boundTo) string { return b.object.Key })
		for _, b := range found {
			list.Bindings = append(list.Bindings, showBinding(b))
		}
		return nil
	}()
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return list, nil
}

// Bind gives a policy to an identity. A service account must be there: else whoever makes one of
// that name later would get what was meant for another.
func (s *Policies) Bind(ctx context.Context, c *Caller, id string, req *api.BindingRequest) (*api.Binding, error) {
	pass, judged, err := s.admit(ctx, c, "policy_bind", id, policy.Write)
	if err != nil {
		return nil, err
	}
	if err := checkIdentity(req.IdentityType, req.IdentityID); err != nil {
		return nil, pass.Record(ctx, err)
	}
	pass.Set("bound_identity", req.IdentityID)
	var answer api.Binding
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		p, doc, err := theOne(cfg, c.Tenant, id, judged)
		if err != nil {
			return err
		}
		b := &bindingDoc{Policy: p.ID, IdentityType: req.IdentityType, Identity: req.IdentityID, ExpiresAt: req.ExpiresAt}
		if b.endedBy(tx.Now()) {
			return fault.New(fault.InvalidRequest, "bind the policy: expires_at lies in the past")
		}
		if b.IdentityType == TypeServiceAccount && Subject(cfg, c.Tenant, b.Identity) == nil {
			return fault.New(fault.IdentityNotFound, "bind the policy: there is no such service account; make it first")
		}
		if err := mayGrant(cfg, c, doc.compiled, b.ExpiresAt); err != nil {
			return err
		}
		if n := len(cfg.List(c.Tenant, store.KindBinding, "")); n >= maxBindings {
			return fault.New(fault.InvalidRequest, "bind the policy: there are %d bindings already, which is the most", n)
		}
		o := &store.Object{Tenant: c.Tenant, Kind: store.KindBinding, ID: ident.New(ident.Binding),
			Key: bindingKey(b.Identity, p.ID), Doc: document(b)}
		var ended []*store.Object
		if old := cfg.ByKey(c.Tenant, store.KindBinding, o.Key); old != nil {
			was, err := store.Decode[bindingDoc](old)
			if err != nil {
				return err
			}
			if !was.endedBy(tx.Now()) {
				return fault.New(fault.BindingExists, "bind the policy: it is bound to this identity already").With("binding_id", old.ID)
			}
			ended = []*store.Object{old}
		}
		if err := ChangeAccess(tx, cfg, []*store.Object{o}, ended); err != nil {
			return err
		}
		answer = showBinding(boundTo{o, b})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// Unbind ends a binding of the policy.
func (s *Policies) Unbind(ctx context.Context, c *Caller, id, bindingID string) error {
	pass, judged, err := s.admit(ctx, c, "policy_unbind", id, policy.Write)
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		p, _, err := theOne(cfg, c.Tenant, id, judged)
		if err != nil {
			return err
		}
		absent := fault.New(fault.BindingNotFound, "end the binding: this policy has none of this id")
		o := cfg.Object(c.Tenant, store.KindBinding, bindingID)
		if o == nil {
			return absent
		}
		b, err := store.Decode[bindingDoc](o)
		if err != nil {
			return err
		}
		if b.Policy != p.ID {
			return absent
		}
		pass.Set("bound_identity", b.Identity)
		return ChangeAccess(tx, cfg, nil, []*store.Object{o})
	})
}

// BindingsTo are the objects that bind policies to the identity, for [ChangeAccess] to remove when
// the identity ends.
func BindingsTo(cfg *store.Config, tenant, identity string) []*store.Object {
	return cfg.List(tenant, store.KindBinding, bindingKey(identity, ""))
}

// EndBindings ends all bindings to an identity of the server's own, such as dynamic:<engine>, with
// what it stood for. It has no part in who may write policies, as ChangeAccess has.
func EndBindings(tx store.Tx, tenant, identity string) error {
	all, err := tx.Objects(tenant, store.KindBinding, bindingKey(identity, ""), "", 0)
	if err != nil {
		return err
	}
	for _, o := range all {
		if err := tx.DeleteObject(tenant, store.KindBinding, o.ID); err != nil {
			return err
		}
	}
	return nil
}

// ChangeAccess removes objects of a tenant and then writes others, by cfg, the configuration of the
// transaction; it refuses a change after which no identity could write policies. Every change of
// policies, bindings, service accounts and users goes through it.
func ChangeAccess(tx store.Tx, cfg *store.Config, put, gone []*store.Object) error {
	next := cfg.With(cfg.Rev+1, put, gone)
	if all := slices.Concat(put, gone); len(all) > 0 && !someoneWritesPolicies(next, all[0].Tenant) {
		return fault.New(fault.PolicyInUse,
			"change who may do what: after this nobody could write policies any more, without a condition and without an end; give that to another identity first").
			With("reason", "last_administrator")
	}
	for _, o := range gone {
		if err := tx.DeleteObject(o.Tenant, o.Kind, o.ID); err != nil {
			return err
		}
	}
	for _, o := range put {
		if err := tx.PutObject(o, o.Version); err != nil {
			return err
		}
	}
	return nil
}

// someoneWritesPolicies looks for an identity that can authenticate and may write every policy, at
// any time and from anywhere.
func someoneWritesPolicies(cfg *store.Config, tenant string) bool {
	all, err := policy.Compile([]policy.Rule{{PathPattern: policiesPath + "/*", Permissions: []policy.Permission{policy.Write}}})
	if err != nil {
		panic("compile a rule of our own: " + err.Error())
	}
	for _, o := range cfg.List(tenant, store.KindBinding, "") {
		b, err := store.Decode[bindingDoc](o)
		if err != nil || b.ExpiresAt != nil || !canWritePolicies(Subject(cfg, tenant, b.Identity)) {
			continue
		}
		p := cfg.Object(tenant, store.KindPolicy, b.Policy)
		if p == nil {
			continue
		}
		doc, err := store.Decode[policyDoc](p)
		if err == nil && doc.IsActive && policy.Covers([]policy.Rules{doc.compiled}, all) {
			return true
		}
	}
	return false
}

// canWritePolicies tells whether the tokens of a user or service account can have the scope.
func canWritePolicies(o *store.Object) bool {
	switch {
	case o == nil:
		return false
	case o.Kind == store.KindUser:
		return true
	default:
		sa, err := store.Decode[ServiceAccount](o)
		return err == nil && (&Caller{Scopes: sa.Scopes}).HasScope(ScopePoliciesWrite)
	}
}

func showBinding(b boundTo) api.Binding {
	return api.Binding{ID: b.object.ID, PolicyID: b.doc.Policy, IdentityType: b.doc.IdentityType,
		IdentityID: b.doc.Identity, ExpiresAt: b.doc.ExpiresAt, CreatedAt: b.object.CreatedAt}
}
