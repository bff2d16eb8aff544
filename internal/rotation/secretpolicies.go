package rotation

import (
	"context"
	"encoding/json"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
)

// generatorDoc is a secret policy as it is stored. The value of a static one is sealed: it is a secret
// like those that it is written into.
type generatorDoc struct {
	Description string                  `json:"description"`
	Generator   string                  `json:"generator"`
	Parameters  api.GeneratorParameters `json:"parameters"`
	Sealed      []byte                  `json:"sealed,omitempty"`
}

func staticPlace(tenant, id string) seal.Place {
	return seal.Place{Tenant: tenant, Table: "secret_policy", Path: id, Version: 1}
}

// SecretPolicies lists the secret policies that the caller may read, by name.
func (s *Service) SecretPolicies(ctx context.Context, c *access.Caller, p page.Request) (*api.SecretPolicyList, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: secretPolicies.path, Category: access.CategoryPolicy,
		Any: []access.Right{{Scope: access.ScopePoliciesRead}}})
	if err != nil {
		return nil, err
	}
	list := &api.SecretPolicyList{}
	list.SecretPolicies, list.Page, err = listed(s, c, pass.Config(), secretPolicies, p, showGenerator)
	return list, pass.Record(ctx, err)
}

// CreateSecretPolicy makes a secret policy.
func (s *Service) CreateSecretPolicy(ctx context.Context, c *access.Caller, req *api.SecretPolicyRequest) (*api.SecretPolicy, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "secret_policy_create", Category: access.CategoryPolicy,
		Any: []access.Right{right(secretPolicies.path, req.Name, policy.Write)}})
	if err != nil {
		return nil, err
	}
	o := &store.Object{Tenant: c.Tenant, Kind: store.KindSecretPolicy, ID: ident.New(ident.SecretPolicy), Key: req.Name}
	pass.Set("sp", o.ID)
	d := &generatorDoc{Description: req.Description, Generator: req.Generator}
	if req.Parameters != nil {
		d.Parameters = *req.Parameters
	}
	if err := s.prepare(o, d); err != nil {
		return nil, pass.Record(ctx, err)
	}
	var answer api.SecretPolicy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if err := secretPolicies.limit(cfg, c.Tenant); err != nil {
			return err
		}
		made := o.Clone()
		err := tx.PutObject(made, 0)
		if err == nil {
			answer, err = showGenerator(made)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// SecretPolicy reads one.
func (s *Service) SecretPolicy(ctx context.Context, c *access.Caller, id string) (*api.SecretPolicy, error) {
	pass, err := s.admit(ctx, c, secretPolicies, "read", id, policy.Read)
	if err != nil {
		return nil, err
	}
	var answer api.SecretPolicy
	o, err := secretPolicies.find(pass.Config(), c.Tenant, id)
	if err == nil {
		answer, err = showGenerator(o)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return &answer, nil
}

// PatchSecretPolicy changes what is given; another generator needs its parameters given with it.
func (s *Service) PatchSecretPolicy(ctx context.Context, c *access.Caller, id string, req *api.SecretPolicyPatch) (*api.SecretPolicy, error) {
	pass, err := s.admit(ctx, c, secretPolicies, "secret_policy_update", id, policy.Write)
	if err != nil {
		return nil, err
	}
	var answer api.SecretPolicy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o, err := secretPolicies.find(cfg, c.Tenant, id)
		if err != nil {
			return err
		}
		old, err := store.Decode[generatorDoc](o)
		if err != nil {
			return err
		}
		next, changed := *old, o.Clone()
		set(&changed.Key, req.Name)
		if changed.Key != o.Key {
			if err := pass.Check(right(secretPolicies.path, changed.Key, policy.Write)); err != nil {
				return err
			}
		}
		set(&next.Description, req.Description)
		if req.Generator != nil && *req.Generator != old.Generator {
			next.Generator, next.Parameters, next.Sealed = *req.Generator, api.GeneratorParameters{}, nil
		}
		if req.Parameters != nil {
			next.Parameters = *req.Parameters
		}
		if err := s.prepare(changed, &next); err != nil {
			return err
		}
		if err := tx.PutObject(changed, o.Version); err != nil {
			return err
		}
		answer, err = showGenerator(changed)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// DeleteSecretPolicy removes one that no rotation policy names; else policy_in_use.
func (s *Service) DeleteSecretPolicy(ctx context.Context, c *access.Caller, id string) error {
	pass, err := s.admit(ctx, c, secretPolicies, "secret_policy_delete", id, policy.Delete)
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		for _, o := range cfg.List(c.Tenant, store.KindRotationPolicy, "") {
			if p, err := store.Decode[Policy](o); err == nil && p.SecretPolicyID == id {
				return fault.New(fault.PolicyInUse, "delete the secret policy: the rotation policy %s generates values by it", o.Key).
					With("rotation_policy", o.Key)
			}
		}
		return tx.DeleteObject(c.Tenant, store.KindSecretPolicy, id)
	})
}

// Generate makes a value by a secret policy and stores it nowhere. A static one is refused: what it
// holds is not to be read this way.
func (s *Service) Generate(ctx context.Context, c *access.Caller, id string) (*api.GeneratedSecret, error) {
	pass, err := s.admit(ctx, c, secretPolicies, "secret_policy_generate", id, policy.Read)
	if err != nil {
		return nil, err
	}
	o, err := secretPolicies.find(pass.Config(), c.Tenant, id)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	d, err := store.Decode[generatorDoc](o)
	if err == nil && d.Generator == generatorStatic {
		err = fault.New(fault.InvalidRequest, "generate a value: a static one is never shown again")
	}
	var answer *api.GeneratedSecret
	if err == nil {
		answer, err = s.preview(d.Generator, d.Parameters)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// Preview makes a value by a generator that is stored nowhere.
func (s *Service) Preview(ctx context.Context, c *access.Caller, req *api.SecretPreview) (*api.GeneratedSecret, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "secret_policy_preview", Category: access.CategoryPolicyTest,
		Any: []access.Right{right(secretPolicies.path, "", policy.Read)}, Looks: true})
	if err != nil {
		return nil, err
	}
	var p api.GeneratorParameters
	if req.Parameters != nil {
		p = *req.Parameters
	}
	var answer *api.GeneratedSecret
	if err = check(req.Generator, &p, false); err == nil {
		answer, err = s.preview(req.Generator, p)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

func (s *Service) preview(generator string, p api.GeneratorParameters) (*api.GeneratedSecret, error) {
	made, err := s.generate(generator, p, p.Value)
	if err != nil {
		return nil, err
	}
	a := &api.GeneratedSecret{Data: map[string]string{}}
	for name, v := range made.fields(orValue(p.Field)) {
		a.Data[name] = v.Reveal()
	}
	return a, nil
}

// prepare checks a secret policy and makes its document, the value of a static one sealed.
func (s *Service) prepare(o *store.Object, d *generatorDoc) (err error) {
	if err := secretPolicies.check(o.Key, d.Description); err != nil {
		return err
	}
	if err := check(d.Generator, &d.Parameters, len(d.Sealed) > 0); err != nil {
		return err
	}
	if d.Parameters.Value != "" {
		if d.Sealed, err = s.keys.Encrypt(staticPlace(o.Tenant, o.ID), []byte(d.Parameters.Value)); err != nil {
			return err
		}
		d.Parameters.Value = ""
	}
	o.Doc, err = json.Marshal(d)
	return err
}

func showGenerator(o *store.Object) (api.SecretPolicy, error) {
	d := new(generatorDoc)
	if err := json.Unmarshal(o.Doc, d); err != nil {
		return api.SecretPolicy{}, err
	}
	return api.SecretPolicy{ID: o.ID, Name: o.Key, Description: d.Description, Generator: d.Generator, Parameters: d.Parameters,
		CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}, nil
}

func (s *Service) generate(generator string, p api.GeneratorParameters, static string) (generated, error) {
	s.room <- struct{}{}
	defer func() { <-s.room }()
	return generate(generator, p, static)
}

// Next is the data of a secret's next version: its present data with a value generated by the secret
// policy of the id, by the default of a random password where that is empty.
func (s *Service) Next(cfg *store.Config, tenant, id string, data map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	d := &generatorDoc{Generator: generatorRandom}
	if id != "" {
		o, err := secretPolicies.find(cfg, tenant, id)
		if err != nil {
			return nil, err
		}
		if d, err = store.Decode[generatorDoc](o); err != nil {
			return nil, err
		}
	}
	var static string
	if len(d.Sealed) > 0 {
		value, err := s.keys.Decrypt(staticPlace(tenant, id), d.Sealed)
		if err != nil {
			return nil, err
		}
		static = string(value)
	}
	made, err := s.generate(d.Generator, d.Parameters, static)
	if err != nil {
		return nil, err
	}
	field := d.Parameters.Field
	if made.value != "" && field == "" {
		if field, err = fieldOf(data); err != nil {
			return nil, err
		}
	}
	next := make(map[string]json.RawMessage, len(data)+1)
	for name, raw := range data {
		next[name] = raw
	}
	for name, v := range made.fields(field) {
		if next[name], err = json.Marshal(v.Reveal()); err != nil {
			return nil, err
		}
	}
	return next, nil
}
