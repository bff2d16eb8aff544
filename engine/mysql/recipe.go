package mysql

import (
	"encoding/json"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. Fields are added, never
// renamed: recipes of former releases are read as long as their leases live.
type recipe struct {
	Source     string   `json:"source"` // identity of the server
	Username   string   `json:"username"`
	Host       string   `json:"host,omitempty"`     // of the account; empty where the operator's statements say it
	Group      string   `json:"group,omitempty"`    // the role at the source that holds its rights, on MySQL
	Event      string   `json:"event,omitempty"`    // the schema of the event that ends it
	Unmarked   bool     `json:"unmarked,omitempty"` // made in a way that leaves no mark: its name must prove it
	LeaseID    string   `json:"lease_id,omitempty"`
	Role       string   `json:"role,omitempty"`
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
	if r.Source != e.source && !slices.Contains(e.options.Accepted, r.Source) {
		return r, wrongServer("the lease was made on another server than the one behind the engine", nil)
	}
	return r, nil
}
