package engine

import (
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/internal/duration"
	"github.com/scaivault/scaivault/internal/statement"
)

// What engines can do that are their own source: the credentials are signed or kept here, and those
// who accept them ask nobody, a list, or this server.

// ListAge is how old the list that a node answers may be: it is made at most once in this time. A
// revocation's EffectiveAt allows for it.
const ListAge = time.Second

// RootMaker is a Type whose root secret can be made here, where nobody has one.
type RootMaker interface {
	// RootPath is where the root of an engine lies whose configuration names no place; empty where
	// the configuration names one, or needs none.
	RootPath(engineName string, config json.RawMessage) string
	// MakeRoot makes the fields of the first version, for a configuration that ParseConfig accepted.
	MakeRoot(config json.RawMessage) (map[string]statement.Secret, error)
}

// RevocationLister is a Type whose credentials are checked against a list of what is revoked.
type RevocationLister interface {
	// RevocationList is the list of an engine's credentials by the recipes of their leases; of none,
	// too. It needs no root, so that it can be read whatever has become of that. at is the moment of
	// the last revocation in it. The same arguments in whatever order give the same bytes.
	RevocationList(at time.Time, revoked []Recipe) ([]byte, error)
}

// KeyPublisher is an Engine whose credentials are checked by public keys.
type KeyPublisher interface {
	// PublicKeys are those that are to be trusted now, one a line, the newest first.
	PublicKeys() []byte
}

// KeyTerms are what an engine's settings say of its keys, from a moment on. What became of a key was decided
// by the terms of its time, so that no change of settings brings a former key back, or takes one away from
// under what it has signed.
type KeyTerms struct {
	From   time.Time         `json:"from"`
	Lead   duration.Duration `json:"lead"`    // Config.KeyLead
	MaxTTL duration.Duration `json:"max_ttl"` // Options.MaxTTL
}

// OneTime is a Type of credentials that whoever they are presented to has checked, and used up, by this
// server. It needs no root and no state but the lease.
type OneTime interface {
	// NameIn is the name (Plan.Username) of the credential that a text says it is; empty for none.
	NameIn(secret statement.Secret) string
	// Accepts tells whether what is presented is the credential of the recipe. It compares in a time
	// that does not depend on where a difference lies.
	Accepts(r Recipe, p Presented) bool
}

// Presented is what somebody presented as a credential, and where.
type Presented struct {
	Secret   statement.Secret
	Username string // the account that is asked for
	Address  string // IP address of the host that was asked
	Client   string // IP address of who presented it there; empty where the host cannot tell
}
