package api

import (
	"encoding/json"
	"time"
)

// EngineRequest creates or replaces an engine.
type EngineRequest struct {
	Name       string            `json:"name,omitempty"`
	Type       string            `json:"type"`
	Config     json.RawMessage   `json:"config"`
	DefaultTTL *Duration         `json:"default_ttl,omitempty"`
	MaxTTL     *Duration         `json:"max_ttl,omitempty"`
	MaxLeases  *int64            `json:"max_leases,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// EnginePatch changes what is given; config is merged key by key, null removes a key.
type EnginePatch struct {
	Config     map[string]json.RawMessage `json:"config,omitempty"`
	DefaultTTL *Duration                  `json:"default_ttl,omitempty"`
	MaxTTL     *Duration                  `json:"max_ttl,omitempty"`
	MaxLeases  *int64                     `json:"max_leases,omitempty"`
	Metadata   map[string]string          `json:"metadata,omitempty"`
}

// Engine is the configuration of one source. Config never holds a substituted URL.
type Engine struct {
	ID           string            `json:"id"`
	Name         string            `json:"name"`
	Type         string            `json:"type"`
	Config       json.RawMessage   `json:"config"`
	DefaultTTL   Duration          `json:"default_ttl"`
	MaxTTL       Duration          `json:"max_ttl"`
	MaxLeases    int64             `json:"max_leases,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Status       string            `json:"status"`
	RoleCount    int               `json:"role_count"`
	ActiveLeases int64             `json:"active_leases"`
	CreatedAt    time.Time         `json:"created_at"`
	UpdatedAt    time.Time         `json:"updated_at"`
}

// Engine states.
const (
	EngineHealthy       = "healthy"
	EngineUnreachable   = "unreachable"
	EngineMisconfigured = "misconfigured" // in health only
	EngineDeleting      = "deleting"
)

// EngineList is a page of engines.
type EngineList struct {
	Engines []Engine `json:"engines"`
	Page
}

// Page ends every list.
type Page struct {
	Cursor  *string `json:"cursor"`
	HasMore bool    `json:"has_more"`
}

// EngineHealth is the state of a source, looked at now.
type EngineHealth struct {
	Engine               string    `json:"engine"`
	Status               string    `json:"status"`
	LatencyMS            int64     `json:"latency_ms"`
	CheckedAt            time.Time `json:"checked_at"`
	Error                *string   `json:"error"`
	TLS                  string    `json:"tls"`
	ClockOffsetMS        int64     `json:"clock_offset_ms"`
	MissingGrants        []string  `json:"missing_grants"`
	Warnings             []string  `json:"warnings"`
	RevocationBacklog    int64     `json:"revocation_backlog"`
	OldestOverdueSeconds int64     `json:"oldest_overdue_seconds"`
	Orphans              int64     `json:"orphans"` // of the last reconcile
	Residues             int64     `json:"residues"`
	// Details are what else can be told of this kind of source.
	Details map[string]string `json:"details,omitempty"`
}

// AbandonRequest states that a source no longer exists. Confirm is the engine's name.
type AbandonRequest struct {
	Reason  string `json:"reason"`
	Confirm string `json:"confirm"`
}

// AbandonResult lists every account that was given up with the source.
type AbandonResult struct {
	Engine    string   `json:"engine"`
	Abandoned int      `json:"abandoned"`
	Accounts  []string `json:"accounts"`
}

// ReconcileRequest compares the source with the leases; dry_run is true when absent.
type ReconcileRequest struct {
	DryRun *bool `json:"dry_run,omitempty"`
	// Restored removes also in the first day after a restore, when accounts that the store does not
	// know are otherwise only listed.
	Restored bool `json:"restored,omitempty"`
}

// ReconcileResult is what the comparison found.
type ReconcileResult struct {
	Engine   string   `json:"engine"`
	DryRun   bool     `json:"dry_run"`
	Accounts int      `json:"accounts"` // of ours at the source
	Orphans  []string `json:"orphans"`  // that no lease bears
	Removed  []string `json:"removed"`
	Pending  []string `json:"pending"` // orphans seen for the first time: removed by a run 10m later
	Missing  []string `json:"missing"` // leases whose account is not at the source
	Residues []string `json:"residues"`
}

// ReconcileReport is what the last reconcile of an engine found, on schedule or by hand. Lists hold
// the first 1,000.
type ReconcileReport struct {
	Engine string     `json:"engine"`
	At     *time.Time `json:"at"`    // when the last run ended; null before the first
	Error  *string    `json:"error"` // why it failed
	// ListedAt is when the source's accounts were read last: what follows is of that moment.
	ListedAt     *time.Time `json:"listed_at"`
	Accounts     int        `json:"accounts"` // of ours at the source
	OrphanCount  int        `json:"orphan_count"`
	Orphans      []Orphan   `json:"orphans"` // that no lease bears, without those removed
	Removed      []string   `json:"removed"` // by the last run
	MissingCount int        `json:"missing_count"`
	Missing      []string   `json:"missing"` // leases whose account is not at the source
	// CounterDrift is how many active leases there are more than the engine's counter tells.
	CounterDrift int64      `json:"counter_drift"`
	NextAt       *time.Time `json:"next_at"` // null while none is scheduled
}

// Orphan is an account that no lease bears.
type Orphan struct {
	Username  string    `json:"username"`
	FirstSeen time.Time `json:"first_seen"`
}

// RoleRequest is the common part of a role; the rest of the document is the engine's.
type RoleRequest struct {
	Name       string            `json:"name,omitempty"`
	DefaultTTL *Duration         `json:"default_ttl,omitempty"`
	MaxTTL     *Duration         `json:"max_ttl,omitempty"`
	MaxLeases  *int64            `json:"max_leases,omitempty"`
	TieToToken bool              `json:"tie_to_token,omitempty"`
	Renewable  *bool             `json:"renewable,omitempty"`
	Metadata   map[string]string `json:"metadata,omitempty"`
}

// Role is the recipe for credentials: the common part, and the engine's own fields beside it in
// the same JSON object (Spec).
type Role struct {
	Name         string            `json:"name"`
	Engine       string            `json:"engine"`
	DefaultTTL   Duration          `json:"default_ttl"`
	MaxTTL       Duration          `json:"max_ttl"`
	MaxLeases    int64             `json:"max_leases,omitempty"`
	TieToToken   bool              `json:"tie_to_token"`
	Renewable    bool              `json:"renewable"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	ActiveLeases int64             `json:"active_leases"`
	Warnings     []string          `json:"warnings,omitempty"`
	CreatedAt    time.Time         `json:"created_at"`
	UpdatedAt    time.Time         `json:"updated_at"`

	Spec map[string]json.RawMessage `json:"-"`
}

// MarshalJSON writes the engine's fields beside the common ones.
func (r Role) MarshalJSON() ([]byte, error) {
	type plain Role
	common, err := json.Marshal(plain(r))
	if err != nil {
		return nil, err
	}
	return beside(common, r.Spec)
}

// beside adds the engine's own fields to a document that has common ones.
func beside[V any](common []byte, own map[string]V) ([]byte, error) {
	if len(own) == 0 {
		return common, nil
	}
	fields, err := json.Marshal(own)
	if err != nil {
		return nil, err
	}
	if string(common) == "{}" {
		return fields, nil
	}
	return append(append(common[:len(common)-1], ','), fields[1:]...), nil
}

// UnmarshalJSON reads the common fields and keeps every field, the engine's own included, in Spec.
func (r *Role) UnmarshalJSON(b []byte) error {
	type plain Role
	if err := json.Unmarshal(b, (*plain)(r)); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &r.Spec); err != nil {
		return err
	}
	for _, name := range roleFields {
		delete(r.Spec, name)
	}
	return nil
}

// roleFields are the common fields, which Spec does not hold.
var roleFields = []string{"name", "engine", "default_ttl", "max_ttl", "max_leases", "tie_to_token",
	"renewable", "metadata", "active_leases", "warnings", "created_at", "updated_at"}

// RoleList is a page of roles.
type RoleList struct {
	Roles []Role `json:"roles"`
	Page
}

// RoleTest reports a dry run: each step and its time.
type RoleTest struct {
	Engine   string     `json:"engine"`
	Role     string     `json:"role"`
	OK       bool       `json:"ok"`
	Username string     `json:"username"`
	Steps    []TestStep `json:"steps"`
}

// TestStep is one step of a role test.
type TestStep struct {
	Step       string `json:"step"` // "issue", "verify", "revoke"
	OK         bool   `json:"ok"`
	DurationMS int64  `json:"duration_ms"`
	Error      string `json:"error,omitempty"`
}

// CredsRequest asks for a credential; every field may be absent. Params are the engine's own fields,
// such as "public_key" of ssh.
type CredsRequest struct {
	TTL      *Duration         `json:"ttl,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`

	Params map[string]any `json:"-"`
}

// MarshalJSON writes the engine's fields beside the common ones.
func (r CredsRequest) MarshalJSON() ([]byte, error) {
	type plain CredsRequest
	common, err := json.Marshal(plain(r))
	if err != nil {
		return nil, err
	}
	return beside(common, r.Params)
}

// Credential is the answer that holds the secret, given once.
type Credential struct {
	LeaseID      string            `json:"lease_id"`
	Engine       string            `json:"engine"`
	Role         string            `json:"role"`
	Data         map[string]string `json:"data"`
	TTL          int64             `json:"ttl"` // seconds
	Renewable    bool              `json:"renewable"`
	IssuedAt     time.Time         `json:"issued_at"`
	ExpiresAt    time.Time         `json:"expires_at"`
	MaxExpiresAt time.Time         `json:"max_expires_at"`
}

// LeaseStatus is a lease's state. There is none in which the server has given up.
type LeaseStatus string

// The states of a lease.
const (
	LeaseIssuing  LeaseStatus = "issuing"
	LeaseActive   LeaseStatus = "active"
	LeaseRevoking LeaseStatus = "revoking"
	LeaseRevoked  LeaseStatus = "revoked"
)

// Why a lease ended.
const (
	ReasonExpired         = "expired"
	ReasonRevoked         = "revoked"
	ReasonPrefix          = "prefix"
	ReasonEngineDeleted   = "engine_deleted"
	ReasonRoleDeleted     = "role_deleted"
	ReasonIssueFailed     = "issue_failed"
	ReasonUndelivered     = "undelivered"
	ReasonIdentityRevoked = "identity_revoked"
	ReasonReconciled      = "reconciled"
	ReasonSourceAbandoned = "source_abandoned"
	ReasonUsed            = "used" // a one-time credential that was accepted
)

// Lease is a credential's record; it never holds the credential again.
type Lease struct {
	LeaseID      string            `json:"lease_id"`
	Engine       string            `json:"engine"`
	Role         string            `json:"role"`
	IdentityID   string            `json:"identity_id"`
	Status       LeaseStatus       `json:"status"`
	Unconfirmed  bool              `json:"unconfirmed"`
	Username     string            `json:"username"`
	IssuedAt     time.Time         `json:"issued_at"`
	ExpiresAt    time.Time         `json:"expires_at"`
	MaxExpiresAt time.Time         `json:"max_expires_at"`
	RenewedAt    *time.Time        `json:"renewed_at"`
	RevokedAt    *time.Time        `json:"revoked_at"`
	Renewable    bool              `json:"renewable"`
	Revocation   *Revocation       `json:"revocation"`
	Metadata     map[string]string `json:"metadata,omitempty"`
}

// Revocation tells how far a revocation has come.
type Revocation struct {
	Reason        string     `json:"reason"`
	RequestedAt   time.Time  `json:"requested_at"`
	RequestedBy   string     `json:"requested_by"`
	Attempts      int        `json:"attempts"`
	LastError     string     `json:"last_error,omitempty"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	EffectiveAt   *time.Time `json:"effective_at"`
	Residue       string     `json:"residue,omitempty"`
}

// LeaseList is a page of leases.
type LeaseList struct {
	Leases []Lease `json:"leases"`
	Page
}

// RenewRequest moves a lease's end: Increment never shortens, TTL is exactly that much from now.
type RenewRequest struct {
	Increment *Duration `json:"increment,omitempty"`
	TTL       *Duration `json:"ttl,omitempty"`
}

// RevokePrefixRequest revokes "<engine>" or "<engine>/<role>".
type RevokePrefixRequest struct {
	Prefix string `json:"prefix"`
}

// RevokeFilterRequest revokes all that matches; at least one field.
type RevokeFilterRequest struct {
	Engine       string     `json:"engine,omitempty"`
	Role         string     `json:"role,omitempty"`
	IdentityID   string     `json:"identity_id,omitempty"`
	TokenID      string     `json:"token_id,omitempty"`
	IssuedBefore *time.Time `json:"issued_before,omitempty"`
}

// RevokeResult counts what a revocation of many matched and killed.
type RevokeResult struct {
	Matched       int64    `json:"matched"`
	Revoked       int64    `json:"revoked"`
	Pending       int64    `json:"pending"`
	PendingLeases []string `json:"pending_leases,omitempty"` // the first 100
}
