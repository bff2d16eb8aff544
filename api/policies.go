package api

import (
	"time"

	"github.com/scaivault/scaivault/internal/policy"
)

// PolicyRule allows permissions on a path pattern under conditions.
type PolicyRule = policy.Rule

// Permission is a right on a path.
type Permission = policy.Permission

// PolicyRequest creates or replaces a policy.
type PolicyRequest struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Rules       []PolicyRule `json:"rules"`
	IsActive    *bool        `json:"is_active,omitempty"`
}

// PolicyPatch changes what is given.
type PolicyPatch struct {
	Name        *string       `json:"name,omitempty"`
	Description *string       `json:"description,omitempty"`
	Rules       *[]PolicyRule `json:"rules,omitempty"`
	IsActive    *bool         `json:"is_active,omitempty"`
}

// Policy is a set of rules and those it is bound to.
type Policy struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Description string       `json:"description"`
	Scope       string       `json:"scope"` // "tenant", or "system" for a built-in one
	Rules       []PolicyRule `json:"rules"`
	Bindings    []Binding    `json:"bindings"`
	IsActive    bool         `json:"is_active"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
}

// PolicyListItem is a line of a list: counts in place of the arrays.
type PolicyListItem struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Scope        string    `json:"scope"`
	RuleCount    int       `json:"rule_count"`
	BindingCount int       `json:"binding_count"`
	IsActive     bool      `json:"is_active"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// PolicyList is a page of policies.
type PolicyList struct {
	Policies []PolicyListItem `json:"policies"`
	Page
}

// BindingRequest binds a policy to an identity or group.
type BindingRequest struct {
	IdentityType string     `json:"identity_type"` // user, service_account, group, system
	IdentityID   string     `json:"identity_id"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
}

// Binding gives a policy's rules to an identity or group.
type Binding struct {
	ID           string     `json:"id"`
	PolicyID     string     `json:"policy_id"`
	IdentityType string     `json:"identity_type"`
	IdentityID   string     `json:"identity_id"`
	ExpiresAt    *time.Time `json:"expires_at"`
	CreatedAt    time.Time  `json:"created_at"`
}

// BindingList is a page of bindings.
type BindingList struct {
	Bindings []Binding `json:"bindings"`
	Page
}

// PolicyTestRequest asks what the policies would decide.
type PolicyTestRequest struct {
	IdentityID string             `json:"identity_id"`
	Path       string             `json:"path"`
	Permission string             `json:"permission"`
	Context    *PolicyTestContext `json:"context,omitempty"`
}

// PolicyTestContext is what conditions look at.
type PolicyTestContext struct {
	SourceIP    string     `json:"source_ip,omitempty"`
	MFAVerified bool       `json:"mfa_verified,omitempty"`
	Timestamp   *time.Time `json:"timestamp,omitempty"`
}

// PolicyTestResult is the decision and what it came from.
type PolicyTestResult struct {
	Allowed           bool        `json:"allowed"`
	MatchedPolicy     string      `json:"matched_policy,omitempty"`
	MatchedRule       *PolicyRule `json:"matched_rule,omitempty"`
	Reason            string      `json:"reason,omitempty"`
	EvaluatedPolicies *int        `json:"evaluated_policies,omitempty"`
	FailedCondition   string      `json:"failed_condition,omitempty"`
}
