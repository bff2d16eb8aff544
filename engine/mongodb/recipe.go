package mongodb

import (
	"encoding/json"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. Which members there are is asked at the
// source: they change while a lease lives. Fields are added, never renamed: recipes of former releases
// are read as long as their leases live.
type recipe struct {
	Source   string `json:"source"` // identity of the server
	Username string `json:"username"`
	Database string `json:"database"`           // in which the user is
	Fence    string `json:"fence,omitempty"`    // the role behind which it was made; empty where it was read from the source
	LeaseID  string `json:"lease_id,omitempty"` // for people; empty where it was read from the source
}

func (r recipe) user() user { return user{r.Username, r.Database} }

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// readRecipe decodes a stored recipe and checks that it belongs to the source behind the engine.
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" || r.Database == "" {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	if r.Source != e.source && !slices.Contains(e.options.Accepted, r.Source) {
		return r, wrongServer("the lease was made on another server than the one behind the engine")
	}
	return r, nil
}
