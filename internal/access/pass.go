package access

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Pass is a request that was let through, and the only way to change state in its name. It belongs
// to one goroutine.
type Pass struct {
	door    *Door
	caller  *Caller
	ask     Ask
	cfg     *store.Config // that the decision was made on
	checks  [][]Right     // that held besides the ask, each any of its rights
	writing bool
	extra   map[string]any
}

const (
	// recordTime is what recording a failure may take once its request has run out of time.
	recordTime = 5 * time.Second
	// maxDecisions bounds how often the configuration may move under one request.
	maxDecisions = 1000
)

// errMoved says that the decision was made on another configuration than the transaction reads.
var errMoved = errors.New("the configuration has moved")

// Caller is who was let through.
func (p *Pass) Caller() *Caller { return p.caller }

// Config is the configuration that the decision was made on. Write gives a newer one where it moved.
func (p *Pass) Config() *store.Config { return p.cfg }

// Set adds to the extra_data of the entries to come: allow-listed values, never a secret.
func (p *Pass) Set(key string, value any) {
	if p.extra == nil {
		p.extra = map[string]any{}
	}
	p.extra[key] = value
}

// Check asks for one more right: any of those given. It has no record of its own: the operation's
// failure is recorded by Write or Record. What held before Write is asked again there if the
// configuration has moved.
func (p *Pass) Check(rights ...Right) error {
	if err := judge(p.cfg, p.caller, rights, time.Now()); err != nil {
		return err
	}
	if !p.writing {
		p.checks = append(p.checks, rights)
	}
	return nil
}

// Write runs fn and the entry of its success in one transaction. cfg is the configuration that the
// decision was made on; when the transaction's differs, nothing of the run is kept, the decision is
// made again on the newer one, a denial is recorded and returned, and fn runs again: so fn sets
// anew whatever it sets outside tx. When fn fails a failed entry is recorded, with the code in
// extra_data.error, and fn's error returned.
func (p *Pass) Write(ctx context.Context, fn func(tx store.Tx, cfg *store.Config) error) error {
	p.writing = true
	defer func() { p.writing = false }()
	for range maxDecisions {
		err := p.door.store.Write(ctx, func(tx store.Tx) error {
			if tx.ConfigRev() != p.cfg.Rev {
				return errMoved
			}
			if err := fn(tx, p.cfg); err != nil {
				return err
			}
			return tx.Audit(p.caller.Tenant, p.Entry(true, nil))
		})
		if err == nil {
			return nil
		}
		if !errors.Is(err, errMoved) {
			return p.refused(ctx, err)
		}
		if err := p.decide(ctx); err != nil {
			return p.refused(ctx, err)
		}
	}
	return p.refused(ctx, fault.New(fault.ServiceUnavailable, "the configuration changes faster than a request can follow; try again"))
}

// Record writes the entry of a request that changes nothing, as a success when err is nil. It
// returns err, or why the entry could not be written, or a denial when the configuration has moved
// and no longer allows it: so a read calls it before its answer leaves.
func (p *Pass) Record(ctx context.Context, err error) error {
	if err != nil {
		return p.refused(ctx, err)
	}
	return p.Write(ctx, func(store.Tx, *store.Config) error { return nil })
}

// Entry is an entry of this request for a transaction that the caller runs itself.
func (p *Pass) Entry(success bool, extra map[string]any) *api.AuditEntry {
	c := p.caller
	e := &api.AuditEntry{
		Action:       p.ask.Action,
		IdentityType: c.IdentityType,
		IdentityID:   c.Identity,
		SecretPath:   p.ask.Path,
		UserAgent:    c.Origin.UserAgent,
		Success:      success,
		RequestID:    c.Origin.RequestID,
	}
	if c.Origin.SourceIP.IsValid() {
		e.SourceIP = c.Origin.SourceIP.Unmap().String()
	}
	if !c.Origin.Start.IsZero() {
		e.DurationMS = time.Since(c.Origin.Start).Milliseconds()
	}
	if n := len(p.ask.Extra) + len(p.extra) + len(extra); n > 0 {
		e.ExtraData = make(map[string]any, n+1)
		maps.Copy(e.ExtraData, p.ask.Extra)
		maps.Copy(e.ExtraData, p.extra)
		maps.Copy(e.ExtraData, extra)
	}
	return e
}

// decide judges by the newest configuration.
func (p *Pass) decide(ctx context.Context) error {
	cfg := p.door.store.Config()
	if err := p.door.recheck(ctx, p.caller, cfg); err != nil {
		return err
	}
	p.cfg = cfg
	now := time.Now()
	if len(p.ask.Any) > 0 {
		if err := judge(cfg, p.caller, p.ask.Any, now); err != nil {
			return err
		}
	}
	for _, rights := range p.checks {
		if err := judge(cfg, p.caller, rights, now); err != nil {
			return err
		}
	}
	return serves(cfg, p.ask)
}

// refused records that the request failed and returns why. It is recorded even if the caller is
// gone meanwhile. A failure that cannot be recorded stays a failure; the log has both.
func (p *Pass) refused(ctx context.Context, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	e := p.Entry(false, map[string]any{"error": string(fault.CodeOf(why))})
	err := p.door.store.Write(ctx, func(tx store.Tx) error {
		again := *e // the store fills in what it gives
		return tx.Audit(p.caller.Tenant, &again)
	})
	if err != nil {
		p.door.log.Error("audit: record a failed request", "error", err, "action", p.ask.Action,
			"request_id", p.caller.Origin.RequestID, "code", string(fault.CodeOf(why)))
	}
	return why
}
