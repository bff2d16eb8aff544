// Package engine is the contract between ScaiVault and the sources in which it makes credentials.
//
// The lease manager decides when a credential is made, moved and killed, and makes that durable;
// an engine only knows how one kind of source does it. An engine therefore keeps no state that a
// crash may lose: all that revocation needs is in the [Recipe] which the lease carries.
//
// The core is [Type] (how configuration and roles are read, how a source is opened) and [Engine]
// (plan, issue, revoke, look up). What only some sources can do is a small optional interface
// below, found by type assertion: [Renewer], [RolePreparer], [Settler], [BatchRevoker], [Lister],
// [RootRotator], [Clock]. What only engines that are their own source can do is in signing.go.
package engine

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// Type is one kind of source. Its methods have no contact with a source except Open.
type Type interface {
	// Name is the engine's name in paths and documents, such as "postgresql".
	Name() string

	// ParseConfig decodes the engine's own part of a configuration strictly: an unknown or
	// contradictory field is a *fault.Error of code invalid_config that names it. It returns what
	// the lease manager must know of it; the raw document stays the stored truth.
	ParseConfig(raw json.RawMessage) (Config, error)

	// ParseRole decodes and checks the engine's own part of a role strictly, as ParseConfig does;
	// the code is invalid_config, as for every template that cannot work.
	ParseRole(raw json.RawMessage) (Role, error)

	// Open connects to the source that o describes and proves that the root credentials work
	// there. It fails with an *Error; the caller closes what it returns.
	Open(ctx context.Context, o Options) (Engine, error)
}

// Config is what the rest of the server must know of an engine's configuration.
type Config struct {
	// RootCredentialsPath is the path of the secret that holds the root credentials; empty where the
	// engine has none.
	RootCredentialsPath string
	// SecretPaths are the other secrets the engine reads, such as a CA certificate.
	SecretPaths []string
	// Endpoint identifies where the root secret is sent: whoever changes it must hold the secret.
	Endpoint string
	// RootHome identifies who keeps the root where that is not the source itself: a key of a cloud leads
	// to several accounts or projects, and a new one leads to all of them. It is equal for engines to
	// which one root secret stands for one and the same root; empty where that is only so at one source.
	RootHome string
	// OperationTimeout bounds one operation at the source; 15s when absent, at most 5m.
	OperationTimeout time.Duration
	// ConnectTimeout bounds the making of one connection; 5s when absent.
	ConnectTimeout time.Duration
	// MaxOpenConnections bounds the connections to the source; one of them is kept for
	// revocation. 4 when absent, at least 2.
	MaxOpenConnections int
	// Listed says that nobody can kill the credentials, since those who check them ask no source: they
	// read what is revoked in a list. The Type is a [RevocationLister].
	Listed bool
	// KeyLead is how long a new key of a Listed engine is published before it signs.
	KeyLead time.Duration
	// Bounds are the limits of a role's credentials where they depend on the configuration, too; nil where
	// the role itself knows them (Bounded).
	Bounds func(Role) Bounds
	// Reconcile is what a scheduled reconcile does; "" is ReconcileOff.
	Reconcile string
	// ReconcileInterval is the longest time from one scheduled reconcile to the next; 1h when
	// absent, at least 1m.
	ReconcileInterval time.Duration
}

// What a scheduled reconcile does.
const (
	ReconcileReport = "report"
	ReconcileRemove = "remove"
	ReconcileOff    = "off"
)

// Role is a role as its Type understood it: opaque to the rest of the server, immutable, safe for
// concurrent use.
type Role any

// Bounded is a Role whose credentials cannot live for just any time.
type Bounded interface {
	Bounds() Bounds
}

// Bounds are the limits of a source's credentials, in which a role's life times must lie.
type Bounds struct {
	Shortest time.Duration // 0 for no bound
	Longest  time.Duration // 0 for no bound
	Fixed    bool          // the end cannot be moved: such leases are not renewable
}

// Options is what an engine is opened with.
type Options struct {
	Installation string // id of this installation, in every mark at the source
	Tenant       string // that the engine and its secrets belong to; a path names one secret within it
	EngineID     string // eng_…
	EngineName   string
	Node         string // this node and its present epoch, in the mark of its connections
	Epoch        int64
	// Accepted are former servers (SourceID) whose leases an administrator said are to be settled
	// on the present one: their recipes are taken, but for the ids that only the former knew.
	Accepted []string

	Config json.RawMessage             // as ParseConfig accepted it
	Root   map[string]statement.Secret // the root secret's fields; nil without a root
	// Secret reads another secret of the configuration (Config.SecretPaths), during Open only.
	Secret func(ctx context.Context, path string) (map[string]statement.Secret, error)
	// Roots are the versions of the root secret that were current at since or later, newest first, for a
	// source that goes on to accept former ones; during Open only. Root need not be among them.
	Roots func(ctx context.Context, since time.Time) ([]RootVersion, error)
	// MaxTTL is the longest life of the engine's credentials.
	MaxTTL time.Duration
	// KeyTerms are those of a Listed engine, the oldest first: the last are the present ones. Without any
	// the present settings have always been.
	KeyTerms []KeyTerms

	Namer  *statement.Namer
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Logger *slog.Logger
}

// RootVersion is one version of the root secret.
type RootVersion struct {
	Fields map[string]statement.Secret
	Since  time.Time // when it was written
}

// Engine is one open source. Its methods are safe for concurrent use and end within the context
// given; every error they return is an *Error.
type Engine interface {
	// SourceID is the identity of the server behind the engine: it survives restarts and
	// failovers, and tells a rebuilt server from the one that leases were made on.
	SourceID() string

	// Plan names the credential and makes its secret part. It has no contact with the source, so
	// that the name can be made durable first (law L1).
	Plan(ctx context.Context, r PlanRequest) (*Plan, error)

	// Issue makes the planned credential at the source, which itself refuses to do so after
	// p.Deadline. It returns the recipe completed by what only the source knows (object ids).
	// An error's Kind says what is left at the source; only with Uncertain may anything be left.
	Issue(ctx context.Context, p *Plan) (Recipe, error)

	// Revoke kills the credential that the recipe describes: no login, no membership, no session
	// (law L2). It is idempotent: one that is already gone is dead. It touches only what is ours
	// (law L11). A nil error means dead, but for what the Outcome says.
	Revoke(ctx context.Context, r Recipe) (Outcome, error)

	// Lookup tells whether the credential exists at the source and can be used.
	Lookup(ctx context.Context, r Recipe) (Presence, error)

	// Check looks at the source now. It reports what is wrong in the Health, never as an error.
	Check(ctx context.Context) Health

	// Close ends all connections. Safe to call twice.
	Close()
}

// Recipe is what revocation needs, stored with the lease: names, ids, databases, statements. It
// never holds a secret, and an edited or deleted role does not change it.
type Recipe json.RawMessage

// NewRecipe is the recipe that an engine's own form of it makes. It panics where the form has what no
// JSON can hold, which is a mistake in the engine.
func NewRecipe(form any) Recipe {
	b, err := json.Marshal(form)
	if err != nil {
		panic(err)
	}
	return b
}

// MarshalJSON keeps the recipe as the JSON it is.
func (r Recipe) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }

// UnmarshalJSON keeps the recipe as the JSON it is.
func (r *Recipe) UnmarshalJSON(b []byte) error { return (*json.RawMessage)(r).UnmarshalJSON(b) }

// PlanRequest is the wish for one credential.
type PlanRequest struct {
	LeaseID   string
	RoleName  string
	Role      Role
	Identity  string          // who asks
	ExpiresAt time.Time       // the end that the source shall enforce where it can
	Params    json.RawMessage // the engine's own fields of the request; nil when absent
	DryRun    bool            // of a role's test: what a caller would have to send is made up
}

// Plan is a credential that has a name but does not exist yet.
type Plan struct {
	LeaseID   string
	Username  string // the account's name at the source: unique over all engines, never used again
	Role      Role
	ExpiresAt time.Time
	Deadline  time.Time // set by the lease manager before Issue: the source refuses after it
	Recipe    Recipe
	Data      map[string]statement.Secret // what the caller gets; Issue adds what the source makes
	Private   any                         // the engine's own
}

// Outcome is what a revocation came to.
type Outcome struct {
	// Residue names what keeps an empty, powerless account from being dropped, and the statement
	// to run. Empty when nothing is left.
	Residue string
	// EffectiveAt is the moment from which the credential is dead, where the source cannot kill
	// at once; nil when it is dead now. The first answer counts: at that moment Revoke is called
	// once more, to clear away what is left, and a later EffectiveAt is not waited for again.
	EffectiveAt *time.Time
}

// Presence is what Lookup found.
type Presence struct {
	State  State
	Recipe Recipe // completed by what the source knows (object ids), when State is Usable
}

// State of an account at the source.
type State int

const (
	Absent   State = iota // no such account
	Unusable              // half-made: exists, but nobody can log in with it
	Usable                // exists and can be used
	Foreign               // the name is taken by an account that is not ours
)

// Health is the state of a source.
type Health struct {
	Status        string // "healthy", "unreachable", "misconfigured"
	Error         string // why it is not healthy; never a secret
	Latency       time.Duration
	TLS           string // "none", "unverified", "verified"
	ClockOffset   time.Duration
	MissingGrants []string // what root lacks, each with the statement that grants it
	Warnings      []string
	Details       map[string]string // what else can be told of this kind of source
}

// Renewer moves the end that the source enforces.
type Renewer interface {
	// Renew sets the credential's end at the source. Idempotent. Nothing of it takes effect after the
	// deadline of ctx, however late the source comes to it: another renewal may have set another end.
	Renew(ctx context.Context, r Recipe, until time.Time) error
}

// RolePreparer proves at the source that a role can work before it is saved, and makes what its
// credentials share (a group). Idempotent.
type RolePreparer interface {
	PrepareRole(ctx context.Context, roleName string, role Role) (warnings []string, err error)
}

// Settler excludes late execution (law L1): after it returned nil, nothing that the node sent to
// the source before the call, in this or an earlier epoch, and whose deadline is past, can still
// take effect.
type Settler interface {
	Settle(ctx context.Context, node string, recipes []Recipe) error
}

// BatchRevoker revokes many at once. The results are in the order of the recipes; one that fails
// does not harm the others.
type BatchRevoker interface {
	RevokeBatch(ctx context.Context, rs []Recipe) []Result
}

// Result of one revocation in a batch.
type Result struct {
	Outcome
	Err error
}

// Lister lists the accounts at the source that bear this installation's mark, for reconcile.
type Lister interface {
	List(ctx context.Context) ([]Account, error)
}

// Account is one account of ours at the source.
type Account struct {
	Username string
	Recipe   Recipe // enough to revoke it
}

// RootRotator changes the root credentials at the source.
type RootRotator interface {
	// PlanRoot makes the candidate: the root secret's fields with a new secret part. It has no
	// contact with the source, so that the candidate can be made durable first (law L9). Only where
	// it is the source that makes secrets (the access keys of a cloud), the candidate is made there
	// beside the present root, which is left as it is. One that was lost before it was durable is
	// nobody's: the next PlanRoot ends it, and must tell it from what somebody else made there.
	PlanRoot(ctx context.Context) (map[string]statement.Secret, error)
	// SetRoot makes the source accept the candidate, proves it by a new connection, and ends what
	// the source may have accepted beside it. Idempotent. Once it may have ended the former root it
	// never answers Refused, on which the candidate is forgotten.
	SetRoot(ctx context.Context, candidate map[string]statement.Secret) error
}

// Clock is what a source has that tells the time: evidence of how much of it passed, when the clock
// of this server jumped.
type Clock interface {
	// Now is the time at the source, asked for now.
	Now(ctx context.Context) (time.Time, error)
}
