package lease

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// Filter selects leases for a list; empty fields select all.
type Filter struct {
	Engine        string
	Role          string
	Identity      string
	Username      string
	Status        api.LeaseStatus
	Residue       bool // only those that left one
	ExpiresBefore *time.Time
	ExpiresAfter  *time.Time
}

// Get shows a lease to its owner and to whoever may read its role.
func (m *Manager) Get(ctx context.Context, c *access.Caller, id string) (*api.Lease, error) {
	l, err := m.visible(ctx, c, "read", id, access.ScopeDynamicGenerate, access.ScopeDynamicRead)
	if err != nil {
		return nil, err
	}
	path := "dynamic/" + l.Engine + "/" + l.Role
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryLease, Path: path,
		Any: []access.Right{
			{Scope: access.ScopeDynamicGenerate, Owner: l.Identity},
			{Scope: access.ScopeDynamicRead, Permission: "dynamic:read", Path: path},
		},
		Extra: map[string]any{"lease_id": id}})
	if err != nil {
		return nil, err
	}
	return view(l, m.clock.Now()), pass.Record(ctx, nil)
}

// List shows the leases that the caller owns or may read, newest first, older than the one before.
// An empty next ends the list.
func (m *Manager) List(ctx context.Context, c *access.Caller, f Filter, before string, limit int) (list []api.Lease, next string, err error) {
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "list", Category: access.CategoryLease, Path: "dynamic/leases",
		Any: []access.Right{{Scope: access.ScopeDynamicRead}, {Scope: access.ScopeDynamicGenerate}}})
	if err != nil {
		return nil, "", err
	}
	list, next, err = m.page(ctx, c, f, before, limit)
	if err := pass.Record(ctx, err); err != nil {
		return nil, "", err
	}
	return list, next, nil
}

func (m *Manager) page(ctx context.Context, c *access.Caller, f Filter, before string, limit int) (list []api.Lease, next string, err error) {
	// A page costs in proportion to its size where the caller may read what is there, and is cut short
	// where too much was looked at in vain: the cursor leads on.
	const chunk, most = 500, 20 * 500
	looked := 0
	rows := store.LeaseFilter{Tenant: c.Tenant, Role: f.Role, Identity: f.Identity, Username: f.Username,
		Residue: f.Residue, ExpiresBefore: f.ExpiresBefore, ExpiresAfter: f.ExpiresAfter}
	list = []api.Lease{}
	if f.Engine != "" {
		e, err := m.sources.Engine(m.store.Config(), c.Tenant, f.Engine)
		if err != nil {
			return nil, "", err
		}
		rows.EngineID = e.ID
	}
	if f.Identity == "" && !m.door.Allowed(c, access.Right{Scope: access.ScopeDynamicRead}) {
		rows.Identity = c.Identity // a token that reads nothing else
	}
	if before != "" && !ident.Valid("lease", before) {
		return nil, "", fault.New(fault.InvalidCursor, "the cursor is not one of this list: begin without it")
	}
	may := m.readable(c)
	for {
		var got []*store.Lease
		var now time.Time
		size := min(limit+1+looked, chunk)
		err := m.store.Read(ctx, func(r store.Reader) (err error) {
			now = r.Now()
			got, err = byStatus(r, rows, f.Status, now, before, size)
			return err
		})
		if err != nil {
			return nil, "", err
		}
		for _, l := range got {
			if !may(l) {
				before = l.ID
				continue
			}
			if len(list) == limit {
				return list, before, nil
			}
			list, before = append(list, *view(l, now)), l.ID
		}
		if len(got) < size {
			return list, "", nil
		}
		if looked += size; looked >= most {
			return list, before, nil
		}
	}
}

// byStatus reads leases of a status as it is shown: one past its end is revoking.
func byStatus(r store.Reader, f store.LeaseFilter, status api.LeaseStatus, now time.Time, before string, limit int) ([]*store.Lease, error) {
	f.Status = status
	switch status {
	case api.LeaseActive:
		if f.ExpiresAfter == nil || f.ExpiresAfter.Before(now) {
			f.ExpiresAfter = &now
		}
	case api.LeaseRevoking:
		f.Status, f.OverdueAt = "", &now
	}
	return r.Leases(f, before, limit)
}

// readable tells which leases the caller may see, asking the policies once per role.
func (m *Manager) readable(c *access.Caller) func(l *store.Lease) bool {
	known := map[string]bool{}
	return func(l *store.Lease) bool {
		if l.Identity == c.Identity {
			return true
		}
		path := "dynamic/" + l.Engine + "/" + l.Role
		may, ok := known[path]
		if !ok {
			may = m.door.Allowed(c, access.Right{Scope: access.ScopeDynamicRead, Permission: "dynamic:read", Path: path})
			known[path] = may
		}
		return may
	}
}

// visible finds a lease of the caller's tenant. One of another tenant is not found, by id either;
// who asks for what is not there passes the door with one of the scopes all the same, so that
// guessing is counted.
func (m *Manager) visible(ctx context.Context, c *access.Caller, action, id string, scopes ...string) (*store.Lease, error) {
	var l *store.Lease
	err := leaseNotFound(id)
	if ident.Valid("lease", id) {
		l, err = m.row(ctx, c.Tenant, id)
	}
	if fault.CodeOf(err) != fault.LeaseNotFound {
		return l, err
	}
	ask := access.Ask{Action: action, Category: access.CategoryLease, Path: "dynamic/leases"}
	for _, scope := range scopes {
		ask.Any = append(ask.Any, access.Right{Scope: scope})
	}
	pass, denied := m.door.Admit(ctx, c, ask)
	if denied != nil {
		return nil, denied
	}
	return nil, pass.Record(ctx, err)
}

func (m *Manager) row(ctx context.Context, tenant, id string) (l *store.Lease, err error) {
	err = m.store.Read(ctx, func(r store.Reader) error {
		l, err = r.Lease(tenant, id)
		return err
	})
	if fault.CodeOf(err) == fault.LeaseNotFound {
		return nil, leaseNotFound(id)
	}
	return l, err
}

// leaseNotFound does not repeat what is not a lease's id: it may be a secret pasted by mistake.
func leaseNotFound(id string) error {
	if !ident.Valid("lease", id) {
		return fault.New(fault.LeaseNotFound, "that is not the id of a lease: one begins with lease_")
	}
	return fault.New(fault.LeaseNotFound, "there is no lease %s: it may have ended longer ago than leases are kept", id)
}

// update changes one lease, durably.
func (m *Manager) update(ctx context.Context, id string, fn func(tx store.Tx, l *store.Lease) error) (l *store.Lease, err error) {
	err = m.store.Write(ctx, func(tx store.Tx) error {
		l, err = tx.UpdateLease(id, func(l *store.Lease) error { return fn(tx, l) })
		return err
	})
	return l, err
}
