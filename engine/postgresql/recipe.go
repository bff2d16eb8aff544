package postgresql

import (
	"encoding/json"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. Fields are added,
// never renamed: recipes of former releases are read as long as their leases
// live.
type recipe struct {
	Source     string   `json:"source"` // identity of the server
	Username   string   `json:"username"`
	OID        uint32   `json:"oid,omitempty"`       // 0 until the source has told it
	Group      string   `json:"group,omitempty"`     // of the privileges form
	Mark       string   `json:"mark"`                // the comment that makes the account ours
	Functions  bool     `json:"functions,omitempty"` // made through the functions of the setup
	Maker      string   `json:"maker,omitempty"`     // the role that made it for root
	LeaseID    string   `json:"lease_id"`
	Role       string   `json:"role,omitempty"`
	Heir       string   `json:"heir,omitempty"` // who gets what the account owns; the group, else root, where empty
	Revocation []string `json:"revocation_statements,omitempty"`
	Renewal    []string `json:"renew_statements,omitempty"`
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// readRecipe decodes a stored recipe and checks that it belongs to the server
// behind the engine.
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	if r.Source == e.source {
		return r, nil
	}
	if slices.Contains(e.options.Accepted, r.Source) {
		r.OID = 0 // a rebuilt server gives ids anew: the mark or the group must prove the account
		return r, nil
	}
	return r, wrongServer("the lease was made on another server than the one behind the engine", nil)
}

// rightsOver is the way in which the recipe's account can be changed: the one in
// which it was made.
func (r recipe) rightsOver() rights {
	if r.Functions {
		return functionRights{}
	}
	return ownRights{}
}
