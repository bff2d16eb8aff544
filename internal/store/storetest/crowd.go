package storetest

import (
	"fmt"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// Step is something that a server asks of its store all day.
type Step struct {
	Name string
	Do   func(tx store.Tx) error
}

// The sizes of a crowd. What a step looks at is bounded by what it answers, at most StepRows, and
// does not grow with CrowdSize (law L10).
const (
	CrowdSize = 6000
	StepRows  = 400

	few  = 20 // leases of what is rare: due, overdue, issuing, revoking, of another engine, role, identity or token
	page = 50
)

// Crowd makes CrowdSize leases of one engine, every second one dead, in which few are of what is rare.
func Crowd(tx store.Tx) error {
	for i := range CrowdSize {
		l := oneOfMany(i)
		if i%4 == 2 {
			l.Role = "all" // on the other side of the rare one
		}
		switch {
		case i%2 == 1:
			revoked(at(-time.Duration(i) * time.Second))(l)
		case i < 2*few:
			l.Role = "rare"
		case i < 4*few:
			l.ExpiresAt, l.DueAt = at(-time.Hour), atp(-time.Hour)
		case i < 6*few:
			l.Status, l.Deadline = api.LeaseIssuing, at(time.Hour)
		case i < 8*few:
			l.Status, l.Revocation = api.LeaseRevoking, &api.Revocation{Reason: api.ReasonRevoked, RequestedAt: at(-time.Hour)}
		}
		if err := insertRecorded(tx, l); err != nil {
			return err
		}
	}
	return nil
}

// Later makes half as many that are newer, of other engines, identities and tokens: all are dead, but
// for the few oldest, which are of a rare one.
func Later(tx store.Tx) error {
	for i := range CrowdSize / 2 {
		l := oneOfMany(CrowdSize + i)
		if i < few {
			l.EngineID, l.Engine, l.Identity, l.TokenID = "eng_b", "b", "sa:rare", "tok_rare"
		} else {
			l.EngineID, l.Engine, l.Identity, l.TokenID = "eng_gone", "gone", "sa:gone", "tok_gone"
			revoked(at(-time.Duration(i) * time.Second))(l)
		}
		if err := insertRecorded(tx, l); err != nil {
			return err
		}
	}
	return nil
}

func oneOfMany(i int) *store.Lease {
	return lease(func(l *store.Lease) {
		l.ID, l.Username = fmt.Sprintf("lease_%08d", i), fmt.Sprintf("v_ro_%08d", i)
		l.Status, l.Deadline, l.Identity, l.TokenID = api.LeaseActive, time.Time{}, fmt.Sprintf("sa:%d", i%50), fmt.Sprintf("tok_%d", i%50)
		l.ExpiresAt, l.DueAt = at(time.Duration(i+10)*time.Hour), atp(time.Duration(i+10)*time.Hour)
	})
}

func insertRecorded(tx store.Tx, l *store.Lease) error {
	if err := tx.InsertLease(l); err != nil {
		return err
	}
	return tx.Audit(l.Tenant, &api.AuditEntry{Action: "dynamic_generate", IdentityID: l.Identity, SecretPath: "dynamic/" + l.Engine + "/" + l.Role, Success: true})
}

// Steps are all that is asked of a store however many leases there are. Each is a transaction of its
// own, and may be undone.
func Steps() []Step {
	fence := func(name string, f store.Fence) []Step {
		f.Tenant = tenant
		return []Step{
			{"fence " + name, func(tx store.Tx) error { return tx.AddFence(&f) }},
			{"targets of " + name, func(tx store.Tx) error {
				f := f
				f.Seq = 1 << 40 // newer than every lease
				_, err := tx.FenceTargets(&f, "", page)
				return err
			}},
			{"pending of " + name, func(tx store.Tx) error {
				f := f
				f.Seq = 1 << 40
				_, _, err := tx.FencePending(&f, page)
				return err
			}},
		}
	}
	middle, deep := fmt.Sprintf("lease_%08d", CrowdSize/2), fmt.Sprintf("lease_%08d", CrowdSize/4)
	steps := []Step{
		{"insert", func(tx store.Tx) error { return tx.InsertLease(lease()) }},
		{"update", func(tx store.Tx) error {
			_, err := tx.UpdateLease(middle, func(l *store.Lease) error { l.ExpiresAt = l.ExpiresAt.Add(time.Hour); return nil })
			return err
		}},
		{"revoke", func(tx store.Tx) error {
			_, err := tx.UpdateLease(middle, func(l *store.Lease) error { revoked(noon)(l); return nil })
			return err
		}},
		{"entry", func(tx store.Tx) error { return tx.Audit(tenant, &api.AuditEntry{Action: "read"}) }},
		{"read", func(tx store.Tx) error { _, err := tx.Lease(tenant, middle); return err }},
		{"name", func(tx store.Tx) error { _, err := tx.LeasesByUsername([]string{"v_ro_00000077"}); return err }},
		{"next due", func(tx store.Tx) error { _, err := tx.NextDue(noon); return err }},
		{"claim", func(tx store.Tx) error {
			_, err := tx.ClaimDue("eng_a", noon, page, store.Claim{Node: "n_2", Epoch: 1, No: 1, Until: at(time.Minute)})
			return err
		}},
		{"overdue", func(tx store.Tx) error { _, _, err := tx.Overdue("eng_a", noon); return err }},
		{"counts", func(tx store.Tx) error { _, err := tx.LeaseCounts("eng_a"); return err }},
		{"open fences", func(tx store.Tx) error { _, err := tx.OpenFences(); return err }},
		{"trim leases", func(tx store.Tx) error { _, err := tx.Trim(noon, at(-1e6*time.Hour), page); return err }},
		{"trim nothing", func(tx store.Tx) error {
			_, err := tx.Trim(at(-1e6*time.Hour), at(-1e6*time.Hour), page)
			return err
		}},
		{"trim entries", func(tx store.Tx) error { _, err := tx.Trim(at(-1e6*time.Hour), at(1e6*time.Hour), page); return err }},
		{"entries", func(tx store.Tx) error {
			_, err := tx.AuditEntries(store.AuditFilter{Tenant: tenant}, 0, page)
			return err
		}},
		{"entries in the middle", func(tx store.Tx) error {
			_, err := tx.AuditEntries(store.AuditFilter{Tenant: tenant}, CrowdSize/2, page)
			return err
		}},
		{"entries of an identity", func(tx store.Tx) error {
			_, err := tx.AuditEntries(store.AuditFilter{Tenant: tenant, IdentityID: "sa:rare"}, 0, page)
			return err
		}},
		{"entries of a path", func(tx store.Tx) error {
			_, err := tx.AuditEntries(store.AuditFilter{Tenant: tenant, Path: "dynamic/b/ro"}, 0, page)
			return err
		}},
		{"heads", func(tx store.Tx) error { _, err := tx.AuditHeads(); return err }},
	}
	for name, f := range Lists() {
		for from, before := range map[string]string{"": "", "from deep down ": deep} {
			steps = append(steps, Step{"list " + from + name, func(tx store.Tx) error { _, err := tx.Leases(f, before, page); return err }})
		}
	}
	steps = append(steps, fence("dead engine", store.Fence{EngineID: "eng_gone"})...)
	steps = append(steps, fence("rare engine", store.Fence{EngineID: "eng_b"})...)
	steps = append(steps, fence("rare role", store.Fence{EngineID: "eng_a", Role: "rare"})...)
	steps = append(steps, fence("rare identity", store.Fence{Identity: "sa:rare"})...)
	return append(steps, fence("rare token", store.Fence{TokenID: "tok_rare"})...)
}

// Lists are the filters that people and the server itself list leases by.
func Lists() map[string]store.LeaseFilter {
	lists := map[string]store.LeaseFilter{
		"of all":                       {},
		"of an engine":                 {EngineID: "eng_a"},
		"of an engine, active":         {EngineID: "eng_a", Status: api.LeaseActive},
		"of an engine, issuing":        {EngineID: "eng_a", Status: api.LeaseIssuing},
		"of an engine, revoking":       {EngineID: "eng_a", Status: api.LeaseRevoking},
		"of an engine, revoked":        {EngineID: "eng_a", Status: api.LeaseRevoked},
		"of a role, active":            {EngineID: "eng_a", Role: "ro", Status: api.LeaseActive},
		"of a role, issuing":           {EngineID: "eng_a", Role: "ro", Status: api.LeaseIssuing},
		"of an identity":               {Identity: "sa:2"},
		"of an identity, active":       {Identity: "sa:2", Status: api.LeaseActive},
		"of a token, active":           {TokenID: "tok_2", Status: api.LeaseActive},
		"of a rare engine":             {EngineID: "eng_b"},
		"of a rare engine, active":     {EngineID: "eng_b", Status: api.LeaseActive},
		"of a rare role, active":       {EngineID: "eng_a", Role: "rare", Status: api.LeaseActive},
		"of a rare identity":           {Identity: "sa:rare"},
		"of a rare identity, active":   {Identity: "sa:rare", Status: api.LeaseActive},
		"of a rare token, active":      {TokenID: "tok_rare", Status: api.LeaseActive},
		"of a dead engine, active":     {EngineID: "eng_gone", Status: api.LeaseActive},
		"of a dead identity, active":   {Identity: "sa:gone", Status: api.LeaseActive},
		"of a dead token, active":      {TokenID: "tok_gone", Status: api.LeaseActive},
		"by user name":                 {Username: "v_ro_00000077"},
		"active":                       {Status: api.LeaseActive, ExpiresAfter: &noon},
		"issuing":                      {Status: api.LeaseIssuing},
		"revoking":                     {Status: api.LeaseRevoking},
		"overdue":                      {OverdueAt: &noon},
		"overdue of an engine":         {EngineID: "eng_a", OverdueAt: &noon},
		"revoked":                      {Status: api.LeaseRevoked},
		"of an engine, with a residue": {EngineID: "eng_a", Residue: true},
		"with a residue":               {Residue: true},
		"listed as revoked":            {ListedAt: &noon},
		"listed, of an engine":         {EngineID: "eng_a", ListedAt: &noon},
	}
	for name, f := range lists {
		f.Tenant = tenant
		lists[name] = f
	}
	return lists
}
