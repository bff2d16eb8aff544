package store

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
)

// DefaultTenant is the one tenant of an installation that has no others.
const DefaultTenant = "tnt_default"

// ErrUsernameTaken is InsertLease's and UpdateLease's answer to a name that some lease already has.
var ErrUsernameTaken = errors.New("username is already borne by a lease")

// Kind of configuration object.
type Kind string

// The kinds. Those of [Kind.Cached] are held in [Config].
const (
	KindEngine         Kind = "engine"
	KindRole           Kind = "role"   // key "<engine>/<role>"
	KindPolicy         Kind = "policy" // key the name
	KindBinding        Kind = "binding"
	KindServiceAccount Kind = "service_account"
	KindUser           Kind = "user"
	KindSystem         Kind = "system" // state of the installation itself
	KindRotationPolicy Kind = "rotation_policy"
	KindSecretPolicy   Kind = "secret_policy"
	KindToken          Kind = "token" // key "<identity>/<id>"; not cached: there may be very many
)

// Cached tells whether objects of this kind are part of Config. Their changes move its Rev, as do
// the replacing and the removing, but not the making, of a token: so what was decided for a token
// holds as long as the revision stands, and making one costs the others nothing.
func (k Kind) Cached() bool { return k != KindToken }

// NotFound is the code that tells that an object of this kind is absent.
func (k Kind) NotFound() fault.Code {
	switch k {
	case KindEngine:
		return fault.EngineNotFound
	case KindRole:
		return fault.RoleNotFound
	case KindPolicy:
		return fault.PolicyNotFound
	case KindBinding:
		return fault.BindingNotFound
	case KindServiceAccount:
		return fault.ServiceAccountNotFound
	case KindUser:
		return fault.IdentityNotFound
	case KindRotationPolicy:
		return fault.RotationPolicyNotFound
	case KindSecretPolicy:
		return fault.SecretPolicyNotFound
	case KindToken:
		return fault.TokenNotFound
	default:
		return fault.NotFound
	}
}

// Exists is the code that tells that a key of this kind is taken. A kind that has none of its own
// answers version_conflict: somebody else was first.
func (k Kind) Exists() fault.Code {
	switch k {
	case KindEngine:
		return fault.EngineExists
	case KindRole:
		return fault.RoleExists
	case KindPolicy:
		return fault.PolicyExists
	case KindBinding:
		return fault.BindingExists
	case KindServiceAccount:
		return fault.ServiceAccountExists
	case KindRotationPolicy:
		return fault.RotationPolicyExists
	case KindSecretPolicy:
		return fault.SecretPolicyExists
	case KindToken:
		return fault.TokenExists
	default:
		return fault.VersionConflict
	}
}

// Object is one configuration document. ID is unique within tenant and kind, as Key is.
type Object struct {
	Tenant    string
	Kind      Kind
	ID        string
	Key       string
	Doc       json.RawMessage
	Version   int64 // 1 at creation, one more with each write
	Rev       int64 // the configuration's revision of the last write
	CreatedAt time.Time
	UpdatedAt time.Time

	decoded decoded
}

// Lease is one lease's row. Status is never "given up": the states are api.LeaseStatus's.
type Lease struct {
	ID       string
	Tenant   string
	EngineID string
	Engine   string
	Role     string
	Identity string
	TokenID  string // that asked for it
	Tied     bool   // ends with that token
	Status   api.LeaseStatus
	// Unconfirmed: found usable at the source after a crash; the caller may hold it.
	Unconfirmed bool
	Renewable   bool
	Username    string
	SourceID    string
	Recipe      engine.Recipe
	Metadata    map[string]string

	IssuedAt     time.Time
	ExpiresAt    time.Time
	MaxExpiresAt time.Time
	RenewedAt    *time.Time
	RevokedAt    *time.Time

	// PendingExpiresAt is an end that is being set at the source; void after PendingDeadline.
	PendingExpiresAt *time.Time
	PendingDeadline  *time.Time

	// ListedUntil is set for a credential that nobody can kill, since those who check it ask no source
	// but a list of what is revoked: from its revocation until then the lease is part of that list.
	ListedUntil *time.Time

	// DueAt is when somebody must next look at the row; nil when nobody must.
	DueAt *time.Time
	// Deadline of the issuance: the source refuses to make the account after it.
	Deadline time.Time
	// LateLooks counts down the looks still to be taken at a name whose issuance was uncertain.
	LateLooks int
	// FenceSeq is the newest fence that the intent has seen.
	FenceSeq int64
	// Node and Epoch that issued it: whose connections may still execute something late.
	Node  string
	Epoch int64

	Revocation *api.Revocation // nil until asked for
	Claim      *Claim
	Version    int64
}

// Claim says who works on a row.
type Claim struct {
	Node  string
	Epoch int64
	No    int64
	Until time.Time
}

// LeaseFilter selects leases; empty fields select all.
type LeaseFilter struct {
	Tenant        string
	EngineID      string
	Role          string
	Identity      string
	TokenID       string
	Status        api.LeaseStatus
	Username      string
	ExpiresBefore *time.Time
	ExpiresAfter  *time.Time
	IssuedBefore  *time.Time
	// OverdueAt selects active and revoking leases that should be dead at that moment: past their
	// end, or asked to be revoked before.
	OverdueAt *time.Time
	// Residue selects revoked leases that left one.
	Residue bool
	// ListedAt selects the leases that are part of a list of what is revoked at that moment.
	ListedAt *time.Time
}

// LeaseCount is one kept counter.
type LeaseCount struct {
	EngineID string
	Role     string
	Status   api.LeaseStatus
	N        int64
}

// Fence is a revocation of a scope: every intent before it that matches is revoked, however late
// it comes to light (law L5). Empty fields match all; a fence has at least one set besides Tenant.
type Fence struct {
	Tenant       string
	Seq          int64
	EngineID     string
	Role         string
	Identity     string
	TokenID      string
	TiedOnly     bool // only leases that end with their token
	IssuedBefore *time.Time
	Reason       string // api.Reason…
	By           string // identity
	At           time.Time
	AuditID      string
	Matched      int64 // leases marked so far
	Closed       bool
}

// Matches tells whether the lease is in the fence's scope and older than it.
func (f *Fence) Matches(l *Lease) bool {
	return l.Tenant == f.Tenant && l.FenceSeq < f.Seq &&
		(f.EngineID == "" || f.EngineID == l.EngineID) &&
		(f.Role == "" || f.Role == l.Role) &&
		(f.Identity == "" || f.Identity == l.Identity) &&
		(f.TokenID == "" || f.TokenID == l.TokenID) &&
		(!f.TiedOnly || l.Tied) &&
		(f.IssuedBefore == nil || l.IssuedAt.Before(*f.IssuedBefore))
}

// Secret is the present state of a secret.
type Secret struct {
	Tenant    string
	Path      string
	Type      string
	Version   int             // the current version
	Versions  int             // the highest version ever given
	Doc       json.RawMessage // metadata and options
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt *time.Time
	// DeletedAt is set for a soft-deleted secret, RecoverableUntil with it.
	DeletedAt        *time.Time
	RecoverableUntil *time.Time
	// RotationPolicy is the id of the policy that it is rotated by, "" for none. RotateAt is the
	// moment until when the policy wants another value; RotateDueAt when the scheduler must look at
	// the secret next, nil when nobody must.
	RotationPolicy string
	RotateAt       *time.Time
	RotateDueAt    *time.Time
}

// SecretVersion is one version of a secret: sealed data, bound to tenant, path and version.
type SecretVersion struct {
	Tenant     string
	Path       string
	Version    int
	Sealed     []byte // ciphertext with its wrapped data key; nil in lists
	CreatedAt  time.Time
	CreatedBy  string
	GraceUntil *time.Time // not readable after this moment
}

// AuditRow is one entry as it stands in its node's chain.
type AuditRow struct {
	Node   string
	Seq    int64
	Pos    int64 // its number in lists, which are of all chains
	Tenant string
	Entry  api.AuditEntry
	Raw    []byte // the entry's JSON, byte for byte as it was recorded
	MAC    []byte // over AuditMessage of this row
}

// AuditHead is where a node's kept chain begins and ends.
type AuditHead struct {
	Node     string
	FirstSeq int64  // the lowest kept sequence
	Base     []byte // the MAC before it: of the trimmed entry, or of the chain's start
	LastSeq  int64
	LastMAC  []byte
}

// AuditFilter selects entries; empty fields select all.
type AuditFilter struct {
	Tenant       string
	From, To     *time.Time
	Action       string
	IdentityID   string
	IdentityType string
	PathPrefix   string
	Path         string
	Success      *bool
	SourceIP     string
	RequestID    string
}

// AuditCount is a row of the summary.
type AuditCount struct {
	Action  string
	Success bool
	N       int64
}

// Chain computes the audit chain's MAC over the previous one and a row's [AuditMessage]. It must
// not keep what it is given.
type Chain func(prev, message []byte) []byte
