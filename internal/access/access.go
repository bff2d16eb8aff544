// Package access is the one door: every operation passes it, and nothing reaches state round it
// (law L8). It authenticates the caller, finds the tenant, limits the rate, asks the token's scope
// and the policies, and writes the audit entry in the transaction of the change (law L7).
//
// An operation takes a [Caller], asks [Door.Admit] for a [Pass], and changes state only by
// [Pass.Write]. So what must never happen, a change that nobody judged or that nobody recorded,
// cannot be written by accident.
//
// The policies, which are data like any other, are administered here too ([Policies]).
package access

import (
	"net/netip"
	"time"
)

// Caller is who asks.
type Caller struct {
	Identity       string // "user:alice", "sa:ci", "dynamic:support-db", "system:lease"
	IdentityType   string // user, service_account, system
	DisplayName    string
	Tenant         string
	Groups         []string // identities whose bindings hold for the caller, too
	Roles          []string
	Scopes         []string // what the token may be used for
	TokenID        string
	TokenExpiresAt *time.Time
	MFAVerifiedAt  *time.Time
	Internal       bool // the server itself: no token, so no scope limits it; policies do
	Origin         Origin

	rev   int64      // the configuration's revision at which the token was found valid
	limit *RateLimit // of the first Ask
}

// RateLimit is the state of the limit that the request counted against; nil when it met none.
func (c *Caller) RateLimit() *RateLimit { return c.limit }

// EnginesGroup is the group of all dynamic:<engine> identities.
const EnginesGroup = "system:dynamic-engines"

// Origin is where a request came from, for the audit trail and for conditions.
type Origin struct {
	RequestID string
	SourceIP  netip.Addr
	UserAgent string
	Start     time.Time
}

// Right is one way to be allowed: the token's scope and a policy rule, or ownership.
type Right struct {
	Scope      string // the scope the token must hold; "admin" in a token includes every other
	Permission string // the permission a policy rule must grant on Path; "" asks no policy
	Path       string // real or virtual path that is judged
	Owner      string // when set, the right is this identity's alone
}

// Ask is what a request wants.
type Ask struct {
	Action     string         // the audit action
	Path       string         // the entry's secret_path; the first right's Path when empty
	Category   Category       // the rate limit that it counts against
	Any        []Right        // it is allowed when any of these holds; empty: every authenticated caller
	Extra      map[string]any // allow-listed values for extra_data; never a secret
	PerAddress bool           // it counts against the limit of the caller's address, too
	Looks      bool           // it changes nothing although its Action could: served in quarantine, too
}

// Category is a rate limit's: api.md section 0 gives the defaults per minute.
type Category string

// The categories.
const (
	CategoryGenerate     Category = "generate"
	CategoryDynamicAdmin Category = "dynamic_admin"
	CategoryLease        Category = "lease"
	CategoryVerify       Category = "verify" // of one-time credentials, per identity and per address
	CategorySecretRead   Category = "secret_read"
	CategorySecretWrite  Category = "secret_write"
	CategoryPolicy       Category = "policy"
	CategoryPolicyTest   Category = "policy_test"
	CategoryAudit        Category = "audit"
	CategoryBatchRead    Category = "batch_read"
	CategoryWhoAmI       Category = "whoami"
	CategoryAuth         Category = "auth" // making and ending tokens and service accounts
	CategorySystem       Category = "system"

	// CategoryUnauthenticated counts failed authentications per address.
	CategoryUnauthenticated Category = "unauthenticated"
)

// The scopes of tokens.
const (
	ScopeAdmin           = "admin"
	ScopeSecretsRead     = "secrets:read"
	ScopeSecretsWrite    = "secrets:write"
	ScopeSecretsDelete   = "secrets:delete"
	ScopeSecretsList     = "secrets:list"
	ScopeSecretsRotate   = "secrets:rotate"
	ScopeDynamicGenerate = "dynamic:generate"
	ScopeDynamicRead     = "dynamic:read"
	ScopeDynamicManage   = "dynamic:manage"
	ScopeDynamicVerify   = "dynamic:verify"
	ScopePoliciesRead    = "policies:read"
	ScopePoliciesWrite   = "policies:write"
	ScopeAuditRead       = "audit:read"
)

// Scopes are all of them.
func Scopes() []string {
	return []string{ScopeAdmin, ScopeSecretsRead, ScopeSecretsWrite, ScopeSecretsDelete, ScopeSecretsList, ScopeSecretsRotate,
		ScopeDynamicGenerate, ScopeDynamicRead, ScopeDynamicManage, ScopeDynamicVerify, ScopePoliciesRead, ScopePoliciesWrite, ScopeAuditRead}
}
