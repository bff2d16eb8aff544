package custom

import (
	"encoding/json"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. It is whole before the program runs, but for
// the reference that the program may give back, without which it must do. Fields are added, never
// renamed: recipes of former releases are read as long as their leases live.
type recipe struct {
	Source   string          `json:"source"` // identity of the source
	Username string          `json:"username"`
	LeaseID  string          `json:"lease_id,omitempty"` // empty where it was listed
	Role     string          `json:"role,omitempty"`
	OfRole   json.RawMessage `json:"role_parameters,omitempty"`
	OfCaller json.RawMessage `json:"request_parameters,omitempty"`
	Ref      json.RawMessage `json:"ref,omitempty"`
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// request is the recipe as the program gets it.
func (r recipe) request(function string) request {
	return request{Function: function, LeaseID: r.LeaseID, Name: r.Username, Role: r.Role, Ref: r.Ref,
		Parameters: parameters{Role: r.OfRole, Request: r.OfCaller}}
}

// readRecipe decodes a stored recipe and checks that it belongs to the source behind the engine. A
// program is never asked about a name that is not one of this installation's (law L11).
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	if r.Source != e.source && !slices.Contains(e.options.Accepted, r.Source) {
		return r, wrongServer("the lease was made on another source than the one behind the engine", nil)
	}
	if !e.options.Namer.Ours(r.Username) {
		return r, misconfigured("read a recipe: its name is not one of this installation's", nil)
	}
	return r, nil
}
