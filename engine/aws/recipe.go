package aws

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// recipe is what revocation needs, stored with the lease. Fields are added, never renamed: recipes of
// former releases are read as long as their leases live.
type recipe struct {
	Source   string `json:"source"` // account and partition
	Type     string `json:"type"`   // of the credential
	Username string `json:"username"`
	LeaseID  string `json:"lease_id,omitempty"` // for people; empty where it was read from the source

	UserID      string `json:"user_id,omitempty"`       // of an IAM user
	AccessKeyID string `json:"access_key_id,omitempty"` // of an IAM user

	RoleARN     string    `json:"role_arn,omitempty"`
	SessionID   string    `json:"session_id,omitempty"` // of a session of a role: the role's id and the session's name
	EndSessions bool      `json:"end_sessions,omitempty"`
	Ends        time.Time `json:"ends,omitzero"` // of a session, by STS's word once it was made
}

func (r recipe) encode() engine.Recipe { return engine.NewRecipe(r) }

// readRecipe decodes a stored recipe and checks that it belongs to the account behind the engine.
func (e *Engine) readRecipe(raw engine.Recipe) (recipe, error) {
	var r recipe
	if err := json.Unmarshal(raw, &r); err != nil || r.Username == "" {
		return r, failure(engine.Misconfigured, "read a recipe: it is not one of this engine", err)
	}
	if r.Source != e.source && !slices.Contains(e.options.Accepted, r.Source) {
		return r, failure(engine.WrongServer, "the lease was made in another account than the one behind the engine", nil)
	}
	return r, nil
}
