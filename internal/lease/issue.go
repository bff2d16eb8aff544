package lease

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/source"
	"github.com/scaivault/scaivault/internal/store"
)

// namesTried is how many names are drawn before a source that knows them all is an error.
const namesTried = 3

// stale is how old a plan may be when it is made durable: the agreed time has jumped since, or the
// source was long in being opened.
const stale = time.Minute

// errReplan undoes an intent whose plan was made for a role or engine that has changed since, or in a
// time that no longer holds.
var errReplan = fault.New(fault.VersionConflict, "the role changed while the credential was planned")

// Issue makes a credential: its lease is durable before the source is touched (law L1), and
// confirmed before the answer. params are the engine's own fields of the request.
//
// Once the intent is durable the caller's going away stops nothing: the credential is made and
// confirmed, and it is for whoever could not deliver it to call Undelivered.
func (m *Manager) Issue(ctx context.Context, c *access.Caller, engineName, roleName string, req api.CredsRequest, params json.RawMessage) (*api.Credential, error) {
	pass, err := m.door.Admit(ctx, c, access.Ask{
		Action: "dynamic_generate", Category: access.CategoryGenerate,
		Any:   []access.Right{{Scope: access.ScopeDynamicGenerate, Permission: "dynamic:generate", Path: "dynamic/" + engineName + "/" + roleName}},
		Extra: map[string]any{"engine": engineName, "role": roleName},
	})
	if err != nil {
		return nil, err
	}
	return m.issue(ctx, pass, wish{CredsRequest: req, engine: engineName, role: roleName, params: params})
}

// wish is what is asked for.
type wish struct {
	api.CredsRequest
	engine, role string
	params       json.RawMessage // the engine's own fields
	dryRun       bool            // of a role's test
}

// issuance is one credential on its way.
type issuance struct {
	pass   *access.Pass
	engine *source.Engine
	role   *source.Role
	handle *source.Handle
	wish   wish
	lease  *store.Lease
	plan   *engine.Plan
}

func (m *Manager) issue(ctx context.Context, pass *access.Pass, w wish) (*api.Credential, error) {
	for {
		i, err := m.prepare(ctx, pass, w)
		if err != nil {
			return nil, pass.Record(ctx, err)
		}
		err = m.carry(ctx, i)
		i.handle.Release()
		switch {
		case err == errReplan: //nolint:errorlint // the very value: another version_conflict is the caller's
			continue
		case err != nil:
			return nil, err
		}
		m.sources.Observe(i.engine, true)
		m.sometimeHear(i.engine)
		m.metrics.Issued(w.engine, w.role)
		return credential(i), nil
	}
}

// prepare finds engine, role and source, and plans the credential. It changes nothing.
func (m *Manager) prepare(ctx context.Context, pass *access.Pass, w wish) (*issuance, error) {
	c, cfg := pass.Caller(), m.store.Config()
	e, err := m.sources.Engine(cfg, c.Tenant, w.engine)
	if err != nil {
		return nil, err
	}
	if err := e.Issues(); err != nil {
		return nil, err
	}
	role, err := m.sources.Role(cfg, e, w.role)
	if err != nil {
		return nil, err
	}
	if err := source.CheckMetadata(w.Metadata); err != nil {
		return nil, err
	}
	if err := m.settled(ctx, e); err != nil {
		return nil, err
	}
	now := m.clock.Now()
	life, longest := role.DefaultTTL, role.MaxTTL
	if role.TieToToken && c.TokenExpiresAt != nil {
		longest = min(longest, c.TokenExpiresAt.Sub(now))
		life = min(life, longest)
	}
	if w.TTL != nil {
		life = time.Duration(*w.TTL)
	}
	if life > longest {
		return nil, fault.New(fault.InvalidDuration, "a ttl of %s is more than role %s/%s allows, which is %s", api.Duration(life), w.engine, w.role, api.Duration(longest)).
			With("max_ttl", api.Duration(longest).String())
	}
	if life < role.Shortest {
		return nil, fault.New(fault.InvalidDuration, "a ttl of %s is less than the source of role %s/%s makes, which is %s", api.Duration(life), w.engine, w.role, api.Duration(role.Shortest)).
			With("min_ttl", api.Duration(role.Shortest).String())
	}
	handle, err := m.sources.Acquire(ctx, e)
	if err != nil {
		return nil, source.Fault(w.engine, err)
	}
	if err := e.Reached(handle.SourceID()); err != nil {
		handle.Release()
		m.sources.Reopen(e.ID)
		return nil, source.Fault(w.engine, err)
	}
	i := &issuance{pass: pass, engine: e, role: role, handle: handle, wish: w}
	i.lease = &store.Lease{
		ID: ident.New("lease"), Tenant: c.Tenant, EngineID: e.ID, Engine: e.Name, Role: role.Name,
		Identity: c.Identity, TokenID: c.TokenID, Tied: role.TieToToken,
		Status: api.LeaseIssuing, Renewable: role.Renewable, SourceID: handle.SourceID(), Metadata: w.Metadata,
		IssuedAt: now, ExpiresAt: now.Add(life), MaxExpiresAt: now.Add(longest),
		Node: m.store.Node(), Epoch: m.store.Epoch(),
	}
	if err := m.plan(ctx, i); err != nil {
		handle.Release()
		return nil, err
	}
	return i, nil
}

// plan names the credential and puts the name into the lease.
func (m *Manager) plan(ctx context.Context, i *issuance) error {
	plan, err := i.handle.Plan(ctx, engine.PlanRequest{LeaseID: i.lease.ID, RoleName: i.role.Name, Role: i.role.Spec,
		Identity: i.lease.Identity, ExpiresAt: m.clock.Local(i.lease.ExpiresAt), Params: i.wish.params, DryRun: i.wish.dryRun})
	if kind(err) == engine.Refused { // nobody was asked but the engine: the request is wrong
		return fault.New(fault.InvalidRequest, "%s", source.Reason(err)).Because(err)
	}
	if err != nil {
		return source.Fault(i.engine.Name, err)
	}
	deadline := m.clock.Now().Add(i.engine.Config.OperationTimeout)
	plan.Deadline = m.clock.Local(deadline)
	i.plan = plan
	i.lease.Username, i.lease.Recipe, i.lease.Deadline = plan.Username, plan.Recipe, deadline
	due := deadline.Add(grace)
	i.lease.DueAt = &due
	if i.engine.Config.Listed {
		// Who checks the credential compares the end that stands in it, which is in this node's time.
		listed := later(i.lease.ExpiresAt, plan.ExpiresAt.UTC()).Truncate(time.Microsecond).Add(slowClocks)
		i.lease.ListedUntil = &listed
	}
	return nil
}

// carry takes a planned credential through intent, source and confirmation.
func (m *Manager) carry(ctx context.Context, i *issuance) error {
	failpoint.Hit(failpoint.F1)
	begun := time.Now()
	if err := m.intend(ctx, i); err != nil {
		return err
	}
	failpoint.Hit(failpoint.F2)
	m.metrics.IssueStep(i.engine.Name, "intent", time.Since(begun))

	begun, ctx = time.Now(), context.WithoutCancel(ctx)
	recipe, err := m.atSource(ctx, i)
	if err != nil {
		return m.failed(ctx, i, err)
	}
	m.metrics.IssueStep(i.engine.Name, "issue", time.Since(begun))

	failpoint.Hit(failpoint.F6)
	begun = time.Now()
	if err := m.confirm(ctx, i, recipe); err != nil {
		return err
	}
	failpoint.Hit(failpoint.F7)
	m.metrics.IssueStep(i.engine.Name, "confirm", time.Since(begun))
	return nil
}

// intend makes the lease durable, with the entry that it was asked for.
func (m *Manager) intend(ctx context.Context, i *issuance) error {
	for range namesTried {
		err := i.pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
			if err := tx.LockTenant(i.lease.Tenant, false); err != nil {
				return err
			}
			if !current(cfg, i) || tx.Now().Sub(i.lease.IssuedAt).Abs() > stale {
				return errReplan
			}
			if err := quota(tx, i); err != nil {
				return err
			}
			var err error
			if i.lease.FenceSeq, err = tx.FenceSeq(i.lease.Tenant); err != nil {
				return err
			}
			i.pass.Set("lease_id", i.lease.ID)
			i.pass.Set("username", i.lease.Username)
			i.pass.Set("ttl_seconds", int64(i.lease.ExpiresAt.Sub(i.lease.IssuedAt)/time.Second))
			i.pass.Set("outcome", "requested")
			err = tx.InsertLease(i.lease)
			failpoint.Hit(failpoint.IntentOpen)
			return err
		})
		if !errors.Is(err, store.ErrUsernameTaken) {
			m.due(*i.lease.DueAt)
			return err
		}
		if err := m.plan(ctx, i); err != nil {
			return i.pass.Record(ctx, err)
		}
	}
	return i.pass.Record(ctx, fault.New(fault.InternalError, "no free name was found for the credential"))
}

// current tells whether the plan was made for what the configuration now says.
func current(cfg *store.Config, i *issuance) bool {
	e := cfg.Object(i.lease.Tenant, store.KindEngine, i.engine.ID)
	r := cfg.Object(i.lease.Tenant, store.KindRole, i.role.ID)
	return e != nil && r != nil && e.Version == i.engine.Version && r.Version == i.role.Version
}

// quota refuses what the engine's or the role's max_leases does not allow.
func quota(tx store.Tx, i *issuance) error {
	for _, q := range []struct {
		role string
		most int64
	}{{"", i.engine.MaxLeases()}, {i.role.Name, i.role.MaxLeases}} {
		if q.most == 0 {
			continue
		}
		n, err := source.Living(tx, i.engine.ID, q.role)
		if err != nil {
			return err
		}
		if n >= q.most {
			return fault.New(fault.LeaseQuotaExceeded, "%d leases live, which is all that max_leases allows: revoke some or raise it", n).With("max_leases", q.most)
		}
	}
	return nil
}

// atSource makes the account. A name that the source already knows is left alone (law L11): a new
// one is drawn, and is durable before it is tried.
func (m *Manager) atSource(ctx context.Context, i *issuance) (engine.Recipe, error) {
	for tried := 1; ; tried++ {
		recipe, err := m.attempt(ctx, i)
		if kind(err) != engine.NameTaken || tried == namesTried {
			return recipe, err
		}
		m.log.Warn("a drawn name exists at the source, drawing another", "engine", i.engine.Name, "lease_id", i.lease.ID)
		if err := m.rename(ctx, i); err != nil {
			return nil, err
		}
	}
}

// attempt is one, and another as often as the root was changed meanwhile.
func (m *Manager) attempt(ctx context.Context, i *issuance) (recipe engine.Recipe, err error) {
	ctx, cancel := context.WithDeadline(ctx, i.plan.Deadline)
	defer cancel()
	err = m.sources.Follow(ctx, i.engine, i.handle, func() (err error) {
		recipe, err = i.handle.Issue(ctx, i.plan)
		return err
	})
	return recipe, err
}

func (m *Manager) rename(ctx context.Context, i *issuance) error {
	if err := m.plan(ctx, i); err != nil {
		return err
	}
	return m.store.Write(ctx, func(tx store.Tx) error {
		_, err := tx.UpdateLease(i.lease.ID, func(l *store.Lease) error {
			if l.Status != api.LeaseIssuing {
				return fault.New(fault.LeaseRevoked, "the lease was revoked while it was being issued")
			}
			l.Claim = nil // whoever looks at the former name writes nothing down
			l.Username, l.Recipe, l.Deadline, l.DueAt = i.lease.Username, i.lease.Recipe, i.lease.Deadline, i.lease.DueAt
			return nil
		})
		return err
	})
}

// confirm makes the lease active and writes the outcome. A fence newer than the intent, or a
// revocation that already marked the row, withholds the credential (law L5). A credential that nobody can
// kill is confirmed durably before it is given: whoever has it, its row says so, whatever is lost, since
// the moment from which its revocation takes effect depends on that.
func (m *Manager) confirm(ctx context.Context, i *issuance, recipe engine.Recipe) error {
	withheld := false
	write := m.store.WriteRelaxed
	if i.engine.Config.Listed {
		write = m.store.Write
	}
	err := write(ctx, func(tx store.Tx) error {
		withheld = false
		fences, err := tx.FencesSince(i.lease.Tenant, i.lease.FenceSeq)
		if err != nil {
			return err
		}
		l, err := tx.UpdateLease(i.lease.ID, func(l *store.Lease) error {
			l.Recipe, l.Deadline = recipe, time.Time{} // the source has answered: nothing comes late
			// The account exists since the row was last looked at: whoever is at it, and may have
			// found nothing there, writes nothing down.
			l.Claim = nil
			now := tx.Now()
			switch l.Status {
			case api.LeaseIssuing, api.LeaseActive: // active: a recovery was faster
				l.Status, l.Unconfirmed = api.LeaseActive, false
				due := l.ExpiresAt
				l.DueAt = &due
				applyFences(l, fences, now)
			case api.LeaseRevoking:
				l.DueAt = &now
			case api.LeaseRevoked: // closed before the source answered
				l.DueAt, l.LateLooks = &now, max(l.LateLooks, 1)
			}
			return nil
		})
		if err != nil {
			return err
		}
		extra := outcome(l, "issued")
		if withheld = l.Status != api.LeaseActive; withheld {
			extra["outcome"] = "withheld"
		}
		return tx.Audit(l.Tenant, i.pass.Entry(!withheld, extra))
	})
	switch {
	case err != nil:
		m.withdraw(i, recipe)
		return err
	case withheld:
		m.Kick()
		return fault.New(fault.LeaseRevoked, "the lease was revoked while it was being issued")
	}
	m.due(i.lease.ExpiresAt)
	return nil
}

// failed writes down what an unsuccessful attempt left. Nothing is left but after Uncertain: then
// the caller is told no all the same, so what the source may have made is nobody's, and is revoked
// until after the deadline, when it can come no more.
func (m *Manager) failed(ctx context.Context, i *issuance, cause error) error {
	reason := source.Fault(i.engine.Name, cause)
	switch kind(cause) {
	case engine.Unreachable, engine.Uncertain:
		m.sources.Observe(i.engine, false)
	case engine.WrongServer:
		m.sources.Reopen(i.engine.ID)
	}
	err := m.store.WriteRelaxed(ctx, func(tx store.Tx) error {
		l, err := tx.UpdateLease(i.lease.ID, func(l *store.Lease) error {
			if kind(cause) == engine.Uncertain {
				if l.Status == api.LeaseIssuing {
					ask(l, api.ReasonIssueFailed, Identity, tx.Now())
					l.Revocation.LastError = reason.Message
				}
				return nil
			}
			l.Deadline = time.Time{}
			switch l.Status {
			case api.LeaseIssuing:
				end(l, tx.Now(), api.ReasonIssueFailed)
				l.Revocation.LastError = reason.Message
			case api.LeaseRevoking:
				now := tx.Now()
				l.DueAt = &now
			}
			return nil
		})
		if err != nil {
			return err
		}
		extra := outcome(l, "failed")
		extra["error"] = string(reason.Code)
		return tx.Audit(l.Tenant, i.pass.Entry(false, extra))
	})
	if err != nil {
		m.log.Error("a failed issuance could not be written down, recovery will", "lease_id", i.lease.ID, "error", err)
	}
	m.Kick()
	return reason
}

// withdraw revokes an account that could not be confirmed, as soon as the store is back. It goes by
// the row and not straight to the source: the confirmation may have been kept after all, or another
// node may have found the account, and the lease lives then. A process that ends before leaves what
// one leaves that ends ahead of the confirmation.
func (m *Manager) withdraw(i *issuance, recipe engine.Recipe) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	m.wg.Go(func() {
		for tried := 1; m.ctx.Err() == nil; tried++ {
			err := m.store.Write(m.ctx, func(tx store.Tx) error { return withdrawn(tx, i, recipe) })
			if err == nil {
				m.Kick()
				return
			}
			select {
			case <-time.After(jitter(backoff(tried, maxProbe))):
			case <-m.ctx.Done():
			}
		}
	})
}

// withdrawn asks for the revocation of an account that its caller was not given, whatever its row
// has come to meanwhile.
func withdrawn(tx store.Tx, i *issuance, recipe engine.Recipe) error {
	var was api.LeaseStatus
	l, err := tx.UpdateLease(i.lease.ID, func(l *store.Lease) error {
		now := tx.Now()
		was, l.Recipe, l.Deadline, l.Claim = l.Status, recipe, time.Time{}, nil
		switch l.Status {
		case api.LeaseIssuing, api.LeaseActive:
			ask(l, api.ReasonIssueFailed, Identity, now)
		case api.LeaseRevoking:
			l.DueAt = &now
		case api.LeaseRevoked:
			l.DueAt, l.LateLooks = &now, max(l.LateLooks, 1)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if was == api.LeaseActive {
		return tx.Audit(l.Tenant, entry(l, "dynamic_revoke", true, map[string]any{"reason": api.ReasonIssueFailed, "outcome": "requested"}))
	}
	extra := outcome(l, "failed")
	extra["error"] = string(fault.ServiceUnavailable)
	return tx.Audit(l.Tenant, i.pass.Entry(false, extra))
}

// Undelivered revokes a credential whose answer could not begin: nobody holds it.
func (m *Manager) Undelivered(ctx context.Context, tenant, leaseID string) {
	err := m.store.Write(context.WithoutCancel(ctx), func(tx store.Tx) error {
		l, err := tx.UpdateLease(leaseID, func(l *store.Lease) error {
			if l.Status == api.LeaseActive {
				ask(l, api.ReasonUndelivered, Identity, tx.Now())
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Audit(tenant, entry(l, "dynamic_revoke", true, map[string]any{"reason": api.ReasonUndelivered, "outcome": "requested"}))
	})
	if err != nil {
		m.log.Error("an undelivered credential could not be revoked, it lives to its end", "lease_id", leaseID, "error", err)
		return
	}
	m.Kick()
}

// kind is the kind of an engine's error, 0 for any other.
func kind(err error) engine.Kind {
	var e *engine.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}
