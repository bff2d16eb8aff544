// Package store is the contract of the durable state, and its rows. Everything that must survive
// a crash goes through it: configuration objects, secrets, leases, fences, and the audit chain.
//
// All state changes of a node go through its one group committer: Write runs the functions of all
// that wait in one transaction, in an order, each undone by itself if it fails, and shares one
// flush to disk among them. The audit chain's sequence and hash are given inside that transaction,
// so that a change and its entry are durable together or not at all (law L7).
//
// Two stores keep this contract: sqlite (one node, a data folder) and, for several nodes, one on
// PostgreSQL. storetest is the suite that both pass. Errors are *fault.Error where a caller did
// something (…_not_found, version_conflict); a store that is lost answers service_unavailable.
package store

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
)

// Store is the durable state of an installation. Safe for concurrent use.
type Store interface {
	// Write runs fn in a transaction and returns when it is durable. An error of fn undoes what
	// fn did, and nothing else, and is returned as it is. fn may be run more than once, so it
	// changes nothing outside tx but what it sets anew in each run; it does not block. When ctx
	// ends before fn was run, nothing happens; once it ran, Write waits for the commit.
	Write(ctx context.Context, fn func(tx Tx) error) error

	// WriteRelaxed is Write whose flush to disk may lag: visible to every reader and safe from a
	// crash of the process when it returns, durable against power loss with the next Write.
	WriteRelaxed(ctx context.Context, fn func(tx Tx) error) error

	// Read runs fn on one consistent snapshot. It never waits for writers.
	Read(ctx context.Context, fn func(r Reader) error) error

	// Export hands all that the store holds to fn, one record after the other, of one consistent
	// snapshot, while others write: they do not wait, and only a page of rows is in memory. An error
	// of fn ends it and is returned as it is. What it gives, the Import of either store takes.
	Export(ctx context.Context, fn func(r *Record) error) error

	// Config is the configuration as of the last commit: immutable, cheap to ask for.
	Config() *Config

	// Node and Epoch name this process: the epoch grows with each start of the node.
	Node() string
	Epoch() int64

	// Installation is the id that this store was given when it was made.
	Installation() string

	// Ping proves that the store can be written.
	Ping(ctx context.Context) error

	// Close waits for what is being committed. Safe to call twice.
	Close() error
}

// AnyVersion is PutObject's ifVersion that replaces whatever is stored.
const AnyVersion int64 = -1

// Reader reads one consistent snapshot, and the writes of its own transaction. What it returns is
// the caller's to keep and change. Reading one thing that is absent is an error of its own
// "…_not_found" code; times are UTC, in whole microseconds.
type Reader interface {
	// Now is the store's clock: the machine's in the embedded store, the database's in the shared.
	Now() time.Time

	// Alive tells whether the process that runs the node in that epoch still does: the node has begun
	// no newer one, and where there are others, gave a sign of life in the last 5 s of the store's
	// clock. What a node that is not alive had begun, others may take over.
	Alive(node string, epoch int64) (bool, error)

	// ConfigRev is the revision of the configuration in this snapshot.
	ConfigRev() int64

	// Object reads one object by id; Objects those of a kind by key prefix, in the order of the
	// keys, after the key given, at most limit (0: all).
	Object(tenant string, kind Kind, id string) (*Object, error)
	ObjectByKey(tenant string, kind Kind, key string) (*Object, error)
	Objects(tenant string, kind Kind, prefix, after string, limit int) ([]*Object, error)

	// Lease reads one lease; the tenant must match.
	Lease(tenant, id string) (*Lease, error)
	// LeasesByUsername looks a name up among all leases of the store, every engine and tenant.
	LeasesByUsername(usernames []string) (map[string]*Lease, error)
	// Leases lists by filter in the order of the ids, newest first, from before the id given.
	Leases(f LeaseFilter, before string, limit int) ([]*Lease, error)
	// LeaseCounts are the kept counters of an engine ("" for all), by engine, role and status.
	LeaseCounts(engineID string) ([]LeaseCount, error)
	// Overdue tells how many leases of the engine are past their end or asked to be revoked and
	// not dead, and since when the oldest is.
	Overdue(engineID string, now time.Time) (n int, oldest time.Time, err error)
	// NextDue tells for each engine when its next lease is due, and not claimed; a claim that is valid
	// at now is due again at its Until. What it says is due, ClaimDue of the same moment claims.
	NextDue(now time.Time) (map[string]time.Time, error)

	// OpenFences are those whose leases are not all marked yet.
	OpenFences() ([]*Fence, error)
	// FencesSince are the fences of a tenant newer than seq.
	FencesSince(tenant string, seq int64) ([]*Fence, error)
	// FenceSeq is the newest fence's number in the tenant, 0 for none.
	FenceSeq(tenant string) (int64, error)
	// FencePending counts the leases in the fence's scope older than it that are not revoked yet,
	// those already revoking included, and names the first of them, at most limit.
	FencePending(f *Fence, limit int) (n int64, ids []string, err error)

	// Secret reads a secret's present state without its versions' data; SecretVersion one version
	// with its ciphertext, SecretVersions all without.
	Secret(tenant, path string) (*Secret, error)
	SecretVersion(tenant, path string, version int) (*SecretVersion, error)
	SecretVersions(tenant, path string) ([]*SecretVersion, error)
	// Secrets lists by path prefix (a whole number of segments, or "") after a path.
	Secrets(tenant, prefix, after string, limit int) ([]*Secret, error)
	// SecretsToRotate are the secrets of every tenant that the scheduler must look at, due or not,
	// the earliest first. SecretsOfPolicy are those of a rotation policy after a path,
	// RotationCounts how many each policy of the tenant has.
	SecretsToRotate(limit int) ([]*Secret, error)
	SecretsOfPolicy(tenant, policyID, after string, limit int) ([]*Secret, error)
	RotationCounts(tenant string) (map[string]int64, error)
	// RotationsDue tells how many secrets have a value that was to be replaced by now, and since
	// when the longest.
	RotationsDue(now time.Time) (n int64, oldest time.Time, err error)

	// AuditEntries lists entries, newest first, from before the Pos given (0: from the newest).
	AuditEntries(f AuditFilter, before int64, limit int) ([]*AuditRow, error)
	// AuditChain reads a node's chain upwards from a sequence.
	AuditChain(node string, from int64, limit int) ([]*AuditRow, error)
	// AuditHeads are the first and last rows kept of each node's chain.
	AuditHeads() ([]AuditHead, error)
	// AuditCounts counts entries by action and success between two moments.
	AuditCounts(tenant string, from, to time.Time) ([]AuditCount, error)

	// Meta reads a small value of the store itself (the sealed keyring); nil when absent.
	Meta(key string) ([]byte, error)
}

// Tx is a transaction that writes. What it wrote is seen by its own reads.
type Tx interface {
	Reader

	// PutObject creates (ID unknown) or replaces an object. With ifVersion it is refused with
	// version_conflict unless that is the stored version (0: it must not exist; AnyVersion: no
	// matter). The key is unique within tenant and kind: else kind's "…_exists". It sets Version,
	// Rev and the times.
	PutObject(o *Object, ifVersion int64) error
	// UpdateObject reads, changes by fn and writes; fn gets a copy.
	UpdateObject(tenant string, kind Kind, id string, fn func(o *Object) error) error
	// DeleteObject removes it; kind's "…_not_found" when absent.
	DeleteObject(tenant string, kind Kind, id string) error

	// LockTenant orders intents and fences (law L5): every intent takes it shared before it reads
	// engine and role, every fence exclusively. In the embedded store the committer does it.
	LockTenant(tenant string, exclusive bool) error

	// InsertLease makes a lease's row; a username that any lease of the store ever had is refused
	// with ErrUsernameTaken.
	InsertLease(l *Lease) error
	// UpdateLease reads the row, changes it by fn, writes it and keeps the counters. An error of
	// fn changes nothing. It returns the row as written.
	UpdateLease(id string, fn func(l *Lease) error) (*Lease, error)
	// LockLeases reads rows at once that UpdateLease is about to change one by one: in the shared
	// store each would be a trip of its own, while others wait. One that is absent is passed over.
	LockLeases(ids []string) error
	// ClaimDue claims up to limit rows of the engine that are due and not under a valid claim,
	// the longest due first, and returns them. A claim of an older epoch of a node, or past its
	// Until, is void; and so is an earlier claim (a smaller No) of the node that claims: it works on
	// an engine's rows one claim after the other, and what it left was not written down.
	ClaimDue(engineID string, now time.Time, limit int, c Claim) ([]*Lease, error)

	// AddFence writes a fence and gives it the tenant's next number.
	AddFence(f *Fence) error
	// FenceTargets are the ids of leases in the fence's scope older than it that are issuing or
	// active, after the id given, in the order of the ids.
	FenceTargets(f *Fence, after string, limit int) ([]string, error)
	// CloseFence says that all leases of the fence are marked.
	CloseFence(tenant string, seq int64) error

	// PutSecret writes a secret's state; PutSecretVersion one version's. DeleteSecret removes it
	// with all versions, DeleteSecretVersion one.
	PutSecret(s *Secret) error
	PutSecretVersion(v *SecretVersion) error
	DeleteSecret(tenant, path string) error
	DeleteSecretVersion(tenant, path string, version int) error
	// RescheduleSecrets makes the scheduler look at every secret of a rotation policy at the moment
	// given.
	RescheduleSecrets(tenant, policyID string, at time.Time) error

	// Audit appends the entry to this node's chain. It fills ID and Timestamp when empty.
	Audit(tenant string, e *api.AuditEntry) error

	// PutMeta writes a small value of the store itself.
	PutMeta(key string, value []byte) error

	// Trim removes up to limit revoked leases that ended before, audit rows older than, and
	// closed fences older than leaseBefore; it reports how many rows went. A trimmed chain keeps
	// its head, so that it can still be verified. What left a residue, is still due, or was part of
	// a list of what is revoked at leaseBefore stays, as does the newest fence of a tenant, whose
	// number the next one follows.
	Trim(leaseBefore, auditBefore time.Time, limit int) (int, error)
}
