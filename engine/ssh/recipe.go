package ssh

import (
	"encoding/json"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation, the list of revoked certificates and the check of a one-time password need,
// stored with the lease. Fields are added, never renamed: recipes of former releases are read as long as
// their leases live.
type recipe struct {
	LeaseID string `json:"lease_id"`
	// Issued says that the credential was made. It is confirmed with the lease before anybody is given
	// the credential, so that without it nobody has one.
	Issued bool  `json:"issued,omitempty"`
	Ends   int64 `json:"ends"` // Unix seconds; the certificate is not valid from then on

	Serial uint64 `json:"serial,string,omitempty"` // of a certificate

	OTPHash  string `json:"otp_sha256,omitempty"` // of the secret part of a one-time password
	Username string `json:"username,omitempty"`   // the account it is for
	Address  string `json:"address,omitempty"`    // the host it is for
	Client   string `json:"client,omitempty"`     // from where alone it is good; empty for everywhere
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

func readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.LeaseID == "" || r.Serial == 0 && r.OTPHash == "" {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	return r, nil
}
