package custom

import (
	"encoding/json"

	"github.com/scaivault/scaivault/engine"
)

// role is the engine's part of a role: what the program makes of it is its own affair.
type role struct {
	Parameters json.RawMessage `json:"parameters"`
}

func parseRole(raw json.RawMessage) (*role, error) {
	r := &role{}
	if err := engine.Decode(raw, r); err != nil {
		return nil, err
	}
	return r, engine.Rules{{len(r.Parameters) > maxParameters, "parameters are longer than 16 KiB"}}.Check()
}
