package access

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

// Policies administers policies and their bindings, which are judged by policies like all else: on
// the virtual paths sys/policies/<name>, by read, write (also to bind) and delete.
//
// Two laws hold besides. Nobody hands out what they do not hold: each rule written, brought to life
// or bound must be covered by the rules that the caller holds at least as long. And some identity
// can always write policies, without a condition and without an end.
type Policies struct {
	store store.Store
	door  *Door
}

// NewPolicies makes the service.
func NewPolicies(s store.Store, d *Door) *Policies { return &Policies{s, d} }

// The bounds of a tenant's configuration.
const (
	maxPolicies    = 5_000
	maxBindings    = 50_000
	maxDescription = 1024
)

const (
	scopeTenant = "tenant"
	scopeSystem = "system" // a policy that the server made at its first start
)

const policiesPath = "sys/policies"

// policyPath is where a policy is judged; one of an impossible name where all of them are.
func policyPath(name string) string {
	if !ValidName(name) {
		return policiesPath
	}
	return policiesPath + "/" + name
}

func policyRight(p policy.Permission, name string) Right {
	scope := ScopePoliciesWrite
	if p == policy.Read {
		scope = ScopePoliciesRead
	}
	return Right{Scope: scope, Permission: string(p), Path: policyPath(name)}
}

// find is the policy of an id, or of a name.
func findPolicy(cfg *store.Config, tenant, id string) *store.Object {
	if o := cfg.Object(tenant, store.KindPolicy, id); o != nil {
		return o
	}
	return cfg.ByKey(tenant, store.KindPolicy, id)
}

// admit judges a request for the policy of an id. An unknown one is judged too, so that who may
// not see it does not learn whether it is there. It returns the name that was judged.
func (s *Policies) admit(ctx context.Context, c *Caller, action, id string, p policy.Permission) (*Pass, string, error) {
	name := id
	if o := findPolicy(s.store.Config(), c.Tenant, id); o != nil {
		name = o.Key
	}
	pass, err := s.door.Admit(ctx, c, Ask{Action: action, Category: CategoryPolicy, Any: []Right{policyRight(p, name)}})
	if err == nil && ValidName(name) {
		pass.Set("policy", name)
	}
	return pass, name, err
}

// theOne is the policy that was judged: it may be gone, or have another name, by now.
func theOne(cfg *store.Config, tenant, id, judged string) (*store.Object, *policyDoc, error) {
	o := findPolicy(cfg, tenant, id)
	if o == nil {
		return nil, nil, fault.New(fault.PolicyNotFound, "find the policy: there is none of this id")
	}
	if o.Key != judged {
		return nil, nil, fault.New(fault.VersionConflict, "find the policy: it was renamed meanwhile; try again")
	}
	doc, err := store.Decode[policyDoc](o)
	return o, doc, err
}

// Policy reads one, with its bindings.
func (s *Policies) Policy(ctx context.Context, c *Caller, id string) (*api.Policy, error) {
	pass, name, err := s.admit(ctx, c, "read", id, policy.Read)
	if err != nil {
		return nil, err
	}
	var answer *api.Policy
	o, doc, err := theOne(pass.Config(), c.Tenant, id, name)
	if err == nil {
		answer = showPolicy(pass.Config(), o, doc)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// List lists the policies that the caller may read, by name; inactive ones only if asked for.
func (s *Policies) List(ctx context.Context, c *Caller, inactive bool, p page.Request) (*api.PolicyList, error) {
	pass, err := s.door.Admit(ctx, c, Ask{Action: "list", Path: policiesPath, Category: CategoryPolicy,
		Any: []Right{{Scope: ScopePoliciesRead}}})
	if err != nil {
		return nil, err
	}
	list := &api.PolicyList{}
	list.Policies, list.Page, err = s.items(pass.Config(), c, inactive, p)
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return list, nil
}

func (s *Policies) items(cfg *store.Config, c *Caller, inactive bool, p page.Request) ([]api.PolicyListItem, api.Page, error) {
	after, err := p.After("policies")
	if err != nil {
		return nil, api.Page{}, err
	}
	bindings := map[string]int{}
	for _, o := range cfg.List(c.Tenant, store.KindBinding, "") {
		if b, err := store.Decode[bindingDoc](o); err == nil {
			bindings[b.Policy]++
		}
	}
	items := []api.PolicyListItem{}
	for _, o := range cfg.List(c.Tenant, store.KindPolicy, "") {
		doc, err := store.Decode[policyDoc](o)
		if err != nil {
			return nil, api.Page{}, err
		}
		if o.Key <= after || !doc.IsActive && !inactive || !s.door.Allowed(c, policyRight(policy.Read, o.Key)) {
			continue
		}
		items = append(items, api.PolicyListItem{ID: o.ID, Name: o.Key, Description: doc.Description, Scope: doc.Scope,
			RuleCount: len(doc.Rules), BindingCount: bindings[o.ID], IsActive: doc.IsActive,
			CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt})
		if len(items) > p.Size() {
			break
		}
	}
	items, rest := page.Cut(p, "policies", items, func(i api.PolicyListItem) string { return i.Name })
	return items, rest, nil
}

// Test tells what the policies would decide for an identity: one's own, or, by read on
// sys/policies, any. The groups of an identity that come only with its token are not known.
func (s *Policies) Test(ctx context.Context, c *Caller, req *api.PolicyTestRequest) (*api.PolicyTestResult, error) {
	pass, err := s.door.Admit(ctx, c, Ask{Action: "policy_test", Path: policiesPath, Category: CategoryPolicyTest,
		Any: []Right{
			{Scope: ScopePoliciesRead, Owner: req.IdentityID},
			{Scope: ScopePoliciesRead, Permission: string(policy.Read), Path: policiesPath},
		}})
	if err != nil {
		return nil, err
	}
	var answer *api.PolicyTestResult
	ask, err := testRequest(req)
	if err == nil {
		groups := groupsOf(req.IdentityID)
		if req.IdentityID == c.Identity {
			groups = c.Groups
		}
		answer = evaluate(policiesOf(pass.Config(), c.Tenant, req.IdentityID, groups, ask.Time), ask)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

func testRequest(req *api.PolicyTestRequest) (policy.Request, error) {
	ask := policy.Request{Path: req.Path, Permission: policy.Permission(req.Permission), Time: time.Now()}
	if err := checkIdentity(identityType(req.IdentityID), req.IdentityID); err != nil {
		return ask, err
	}
	if !slices.Contains(policy.Permissions(), ask.Permission) {
		return ask, fault.New(fault.InvalidRequest, "read permission: it must be one of %v", policy.Permissions())
	}
	if req.Path == "" {
		return ask, fault.New(fault.InvalidRequest, "read path: it is empty")
	}
	if req.Context == nil {
		return ask, nil
	}
	ask.MFAVerified = req.Context.MFAVerified
	if req.Context.Timestamp != nil {
		ask.Time = *req.Context.Timestamp
	}
	if req.Context.SourceIP != "" {
		var err error
		if ask.SourceIP, err = netip.ParseAddr(req.Context.SourceIP); err != nil {
			return ask, fault.New(fault.InvalidRequest, "read context.source_ip: it is no IP address")
		}
	}
	return ask, nil
}

func evaluate(b bound, ask policy.Request) *api.PolicyTestResult {
	d := policy.Evaluate(b.rules, ask)
	if d.Allowed {
		doc, _ := store.Decode[policyDoc](b.policies[d.Policy]) // it was decoded to be bound
		return &api.PolicyTestResult{Allowed: true, MatchedPolicy: b.policies[d.Policy].Key, MatchedRule: &doc.Rules[d.Rule]}
	}
	n := len(b.policies)
	return &api.PolicyTestResult{Reason: string(d.Reason), EvaluatedPolicies: &n, FailedCondition: d.FailedCondition}
}

func showPolicy(cfg *store.Config, o *store.Object, doc *policyDoc) *api.Policy {
	p := &api.Policy{ID: o.ID, Name: o.Key, Description: doc.Description, Scope: doc.Scope, Rules: doc.Rules,
		Bindings: []api.Binding{}, IsActive: doc.IsActive, CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt}
	if p.Rules == nil {
		p.Rules = []policy.Rule{}
	}
	for _, b := range bindingsOf(cfg, o) {
		p.Bindings = append(p.Bindings, showBinding(b))
	}
	return p
}
