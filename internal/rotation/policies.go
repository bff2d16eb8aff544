package rotation

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/seal"
	"github.com/scaivault/scaivault/internal/store"
)

// Sealer seals what is kept outside the secrets: seal.Keyring.
type Sealer interface {
	Encrypt(at seal.Place, plaintext []byte) ([]byte, error)
	Decrypt(at seal.Place, sealed []byte) ([]byte, error)
}

// Service administers rotation policies and secret policies, which are judged by policies on the
// virtual paths sys/rotation/policies/<name> and sys/rotation/secret-policies/<name>.
type Service struct {
	store store.Store
	door  *access.Door
	keys  Sealer
	room  chan struct{} // a token for each value that is being generated
}

// New makes the service.
func New(st store.Store, door *access.Door, keys Sealer) *Service {
	return &Service{st, door, keys, make(chan struct{}, makers)}
}

// makers bounds how many values are generated at once: a key or a hash takes a processor for a second.
const makers = 2

const (
	policiesList = "rotation_policies"
	policiesPath = "sys/rotation/policies"
	// minInterval is the shortest interval: a rotation at a source takes connections and time.
	minInterval    = 10 * time.Second
	maxPolicies    = 1_000 // of each kind and tenant
	maxDescription = 1024
)

// at is the virtual path of an object; that of all where the name is none.
func at(path, name string) string {
	if !access.ValidName(name) {
		return path
	}
	return path + "/" + name
}

// right is a right on an object of the configuration.
func right(path, name string, p policy.Permission) access.Right {
	scope := access.ScopePoliciesWrite
	if p == policy.Read {
		scope = access.ScopePoliciesRead
	}
	return access.Right{Scope: scope, Permission: string(p), Path: at(path, name)}
}

// admit judges a request for the object of an id. An unknown one is judged too, so that who may not
// see it does not learn whether it is there.
func (s *Service) admit(ctx context.Context, c *access.Caller, k kind, action, id string, p policy.Permission) (*access.Pass, error) {
	name := id
	if o := s.store.Config().Object(c.Tenant, k.kind, id); o != nil {
		name = o.Key
	}
	return s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryPolicy,
		Any: []access.Right{right(k.path, name, p)}, Extra: map[string]any{k.prefix: id}})
}

// kind is what the two kinds of objects differ in.
type kind struct {
	kind   store.Kind
	noun   string // in errors
	path   string // virtual
	prefix string // of ids, and of the field in the trail
}

var (
	rotationPolicies = kind{store.KindRotationPolicy, "rotation policy", policiesPath, ident.RotationPolicy}
	secretPolicies   = kind{store.KindSecretPolicy, "secret policy", "sys/rotation/secret-policies", ident.SecretPolicy}
)

// find is the object that was judged.
func (k kind) find(cfg *store.Config, tenant, id string) (*store.Object, error) {
	if o := cfg.Object(tenant, k.kind, id); o != nil {
		return o, nil
	}
	return nil, fault.New(k.kind.NotFound(), "find the policy: there is none of this id")
}

// check refuses names and descriptions that cannot be.
func (k kind) check(name, description string) error {
	switch {
	case !access.ValidName(name):
		return fault.New(fault.InvalidRequest, "name the %s: a name is a lower case letter and up to 62 of a-z, 0-9, _ and -", k.noun)
	case len(description) > maxDescription:
		return fault.New(fault.InvalidRequest, "describe the %s: a description has at most %d bytes", k.noun, maxDescription)
	}
	return nil
}

// limit refuses one more than there may be.
func (k kind) limit(cfg *store.Config, tenant string) error {
	if n := len(cfg.List(tenant, k.kind, "")); n >= maxPolicies {
		return fault.New(fault.InvalidRequest, "create the %s: there are %d already, which is the most", k.noun, n)
	}
	return nil
}

// listed are the objects of a page that the caller may read.
func listed[T any](s *Service, c *access.Caller, cfg *store.Config, k kind, p page.Request, show func(o *store.Object) (T, error)) ([]T, api.Page, error) {
	after, err := p.After(k.prefix)
	if err != nil {
		return nil, api.Page{}, err
	}
	items, names := []T{}, []string{}
	for _, o := range cfg.List(c.Tenant, k.kind, "") {
		if o.Key <= after || !s.door.Allowed(c, right(k.path, o.Key, policy.Read)) {
			continue
		}
		if len(items) == p.Size() {
			return items, page.Next(k.prefix, names[len(names)-1]), nil
		}
		item, err := show(o)
		if err != nil {
			return nil, api.Page{}, err
		}
		items, names = append(items, item), append(names, o.Key)
	}
	return items, api.Page{}, nil
}

// List lists the rotation policies that the caller may read, by name.
func (s *Service) List(ctx context.Context, c *access.Caller, p page.Request) (*api.RotationPolicyList, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: policiesPath, Category: access.CategoryPolicy,
		Any: []access.Right{{Scope: access.ScopePoliciesRead}}})
	if err != nil {
		return nil, err
	}
	counts, err := s.counts(ctx, c.Tenant)
	list := &api.RotationPolicyList{}
	if err == nil {
		list.Data, list.Page, err = listed(s, c, pass.Config(), rotationPolicies, p, func(o *store.Object) (api.RotationPolicy, error) {
			return show(o, counts)
		})
	}
	return list, pass.Record(ctx, err)
}

// Create makes a rotation policy, which no secret is assigned to yet.
func (s *Service) Create(ctx context.Context, c *access.Caller, req *api.RotationPolicyRequest) (*api.RotationPolicy, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "rotation_policy_create", Category: access.CategoryPolicy,
		Any: []access.Right{right(policiesPath, req.Name, policy.Write)}})
	if err != nil {
		return nil, err
	}
	p := &Policy{AutoGenerate: true, IsActive: true}
	if err := p.apply(&req.Name, patchOf(req)); err != nil {
		return nil, pass.Record(ctx, err)
	}
	if p.Interval == 0 {
		return nil, pass.Record(ctx, fault.New(fault.InvalidDuration, "read interval: it is missing; write for example \"30d\""))
	}
	var answer api.RotationPolicy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o := &store.Object{Tenant: c.Tenant, Kind: store.KindRotationPolicy, ID: ident.New(ident.RotationPolicy), Key: req.Name}
		pass.Set("rot", o.ID)
		if err := rotationPolicies.limit(cfg, c.Tenant); err != nil {
			return err
		}
		return p.put(tx, cfg, o, &answer, nil)
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// Policy reads one.
func (s *Service) Policy(ctx context.Context, c *access.Caller, id string) (*api.RotationPolicy, error) {
	pass, err := s.admit(ctx, c, rotationPolicies, "read", id, policy.Read)
	if err != nil {
		return nil, err
	}
	var answer api.RotationPolicy
	counts, err := s.counts(ctx, c.Tenant)
	if err == nil {
		var o *store.Object
		if o, err = rotationPolicies.find(pass.Config(), c.Tenant, id); err == nil {
			answer, err = show(o, counts)
		}
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return &answer, nil
}

// Patch changes what is given, and has the turns of the policy's secrets counted anew.
func (s *Service) Patch(ctx context.Context, c *access.Caller, id string, req *api.RotationPolicyPatch) (*api.RotationPolicy, error) {
	pass, err := s.admit(ctx, c, rotationPolicies, "rotation_policy_update", id, policy.Write)
	if err != nil {
		return nil, err
	}
	var answer api.RotationPolicy
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o, err := rotationPolicies.find(cfg, c.Tenant, id)
		if err != nil {
			return err
		}
		old, err := store.Decode[Policy](o)
		if err != nil {
			return err
		}
		next, name := *old, o.Key
		if req.Name != nil {
			name = *req.Name
			if err := pass.Check(right(policiesPath, name, policy.Write)); err != nil {
				return err
			}
		}
		if err := next.apply(&name, req); err != nil {
			return err
		}
		if err := tx.RescheduleSecrets(c.Tenant, id, tx.Now()); err != nil {
			return err
		}
		counts, err := tx.RotationCounts(c.Tenant)
		if err != nil {
			return err
		}
		changed := o.Clone()
		changed.Key = name
		return next.put(tx, cfg, changed, &answer, counts)
	})
	if err != nil {
		return nil, err
	}
	return &answer, nil
}

// Delete removes a policy that no secret is assigned to; else policy_in_use.
func (s *Service) Delete(ctx context.Context, c *access.Caller, id string) error {
	pass, err := s.admit(ctx, c, rotationPolicies, "rotation_policy_delete", id, policy.Delete)
	if err != nil {
		return err
	}
	return pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		counts, err := tx.RotationCounts(c.Tenant)
		if err != nil {
			return err
		}
		if n := counts[id]; n > 0 {
			return fault.New(fault.PolicyInUse, "delete the rotation policy: %d secrets are assigned to it; take them out first", n).
				With("secrets_count", n)
		}
		return tx.DeleteObject(c.Tenant, store.KindRotationPolicy, id)
	})
}

func (s *Service) counts(ctx context.Context, tenant string) (counts map[string]int64, err error) {
	err = s.store.Read(ctx, func(r store.Reader) error {
		counts, err = r.RotationCounts(tenant)
		return err
	})
	return counts, err
}

func patchOf(req *api.RotationPolicyRequest) *api.RotationPolicyPatch {
	return &api.RotationPolicyPatch{Description: &req.Description, Interval: req.Interval, IntervalSeconds: req.IntervalSeconds,
		GracePeriod: req.GracePeriod, WarnBefore: req.WarnBefore, AutoGenerate: req.AutoGenerate,
		SecretPolicyID: &req.SecretPolicyID, WebhookIDs: &req.WebhookIDs, IsActive: req.IsActive}
}

// apply takes over what is given, and checks the whole.
func (p *Policy) apply(name *string, req *api.RotationPolicyPatch) error {
	set(&p.Description, req.Description)
	if err := rotationPolicies.check(*name, p.Description); err != nil {
		return err
	}
	if req.WebhookIDs != nil && len(*req.WebhookIDs) > 0 {
		return fault.New(fault.InvalidRequest, "read webhook_ids: this server has no webhooks; leave it out")
	}
	if err := p.setInterval(req); err != nil {
		return err
	}
	set(&p.AutoGenerate, req.AutoGenerate)
	set(&p.SecretPolicyID, req.SecretPolicyID)
	set(&p.IsActive, req.IsActive)
	if req.GracePeriod != nil {
		p.GracePeriod = req.GracePeriod
	}
	if req.WarnBefore != nil {
		p.WarnBefore = req.WarnBefore
	}
	if p.WarnBefore != nil && p.Interval > 0 && *p.WarnBefore >= p.Interval {
		return fault.New(fault.InvalidDuration, "read warn_before: it is to be shorter than the interval")
	}
	return nil
}

// setInterval reads the interval in either of its forms; where both are given they say the same.
func (p *Policy) setInterval(req *api.RotationPolicyPatch) error {
	given := req.Interval
	if req.IntervalSeconds != nil {
		seconds, err := duration.Seconds(*req.IntervalSeconds)
		if err != nil {
			return err
		}
		if given != nil && *given != seconds {
			return fault.New(fault.InvalidDuration, "read interval: interval and interval_seconds say different things; give one of them")
		}
		given = &seconds
	}
	if given == nil {
		return nil
	}
	if given.Std() < minInterval {
		return fault.New(fault.InvalidDuration, "read interval: at least %s", api.Duration(minInterval))
	}
	p.Interval = *given
	return nil
}

// put stores the policy, and shows it as stored.
func (p *Policy) put(tx store.Tx, cfg *store.Config, o *store.Object, answer *api.RotationPolicy, counts map[string]int64) (err error) {
	if p.SecretPolicyID != "" {
		if _, err := secretPolicies.find(cfg, o.Tenant, p.SecretPolicyID); err != nil {
			return err
		}
	}
	if o.Doc, err = json.Marshal(p); err != nil {
		return err
	}
	if err := tx.PutObject(o, o.Version); err != nil {
		return err
	}
	*answer, err = show(o, counts)
	return err
}

func show(o *store.Object, counts map[string]int64) (api.RotationPolicy, error) {
	p := new(Policy)
	if err := json.Unmarshal(o.Doc, p); err != nil {
		return api.RotationPolicy{}, err
	}
	a := api.RotationPolicy{ID: o.ID, Name: o.Key, Description: p.Description, Interval: p.Interval,
		IntervalSeconds: int64(p.Interval.Std() / time.Second), GracePeriod: p.GracePeriod, WarnBefore: p.WarnBefore,
		AutoGenerate: p.AutoGenerate, WebhookIDs: []string{}, SecretsCount: counts[o.ID], IsActive: p.IsActive,
		CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
	if p.SecretPolicyID != "" {
		a.SecretPolicyID = &p.SecretPolicyID
	}
	return a, nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}
