package access

import (
	"strings"

	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

// serves refuses what a store in quarantine does not do. It is asked in every decision, and so again
// in the transaction of a change when the configuration has moved: a quarantine holds on every node
// from the next transaction on. What the server does by itself has no ask, and looks at
// quarantine.Active before.
func serves(cfg *store.Config, a Ask) error {
	if a.Looks || looks(a.Action) {
		return nil
	}
	return quarantine.Check(cfg)
}

// looks tells whether an action changes nothing outside, nor data that another copy of the store may
// have by now. Who may do what can be administered: a restored store knows tokens and policies again
// that were ended since, and this is put right before life goes on. A new action is refused until it
// is named here.
func looks(action string) bool {
	switch action {
	case "read", "list":
		return true
	}
	for _, administers := range []string{"auth_", "policy_", "system_"} {
		if strings.HasPrefix(action, administers) {
			return true
		}
	}
	return false
}
