// Package quarantine is the state of a store that may not be the newest copy of itself: it was
// restored, or is older than what this installation has already done. Until an administrator says
// that this is the only copy and shall go on, it is read and verified only. Nothing is issued,
// renewed, revoked or removed, since a second copy of a store would kill the accounts of the first.
//
// The state is a configuration object, so that every node knows it with its next transaction.
package quarantine

import (
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Why a store is in quarantine.
const (
	ReasonRestored = "restored"   // from a backup
	ReasonOlder    = "older_copy" // the store has forgotten what it had acknowledged
)

const id = "quarantine"

// State of a store in quarantine, and afterwards.
type State struct {
	Active bool      `json:"active"`
	Reason string    `json:"reason"`
	Detail string    `json:"detail,omitempty"` // for the administrator; no secret
	Since  time.Time `json:"since"`
	// Restored is when the store was last put back from a backup: reconcile removes nothing for
	// 24 hours after it.
	Restored *time.Time `json:"restored,omitempty"`
	// Resumed is when and by whom the quarantine was ended.
	Resumed   *time.Time `json:"resumed,omitempty"`
	ResumedBy string     `json:"resumed_by,omitempty"`
}

// Of is the state that the configuration holds; nil when the store was never in quarantine.
func Of(cfg *store.Config) (*State, error) {
	o := cfg.Object(store.DefaultTenant, store.KindSystem, id)
	if o == nil {
		return nil, nil //nolint:nilnil // no state is an answer
	}
	return store.Decode[State](o)
}

// Check refuses with service_unavailable while the store is in quarantine.
func Check(cfg *store.Config) error {
	s, err := Of(cfg)
	if err != nil || s == nil || !s.Active {
		return err
	}
	return fault.New(fault.ServiceUnavailable,
		"the store is in quarantine (%s): nothing is issued, renewed, revoked or removed until an administrator runs: scaivault resume --only-copy", s.Reason).
		With("quarantine", s.Reason)
}

// Active is Check for what the server does by itself, which has nobody to refuse.
func Active(cfg *store.Config) bool { return Check(cfg) != nil }

// settling is how long after a restore accounts that no lease bears are only listed: what the store
// forgot may be in somebody's hands.
const settling = 24 * time.Hour

// MayRemove tells whether accounts that no lease bears may be removed at their source without
// somebody having said so for a restored store. A nil state is that of a store that never was in
// quarantine.
func (s *State) MayRemove(now time.Time) bool {
	return s == nil || !s.Active && (s.Restored == nil || now.Sub(*s.Restored) >= settling)
}

// Predates tells whether a moment lies before the last restore: what was seen then is what the copy
// remembers.
func (s *State) Predates(seen time.Time) bool {
	return s != nil && s.Restored != nil && seen.Before(*s.Restored)
}

// Put writes the state, in the caller's transaction, over whatever was there.
func Put(tx store.Tx, s *State) error {
	doc, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return tx.PutObject(&store.Object{Tenant: store.DefaultTenant, Kind: store.KindSystem, ID: id, Key: id, Doc: doc}, store.AnyVersion)
}
