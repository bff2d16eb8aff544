package clock

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Path is the virtual path of the clock in policies.
const Path = "sys/clock"

// States of the clock.
const (
	StateRight   = "ok"
	StateHeld    = "held"    // it jumped, and no source has told yet what time it is
	StateShifted = "shifted" // it is wrong, and the agreed time goes on without it
)

// Show tells what time it is, by the agreed time and by the store's clock.
func (g *Guard) Show(ctx context.Context, c *access.Caller) (*api.Clock, error) {
	pass, err := g.door.Admit(ctx, c, access.Ask{Action: "system_clock", Category: access.CategorySystem,
		Any: []access.Right{{Scope: access.ScopeAdmin, Permission: "read", Path: Path}}})
	if err != nil {
		return nil, err
	}
	shown, err := g.State(ctx)
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return shown, nil
}

// State is Show for the server itself: health and metrics.
func (g *Guard) State(ctx context.Context) (*api.Clock, error) {
	out := &api.Clock{State: StateRight}
	raw, err := g.sample(ctx, func(r store.Reader) error {
		now, raw := g.Now(), r.Now()
		if raw.Sub(now) <= step {
			return nil
		}
		for _, o := range g.Config().List(store.DefaultTenant, store.KindEngine, "") {
			early, _, err := r.Overdue(o.ID, raw)
			if err != nil {
				return err
			}
			due, _, err := r.Overdue(o.ID, now)
			if err != nil {
				return err
			}
			out.HeldLeases += int64(early - due)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	shift, _ := g.shift()
	out.Time, out.StoreClock = g.Now(), raw.UTC().Truncate(time.Microsecond)
	out.SkewSeconds = int64(out.StoreClock.Sub(out.Time).Round(time.Second) / time.Second)
	switch {
	case g.Settled() != nil:
		out.State = StateHeld
	case shift != 0:
		out.State = StateShifted
	}
	return out, nil
}

// Confirm states on a person's word that the store's clock is right. What ended by it is revoked. A
// clock that went back cannot be confirmed while leases live: they would live longer than they may.
func (g *Guard) Confirm(ctx context.Context, c *access.Caller) (*api.Clock, error) {
	pass, err := g.door.Admit(ctx, c, access.Ask{Action: "system_clock", Category: access.CategorySystem,
		Any: []access.Right{{Scope: access.ScopeAdmin, Permission: "admin", Path: Path}}, Extra: map[string]any{"confirmed": true}})
	if err != nil {
		return nil, err
	}
	raw, err := g.sample(ctx, func(store.Reader) error { return nil })
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	before := g.Now()
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		pass.Set("skew_seconds", int64(raw.Sub(before)/time.Second))
		if raw.Before(before.Add(-step)) {
			living, err := anyLiving(tx)
			if err != nil {
				return err
			}
			if living {
				return fault.New(fault.EngineInUse, "the store's clock is %s behind the time by which leases live, so their ends cannot be told by it: set the clock right, or revoke all leases first", before.Sub(raw).Round(time.Second))
			}
			if err := pullDue(tx, raw); err != nil {
				return err
			}
		}
		if err := putTime(tx, raw); err != nil {
			return err
		}
		if err := g.dropDistances(tx); err != nil {
			return err
		}
		_, version := g.shift()
		return putShift(tx, 0, version)
	})
	if err != nil {
		return nil, err
	}
	g.log.Warn("the store's clock was confirmed", "by", c.Identity)
	if err := g.check(ctx); err != nil {
		return nil, err
	}
	if g.changed != nil {
		g.changed()
	}
	return g.State(ctx)
}

// pullDue makes due now what was to be looked at later by a time that is given up.
func pullDue(tx store.Tx, now time.Time) error {
	due, err := tx.NextDue(now)
	if err != nil {
		return err
	}
	for engineID := range due {
		rows, err := tx.ClaimDue(engineID, now.AddDate(1000, 0, 0), 1000, store.Claim{Until: now})
		if err != nil {
			return err
		}
		for _, l := range rows {
			if _, err := tx.UpdateLease(l.ID, func(l *store.Lease) error { l.DueAt, l.Claim = &now, nil; return nil }); err != nil {
				return err
			}
		}
	}
	return nil
}
