package source

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/store"
)

// Health looks at the source now. A source that does not answer is a healthy answer to give: what
// is wrong stands in it.
func (s *Service) Health(ctx context.Context, c *access.Caller, name string) (*api.EngineHealth, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "read", Category: access.CategoryDynamicAdmin,
		Any: []access.Right{read(name, "")}, Extra: map[string]any{"health": true}})
	if err != nil {
		return nil, err
	}
	e, err := s.Engine(s.store.Config(), c.Tenant, name)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	out := &api.EngineHealth{Engine: name, CheckedAt: time.Now().UTC(), TLS: "none", MissingGrants: []string{}, Warnings: []string{}}
	s.look(ctx, e, out)
	err = s.store.Read(ctx, func(r store.Reader) error { return overdue(r, e, out) })
	if err == nil {
		err = s.listed(ctx, e, out)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return out, nil
}

// look asks the source.
func (s *Service) look(ctx context.Context, e *Engine, out *api.EngineHealth) {
	fail := func(status, why string) {
		out.Status, out.Error = status, &why
	}
	ctx, cancel := context.WithTimeout(ctx, e.Config.ConnectTimeout+e.Config.OperationTimeout)
	defer cancel()
	h, err := s.Acquire(ctx, e)
	if err != nil {
		status := api.EngineMisconfigured
		if f := Fault(e.Name, err); f.RetryAfter > 0 {
			status = api.EngineUnreachable
		}
		fail(status, Reason(err))
		return
	}
	defer h.Release()
	var found engine.Health
	err = s.Follow(ctx, e, h, func() error {
		if found = h.Check(ctx); found.Status != api.EngineMisconfigured {
			return nil
		}
		return &engine.Error{Kind: engine.Misconfigured, Reason: found.Error}
	})
	if err != nil && engine.KindOf(err) != engine.Misconfigured { // nothing else could be opened
		fail(api.EngineUnreachable, Reason(err))
		return
	}
	out.Status, out.LatencyMS, out.TLS = found.Status, found.Latency.Milliseconds(), found.TLS
	out.ClockOffsetMS = found.ClockOffset.Milliseconds()
	out.MissingGrants = append(out.MissingGrants, found.MissingGrants...)
	out.Warnings = append(out.Warnings, found.Warnings...)
	out.Details = found.Details
	s.Observe(e, found.Status != api.EngineUnreachable)
	if found.Error != "" {
		fail(found.Status, found.Error)
	}
	// Of a source that is away nothing can be said about its root.
	if problem := s.problem(e); problem != "" && found.Status != api.EngineUnreachable {
		fail(api.EngineMisconfigured, problem)
	}
	if e.Reached(h.SourceID()) != nil {
		fail(api.EngineMisconfigured, "another server: the engine reaches one that its leases were not made on; restore the former, or state with accept-source that this is right")
	}
}

// problem is why the newest root secret is not in use.
func (s *Service) problem(e *Engine) string {
	l := s.liveOf(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.problem
}

// overdue fills in how far revocation is behind, what orphans the last reconcile saw, and what
// residues there are (at most 1,000).
func overdue(r store.Reader, e *Engine, out *api.EngineHealth) error {
	now := r.Now()
	n, oldest, err := r.Overdue(e.ID, now)
	if err != nil {
		return err
	}
	out.RevocationBacklog = int64(n)
	if n > 0 {
		out.OldestOverdueSeconds = int64(now.Sub(oldest) / time.Second)
	}
	residues, err := r.Leases(store.LeaseFilter{Tenant: e.Tenant, EngineID: e.ID, Residue: true}, "", 1000)
	if err != nil {
		return err
	}
	out.Residues = int64(len(residues))
	seen, err := Reconciled(r, e)
	if err == nil {
		out.Orphans = int64(seen.Last.OrphanCount)
	}
	return err
}

// largeList is a list of what is revoked that is on the way to be more than hosts take, which is 64 MiB: a
// million certificates.
const largeList = 8 << 20

// listed fills in how many credentials of the engine the list of what is revoked holds, and tells of a list that
// becomes too large: as it is published, with those of all such engines of the tenant.
func (s *Service) listed(ctx context.Context, e *Engine, out *api.EngineHealth) error {
	lister := e.Lister()
	if lister == nil {
		return nil
	}
	var rows []*store.Lease
	err := s.store.Read(ctx, func(r store.Reader) (err error) {
		now := r.Now()
		rows, err = r.Leases(store.LeaseFilter{Tenant: e.Tenant, ListedAt: &now}, "", 0)
		return err
	})
	if err != nil {
		return err
	}
	own := 0
	recipes := make([]engine.Recipe, len(rows))
	for k, l := range rows {
		recipes[k] = l.Recipe
		if l.EngineID == e.ID {
			own++
		}
	}
	if out.Details == nil {
		out.Details = map[string]string{}
	}
	out.Details["listed_as_revoked"] = strconv.Itoa(own)
	switch list, err := lister.RevocationList(time.Time{}, recipes); {
	case err != nil:
		s.log.Error("the list of what is revoked cannot be made", "engine", e.Name, "error", err)
		out.Warnings = append(out.Warnings, "the list of what is revoked cannot be made, so hosts learn of no revocation: the log of the server has why")
	case len(list) >= largeList:
		out.Warnings = append(out.Warnings, fmt.Sprintf("the list of what is revoked has %d MiB, for %d certificates of all such engines: hosts fetch it again and again, sshd reads it at each login, and they take none of more than 64 MiB. It shrinks as certificates end: shorten max_ttl, or let them end by themselves instead of revoking them",
			len(list)>>20, len(rows)))
	}
	return nil
}

// Summaries are the states of all engines of a tenant as last seen, for health pages and metrics.
func (s *Service) Summaries(ctx context.Context, tenant string) ([]api.EngineSummary, error) {
	var out []api.EngineSummary
	err := s.store.Read(ctx, func(r store.Reader) error {
		out = []api.EngineSummary{}
		for _, o := range s.store.Config().List(tenant, store.KindEngine, "") {
			e, err := s.engine(o)
			if err != nil {
				return err
			}
			var h api.EngineHealth
			if err := overdue(r, e, &h); err != nil {
				return err
			}
			n, err := living(r, e.ID, "")
			if err != nil {
				return err
			}
			out = append(out, api.EngineSummary{Engine: e.Name, Status: s.status(e), ActiveLeases: n,
				RevocationBacklog: h.RevocationBacklog, OldestOverdueSeconds: h.OldestOverdueSeconds,
				Orphans: h.Orphans, Residues: h.Residues})
		}
		return nil
	})
	return out, err
}

// status is the engine's state as last seen, without asking the source.
func (s *Service) status(e *Engine) string {
	if e.doc.State != "" {
		return api.EngineDeleting
	}
	if s.Away(e) {
		return api.EngineUnreachable
	}
	return api.EngineHealthy
}

// Away tells whether the source did not answer when it was used last.
func (s *Service) Away(e *Engine) bool {
	l := s.liveOf(e)
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed != nil && (l.now == nil || l.now.version != e.Version) || l.down
}

// Observe notes whether the source answered the last operation; the lease manager tells.
func (s *Service) Observe(e *Engine, reachable bool) {
	l := s.liveOf(e)
	l.mu.Lock()
	l.down = !reachable
	l.mu.Unlock()
}
