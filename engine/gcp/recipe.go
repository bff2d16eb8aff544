package gcp

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. Fields are added, never renamed: recipes
// of former releases are read as long as their leases live.
type recipe struct {
	Source   string    `json:"source"`
	Username string    `json:"username"`
	LeaseID  string    `json:"lease_id,omitempty"` // for people; empty where it was read from the source
	Kind     string    `json:"credential_type"`
	Email    string    `json:"service_account_email"`
	Own      bool      `json:"own_account,omitempty"` // the account was made for this credential
	Ends     time.Time `json:"ends"`                  // what the source was told

	Resources []string `json:"resources,omitempty"`  // in whose policies the own account is, in the order in which it came there
	PublicKey string   `json:"public_key,omitempty"` // SHA-256 of an uploaded key, in hex

	// Known when the credential was made; only then may anybody hold it.
	AccountID string     `json:"account_id,omitempty"` // the number of the own account, never given again
	KeyID     string     `json:"key_id,omitempty"`
	TokenEnds *time.Time `json:"token_ends,omitempty"`
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// account is the one that the credential is of.
func (r recipe) account() *account { return accountOf(r.Email) }

// made tells whether the credential was made whole, so that somebody may hold it.
func (r recipe) made() bool { return r.KeyID != "" || r.TokenEnds != nil }

// readRecipe decodes a stored recipe and checks that it belongs to the source behind the engine.
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" || r.account() == nil {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	if r.Source != e.source && !slices.Contains(e.options.Accepted, r.Source) {
		return r, failure(engine.WrongServer, "the lease was made in another project than the engine's", nil)
	}
	if r.Source != e.source { // that account had another number
		r.AccountID = ""
	}
	return r, nil
}
