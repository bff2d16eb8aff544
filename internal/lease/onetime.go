package lease

import (
	"context"
	"net/netip"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// maxPresented bounds what may be presented as a credential, and as the name of an account.
const maxPresented = 256

// Verify checks a one-time credential that was presented to somebody, and ends its lease in the same
// transaction: of all who present it, on whatever node, exactly one is told that it is right. Why it is
// not is told nobody.
func (m *Manager) Verify(ctx context.Context, c *access.Caller, engineName string, p engine.Presented) (*api.Lease, error) {
	path := "dynamic/" + engineName
	pass, err := m.door.Admit(ctx, c, access.Ask{Action: "dynamic_verify", Category: access.CategoryVerify, PerAddress: true, Path: path,
		Any:   []access.Right{{Scope: access.ScopeDynamicVerify, Permission: "dynamic:verify", Path: path}},
		Extra: map[string]any{"engine": engineName}})
	if err != nil {
		return nil, err
	}
	if err := checkPresented(p); err != nil {
		return nil, pass.Record(ctx, err)
	}
	pass.Set("address", p.Address)
	e, err := m.sources.Engine(m.store.Config(), c.Tenant, engineName)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	kind := e.OneTime()
	if kind == nil {
		return nil, pass.Record(ctx, fault.New(fault.InvalidRequest, "engine %s makes no one-time credentials", engineName))
	}
	if err := m.settled(ctx, e); err != nil {
		return nil, pass.Record(ctx, err)
	}
	var used *store.Lease
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		id, err := named(tx, kind.NameIn(p.Secret))
		if err != nil {
			return err
		}
		used, err = tx.UpdateLease(id, func(l *store.Lease) error { return use(tx, l, e.ID, kind, p, c) })
		if err != nil {
			return err
		}
		pass.Set("role", used.Role)
		pass.Set("lease_id", used.ID)
		pass.Set("username", used.Username)
		return tx.Audit(used.Tenant, entry(used, "dynamic_revoke", true, map[string]any{"reason": api.ReasonUsed, "outcome": "revoked"}))
	})
	if err != nil {
		return nil, err
	}
	m.metrics.Revocation(used.Engine, api.ReasonUsed, "revoked")
	m.ended(used.ID)
	return view(used, *used.RevokedAt), nil
}

func checkPresented(p engine.Presented) error {
	_, err := netip.ParseAddr(p.Address)
	_, odd := netip.ParseAddr(p.Client)
	switch {
	case p.Secret == "" || len(p.Secret) > maxPresented:
		return fault.New(fault.InvalidRequest, "otp is missing, or longer than %d bytes", maxPresented)
	case p.Username == "" || len(p.Username) > maxPresented:
		return fault.New(fault.InvalidRequest, "username is missing, or longer than %d bytes", maxPresented)
	case err != nil:
		return fault.New(fault.InvalidRequest, "ip is not an IP address: send the one of the host that was asked")
	case p.Client != "" && odd != nil:
		return fault.New(fault.InvalidRequest, "client_ip is not an IP address: send the one that the login comes from, or leave it out")
	}
	return nil
}

// named is the lease that bears a name.
func named(tx store.Tx, name string) (id string, err error) {
	if name == "" {
		return "", notAccepted()
	}
	found, err := tx.LeasesByUsername([]string{name})
	if err == nil && found[name] == nil {
		err = notAccepted()
	}
	if err != nil {
		return "", err
	}
	return found[name].ID, nil
}

// use ends a living lease of the engine by what is presented of it. One that a fence covers is dead
// although its row may not say so yet.
func use(tx store.Tx, l *store.Lease, engineID string, kind engine.OneTime, p engine.Presented, c *access.Caller) error {
	now := tx.Now()
	if l.Tenant != c.Tenant || l.EngineID != engineID || l.Status != api.LeaseActive || !now.Before(l.ExpiresAt) || !kind.Accepts(l.Recipe, p) {
		return notAccepted()
	}
	fences, err := tx.FencesSince(l.Tenant, l.FenceSeq)
	if err != nil {
		return err
	}
	for _, f := range fences {
		if f.Matches(l) {
			return notAccepted()
		}
	}
	l.Revocation = &api.Revocation{Reason: api.ReasonUsed, RequestedAt: now, RequestedBy: c.Identity}
	end(l, now, api.ReasonUsed)
	return nil
}

func notAccepted() error {
	return fault.New(fault.Forbidden, "verify a one-time credential: it is not accepted; a new one is needed")
}
