package azure

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. All but the ids that Microsoft gives is
// decided before anything is made. Fields are added, never renamed: recipes of former releases are
// read as long as their leases live.
type recipe struct {
	Source   string    `json:"source"` // the tenant
	Username string    `json:"username"`
	LeaseID  string    `json:"lease_id,omitempty"` // for people; empty where it was read from the source
	Ends     time.Time `json:"ends,omitzero"`      // of the password

	// Existing: the application is somebody's, and only one of its passwords is ours.
	Existing    bool     `json:"existing,omitempty"`
	Application string   `json:"application,omitempty"` // object id
	ClientID    string   `json:"client_id,omitempty"`
	Principal   string   `json:"principal,omitempty"` // object id of the service principal
	Key         string   `json:"key_id,omitempty"`    // of the password
	Assignments []string `json:"assignments,omitempty"`
	Groups      []string `json:"groups,omitempty"` // object ids; as the role has them until they are known
	Purge       bool     `json:"permanently_delete,omitempty"`
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// readRecipe decodes a stored recipe and checks that it belongs to the source behind the engine.
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" || r.Existing && r.Application == "" {
		return r, misconfigured("read a recipe: it is not one of this engine", err)
	}
	if r.Source != e.SourceID() && !slices.Contains(e.options.Accepted, r.Source) {
		return r, failure(engine.WrongServer, "the lease was made in another tenant than the engine's", nil)
	}
	return r, nil
}
