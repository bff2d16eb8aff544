// Package policy judges one request for one permission on one path by the rules that are bound to
// its identity. It is pure: what it needs of the world is in the request.
package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
)

// Permission is a right on a path.
type Permission string

// The permissions of the contract. Admin includes every other.
const (
	Read            Permission = "read"
	Write           Permission = "write"
	Delete          Permission = "delete"
	List            Permission = "list"
	Rotate          Permission = "rotate"
	Admin           Permission = "admin"
	DynamicGenerate Permission = "dynamic:generate"
	DynamicRead     Permission = "dynamic:read"
	DynamicManage   Permission = "dynamic:manage"
	DynamicVerify   Permission = "dynamic:verify"
)

// Permissions lists all of them.
func Permissions() []Permission {
	return []Permission{Read, Write, Delete, List, Rotate, Admin, DynamicGenerate, DynamicRead, DynamicManage, DynamicVerify}
}

// Valid tells whether p is one of the contract.
func (p Permission) Valid() bool {
	switch p {
	case Read, Write, Delete, List, Rotate, Admin, DynamicGenerate, DynamicRead, DynamicManage, DynamicVerify:
		return true
	default:
		return false
	}
}

// Rule grants permissions on the paths of a pattern while its conditions hold.
type Rule struct {
	PathPattern string       `json:"path_pattern"`
	Permissions []Permission `json:"permissions"`
	Conditions  *Conditions  `json:"conditions,omitempty"`
}

const (
	maxRules   = 100
	maxEntries = 100 // of one list in the conditions
)

// Rules are the compiled rules of one policy. They are immutable.
type Rules []compiled

type compiled struct {
	glob        *Glob
	permissions []Permission
	conditions
}

// Compile checks the rules of one policy. The error is an invalid_policy or an
// invalid_glob, with the number of the rule from 0 on in details.rule.
func Compile(rules []Rule) (Rules, error) {
	if len(rules) > maxRules {
		return nil, invalid("there are more than %d rules", maxRules)
	}
	set := make(Rules, len(rules))
	for i, r := range rules {
		c, err := compile(r)
		if err != nil {
			f := fault.From(err)
			return nil, fault.New(f.Code, "rule %d: %s", i, f.Message).With("rule", i)
		}
		set[i] = c
	}
	return set, nil
}

func compile(r Rule) (compiled, error) {
	glob, err := CompileGlob(r.PathPattern)
	if err != nil {
		return compiled{}, err
	}
	if len(r.Permissions) == 0 {
		return compiled{}, invalid("it has no permissions")
	}
	for i, p := range r.Permissions {
		if !p.Valid() {
			return compiled{}, invalid("%.40q is no permission; these are: %v", string(p), Permissions())
		}
		if slices.Contains(r.Permissions[:i], p) {
			return compiled{}, invalid("permission %s is given twice", p)
		}
	}
	c := compiled{glob: glob, permissions: slices.Clone(r.Permissions)}
	if r.Conditions != nil {
		if c.conditions, err = r.Conditions.compile(); err != nil {
			return compiled{}, err
		}
	}
	return c, nil
}

func invalid(format string, args ...any) error {
	return fault.New(fault.InvalidPolicy, "read a policy: "+format, args...)
}

// Request is what a decision is asked about.
type Request struct {
	Path        string
	Permission  Permission
	SourceIP    netip.Addr // the zero Addr satisfies no ip_ranges
	MFAVerified bool
	Time        time.Time
}

// Decision is the answer. Policy and Rule are indexes of what allowed the
// request or, where a condition failed, of the first rule that would have
// allowed it; -1 when no rule is about it.
type Decision struct {
	Allowed bool
	Policy  int
	Rule    int
	// Reason is why not: access_denied, or the code of the condition.
	Reason fault.Code
	// FailedCondition is the name of that condition in the rule.
	FailedCondition string
}

// Evaluate decides by the rules of all policies that are bound to an identity:
// any rule whose path, permission and conditions fit allows; all else is
// denied. It does not allocate.
func Evaluate(policies []Rules, r Request) Decision {
	denied := Decision{Policy: -1, Rule: -1, Reason: fault.AccessDenied}
	for i, rules := range policies {
		for j := range rules {
			rule := &rules[j]
			if !rule.grants(r.Permission) || !rule.glob.Match(r.Path) {
				continue
			}
			condition, code := rule.failed(r)
			if condition == "" {
				return Decision{Allowed: true, Policy: i, Rule: j}
			}
			if denied.Policy < 0 {
				denied = Decision{Policy: i, Rule: j, Reason: code, FailedCondition: condition}
			}
		}
	}
	return denied
}

func (c *compiled) grants(p Permission) bool {
	return slices.Contains(c.permissions, p) || p.Valid() && slices.Contains(c.permissions, Admin)
}

// Covers tells whether whoever holds the policies already has everything that
// the rules grant, under conditions no harder: the test for writing or binding
// a policy. Each permission of a rule must come from one single rule that is
// held; it may say no where several together would do, never yes wrongly.
func Covers(held []Rules, granted Rules) bool {
	for i := range granted {
		g := &granted[i]
		for _, p := range g.permissions {
			covers := func(h compiled) bool {
				return h.grants(p) && h.glob.Contains(g.glob) && h.conditions.implied(g.conditions)
			}
			if !slices.ContainsFunc(held, func(rules Rules) bool { return slices.ContainsFunc(rules, covers) }) {
				return false
			}
		}
	}
	return true
}

// String helps in tests and logs.
func (d Decision) String() string {
	if d.Allowed {
		return fmt.Sprintf("allowed by rule %d of policy %d", d.Rule, d.Policy)
	}
	return fmt.Sprintf("denied: %s %s", d.Reason, d.FailedCondition)
}
