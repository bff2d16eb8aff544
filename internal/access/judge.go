package access

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/store"
)

// policyDoc is what is stored of a policy; the object's key is its name.
type policyDoc struct {
	Description string        `json:"description"`
	Scope       string        `json:"scope"`
	Rules       []policy.Rule `json:"rules"`
	IsActive    bool          `json:"is_active"`

	compiled policy.Rules
}

// UnmarshalJSON compiles the rules too: store.Decode keeps both for as long as the object lives.
func (p *policyDoc) UnmarshalJSON(b []byte) error {
	type plain policyDoc
	if err := json.Unmarshal(b, (*plain)(p)); err != nil {
		return err
	}
	var err error
	p.compiled, err = policy.Compile(p.Rules)
	return err
}

// bindingDoc is what is stored of a binding; the object's key is "<identity> <policy id>", so that
// an identity's bindings lie together and there is one for each policy.
type bindingDoc struct {
	Policy       string     `json:"policy"` // id
	IdentityType string     `json:"identity_type"`
	Identity     string     `json:"identity"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
}

func bindingKey(identity, policyID string) string { return identity + " " + policyID }

func (b *bindingDoc) endedBy(now time.Time) bool {
	return b.ExpiresAt != nil && !now.Before(*b.ExpiresAt)
}

// bound are the active policies of an identity and its groups, with the ends of their bindings.
type bound struct {
	policies []*store.Object
	rules    []policy.Rules
	ends     []*time.Time
}

// policiesOf finds what is bound. What cannot be decoded is left out, since a policy only allows.
func policiesOf(cfg *store.Config, tenant, identity string, groups []string, now time.Time) bound {
	var b bound
	b.add(cfg, tenant, identity, now)
	for _, g := range groups {
		b.add(cfg, tenant, g, now)
	}
	return b
}

func (b *bound) add(cfg *store.Config, tenant, identity string, now time.Time) {
	for _, o := range cfg.List(tenant, store.KindBinding, bindingKey(identity, "")) {
		binding, err := store.Decode[bindingDoc](o)
		if err != nil || binding.endedBy(now) {
			continue
		}
		p := cfg.Object(tenant, store.KindPolicy, binding.Policy)
		if p == nil {
			continue
		}
		doc, err := store.Decode[policyDoc](p)
		if err != nil || !doc.IsActive {
			continue
		}
		b.policies = append(b.policies, p)
		b.rules = append(b.rules, doc.compiled)
		b.ends = append(b.ends, binding.ExpiresAt)
	}
}

// lasting are the rules of bindings that last at least until the moment; nil means for ever.
func (b *bound) lasting(until *time.Time) []policy.Rules {
	var rules []policy.Rules
	for i, end := range b.ends {
		if end == nil || until != nil && !end.Before(*until) {
			rules = append(rules, b.rules[i])
		}
	}
	return rules
}

// judge allows when any of the rights holds: default deny. Of several reasons it gives the one of
// the right that came nearest; that something is another's only if nothing else stands in the way,
// so that the answer does not tell whether it is there.
func judge(cfg *store.Config, c *Caller, rights []Right, now time.Time) error {
	j := judgement{cfg: cfg, caller: c, now: now}
	reason, nearest := fault.New(fault.AccessDenied, "nobody may do this"), -1
	for _, r := range rights {
		err, near := j.right(r)
		if err == nil {
			return nil
		}
		if near > nearest {
			reason, nearest = err, near
		}
	}
	return reason
}

// judgement looks the caller's policies up once, and only if a right asks for one.
type judgement struct {
	cfg    *store.Config
	caller *Caller
	now    time.Time
	bound  *bound
}

// How near a right came to holding.
const (
	nearOwner = iota
	nearScope
	nearPolicy
	nearCondition
)

func (j *judgement) right(r Right) (denial *fault.Error, near int) {
	c := j.caller
	if r.Scope != "" && !c.HasScope(r.Scope) {
		return fault.New(fault.InsufficientScope, "the token lacks the scope %s; use one that has it", r.Scope).With("scope", r.Scope), nearScope
	}
	if r.Owner != "" && r.Owner != c.Identity {
		return fault.New(fault.AccessDenied, "this belongs to another identity"), nearOwner
	}
	if r.Permission == "" {
		return nil, 0
	}
	if j.bound == nil {
		b := policiesOf(j.cfg, c.Tenant, c.Identity, c.Groups, j.now)
		j.bound = &b
	}
	d := policy.Evaluate(j.bound.rules, policy.Request{
		Path:        r.Path,
		Permission:  policy.Permission(r.Permission),
		SourceIP:    c.Origin.SourceIP,
		MFAVerified: c.MFAVerifiedAt != nil,
		Time:        j.now,
	})
	switch {
	case d.Allowed:
		return nil, 0
	case d.Reason == fault.AccessDenied:
		return denied(d.Reason, c.Identity, r), nearPolicy
	default:
		return denied(d.Reason, c.Identity, r), nearCondition
	}
}

func denied(code fault.Code, identity string, r Right) *fault.Error {
	var e *fault.Error
	switch code {
	case fault.IPNotAllowed:
		e = fault.New(code, "the policy that allows %s on %s does not allow it from this address", r.Permission, shown(r.Path))
	case fault.MFARequired:
		e = fault.New(code, "the policy that allows %s on %s asks for a second factor", r.Permission, shown(r.Path))
	case fault.TimeWindowViolation:
		e = fault.New(code, "the policy that allows %s on %s does not allow it at this time", r.Permission, shown(r.Path))
	default:
		e = fault.New(code, "no policy bound to %s allows %s on %s; ask for one", identity, r.Permission, shown(r.Path))
	}
	return e.With("permission", r.Permission).With("path", shown(r.Path))
}

// shown keeps a caller's own word from filling the message.
func shown(path string) string {
	if len(path) > 512 {
		path = path[:512]
	}
	return strings.ToValidUTF8(path, "?")
}

// HasScope tells whether the caller's token may be used for the scope: admin includes every other.
func (c *Caller) HasScope(scope string) bool {
	return c.Internal || slices.Contains(c.Scopes, scope) || slices.Contains(c.Scopes, ScopeAdmin)
}
