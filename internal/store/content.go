package store

import (
	"errors"
	"time"
)

// ContentVersion is the version of what a [Record] can say. It grows with each kind of record and
// each field that an older release would not understand, so that one refuses what it would lose.
const ContentVersion = 2

// RestoringKey is under what a store says, in Meta, that a restore into it is not finished. While
// the value is not empty no node opens the store.
const RestoringKey = "restoring"

// Why a store cannot be opened, or not be restored into.
var (
	ErrRestoring = errors.New("open store: a restore into this store was not finished: run scaivault restore again")
	ErrNotEmpty  = errors.New("restore: this store holds data, and a restore replaces none; move them aside, or name an empty place (DATA_DIR or DATABASE_URL)")
)

// Record is one row of what a store holds, in a form that does not depend on the store: what is
// exported from one is imported into any other. Exactly one field is set.
type Record struct {
	State   *State         `json:"state,omitempty"` // the first, once
	Meta    *MetaValue     `json:"meta,omitempty"`
	Object  *Object        `json:"object,omitempty"`
	Secret  *Secret        `json:"secret,omitempty"`
	Version *SecretVersion `json:"secret_version,omitempty"`
	Lease   *Lease         `json:"lease,omitempty"`
	Fence   *Fence         `json:"fence,omitempty"`
	Audit   *ChainEntry    `json:"audit,omitempty"`
}

// Kind names what the record is of.
func (r *Record) Kind() string {
	switch {
	case r.State != nil:
		return "state"
	case r.Meta != nil:
		return "meta"
	case r.Object != nil:
		return "objects"
	case r.Secret != nil:
		return "secrets"
	case r.Version != nil:
		return "secret_versions"
	case r.Lease != nil:
		return "leases"
	case r.Fence != nil:
		return "fences"
	case r.Audit != nil:
		return "audit"
	default:
		return ""
	}
}

// State is what a store knows of itself.
type State struct {
	Installation string
	ConfigRev    int64
	Nodes        []NodeState
}

// NodeState is a node that has written to the store, and where its audit chain begins and ends.
type NodeState struct {
	ID      string
	Epoch   int64
	BaseSeq int64  // the last trimmed entry
	BaseMAC []byte `json:",omitempty"`
	LastSeq int64
	LastMAC []byte `json:",omitempty"`
}

// MetaValue is a small value of the store itself.
type MetaValue struct {
	Key   string
	Value []byte
}

// ChainEntry is an [AuditRow] without what follows from it.
type ChainEntry struct {
	Node   string
	Seq    int64
	Tenant string
	Raw    []byte
	MAC    []byte
}

// RestoredEpoch is the epoch that a node of a restored store has begun: higher than any that the
// original may have come to since, as long as it does not begin one each second.
func RestoredEpoch(now time.Time, epoch int64) int64 { return max(epoch+1, now.Unix()) }
