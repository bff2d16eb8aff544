package store

import "github.com/scaivault/scaivault/api"

// LeaseIndex is an index of the leases; both stores have it. Which one leads is decided here and not by
// the database, which would go by its statistics, or guess: so a list costs what it answers, however
// many other leases there are (law L10).
type LeaseIndex struct {
	Name string // "" is the one of the ids alone
	// Columns come ahead of the id: the leases of one value of each lie in the order of their ids.
	Columns []LeaseColumn
	// Only is the condition of a partial index, which a statement must repeat to be led by it.
	Only string
	// Few tells that the order is another one, but what is found so is few and can be sorted.
	Few bool
}

// LeaseColumn is a column, and what it must be.
type LeaseColumn struct{ Name, Value string }

// Index gives the leases of the filter in the order of their ids and leaves the fewest others to look
// at on the way.
func (f *LeaseFilter) Index() LeaseIndex {
	alive := livingIndex(f.EngineID, f.Role, f.Identity, f.TokenID)
	switch {
	case f.Username != "":
		return LeaseIndex{Name: "leases_username", Columns: []LeaseColumn{{"username", f.Username}}}
	case f.OverdueAt != nil:
		return LeaseIndex{Name: "leases_overdue", Only: "overdue_at IS NOT NULL", Few: true}
	case f.ListedAt != nil && f.EngineID == "":
		return LeaseIndex{Name: "leases_listed", Only: listed, Few: true}
	case f.ListedAt != nil:
		return LeaseIndex{Name: "leases_listed", Columns: []LeaseColumn{{"engine_id", f.EngineID}}, Only: listed, Few: true}
	case f.Residue && f.EngineID == "":
		return LeaseIndex{Name: "leases_residue", Few: true}
	case f.Residue:
		return LeaseIndex{Name: "leases_residue", Columns: []LeaseColumn{{"engine_id", f.EngineID}}}
	case f.Status == api.LeaseIssuing, f.Status == api.LeaseRevoking:
		return statusIndex(f.Status) // they are few, whoever's they are
	case f.Status == api.LeaseActive && alive.Name != "":
		return alive
	case f.Identity != "":
		return LeaseIndex{Name: "leases_identity", Columns: []LeaseColumn{{"identity", f.Identity}}}
	case f.EngineID != "":
		return LeaseIndex{Name: "leases_engine", Columns: []LeaseColumn{{"engine_id", f.EngineID}}}
	case f.Status != "":
		return statusIndex(f.Status)
	default:
		return LeaseIndex{}
	}
}

// Index gives the leases in the fence's scope that are not dead, as [LeaseFilter.Index] does.
func (f *Fence) Index() LeaseIndex { return livingIndex(f.EngineID, f.Role, f.Identity, f.TokenID) }

const living = "status <> 'revoked'"

// listed is part of a list of what is revoked, until listed_until.
const listed = "listed_until IS NOT NULL AND status IN ('revoking', 'revoked')"

func statusIndex(status api.LeaseStatus) LeaseIndex {
	return LeaseIndex{Name: "leases_status", Columns: []LeaseColumn{{"status", string(status)}}}
}

func livingIndex(engineID, role, identity, tokenID string) LeaseIndex {
	switch {
	case tokenID != "":
		return LeaseIndex{Name: "leases_token", Columns: []LeaseColumn{{"token_id", tokenID}}, Only: living + " AND token_id <> ''"}
	case identity != "":
		return LeaseIndex{Name: "leases_holder", Columns: []LeaseColumn{{"identity", identity}}, Only: living}
	case engineID != "" && role != "":
		return LeaseIndex{Name: "leases_role", Columns: []LeaseColumn{{"engine_id", engineID}, {"role", role}}, Only: living}
	case engineID != "":
		return LeaseIndex{Name: "leases_live", Columns: []LeaseColumn{{"engine_id", engineID}}, Only: living}
	default:
		return LeaseIndex{}
	}
}
