package access

import (
	"context"
	"log/slog"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Config is what a door needs.
type Config struct {
	Store  store.Store
	Limits Limits
	Logger *slog.Logger // nil: none

	// BootstrapUsed is called when a token made by Bootstrap is used: its file may go now. It is
	// called again after changes of the configuration, and must not wait.
	BootstrapUsed func()
}

// Door judges and records. Safe for concurrent use. Run writes what was collected of refusals
// without an identity.
type Door struct {
	store         store.Store
	limiter       *limiter
	tokens        *recent[string, *known]
	refusals      refusals
	log           *slog.Logger
	bootstrapUsed func()
}

// maxKnownTokens bounds the cache of tokens, in two generations.
const maxKnownTokens = 1 << 13

// New makes a door.
func New(c Config) *Door {
	d := &Door{
		store:         c.Store,
		limiter:       newLimiter(c.Limits),
		tokens:        newRecent[string, *known](maxKnownTokens),
		log:           c.Logger,
		bootstrapUsed: c.BootstrapUsed,
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.bootstrapUsed == nil {
		d.bootstrapUsed = func() {}
	}
	return d
}

// System is the server itself as an internal identity: no token limits it, policies do.
func System(tenant, identity string, groups ...string) *Caller {
	return &Caller{Identity: identity, IdentityType: TypeSystem, DisplayName: identity, Tenant: tenant,
		Groups: groups, Internal: true, Origin: Origin{Start: time.Now()}}
}

// Admit judges: the rate limit, then for each right of the ask the token's scope and the policies.
// A denial is recorded and returned: rate_limited, insufficient_scope, access_denied, or the code
// of the condition that alone stood in the way; 401 when the token ended since Authenticate.
func (d *Door) Admit(ctx context.Context, c *Caller, a Ask) (*Pass, error) {
	if err := d.count(c, a); err != nil {
		return nil, err
	}
	if a.Path == "" && len(a.Any) > 0 {
		a.Path = a.Any[0].Path
	}
	p := &Pass{door: d, caller: c, ask: a}
	if err := p.decide(ctx); err != nil {
		return nil, p.refused(ctx, err)
	}
	return p, nil
}

// Allowed judges without recording, by the newest configuration: for filtering lists.
func (d *Door) Allowed(c *Caller, rights ...Right) bool {
	return judge(d.store.Config(), c, rights, time.Now()) == nil
}

// count takes the request out of the caller's bucket. Refusals are collected like those without an
// identity: an entry for each would be the very load that the limit keeps off.
func (d *Door) count(c *Caller, a Ask) error {
	if c.Internal {
		return nil
	}
	limit, err := d.limiter.take(c.Tenant+" "+c.Identity, a.Category)
	if c.limit == nil {
		c.limit = limit
	}
	if err == nil && a.PerAddress {
		_, err = d.limiter.take(addressOf(c.Origin.SourceIP), a.Category)
	}
	if err != nil {
		d.refusals.note(c.Origin, c.Tenant, c.Identity, fault.CodeOf(err))
	}
	return err
}
