package access

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// known is a token as it was at a revision of the configuration: that moves when a token is
// changed or removed, or its user or service account is, so that none of that need be looked for.
type known struct {
	id     string
	token  *Token
	caller Caller
	rev    int64
}

// Authenticate finds the caller of a bearer token: authentication_required, token_invalid,
// token_expired or token_revoked if there is none. The last two are told only to who has the whole
// token. tenant is the one asked for, "" for the token's own. Refusals are limited per address and
// recorded, one entry per address, code and minute.
func (d *Door) Authenticate(ctx context.Context, bearer, tenant string, o Origin) (*Caller, error) {
	k, err := d.find(ctx, bearer)
	if err == nil {
		err = k.alive(time.Now())
	}
	if err == nil && tenant != "" && tenant != k.caller.Tenant {
		err = fault.New(fault.TenantNotFound, "find the tenant: there is none of this id that you may see")
	}
	if err != nil {
		return nil, d.unauthenticated(k, o, err)
	}
	c := k.caller
	c.Origin = o
	return &c, nil
}

// Identify tells whose a token is without letting anybody in: for questions about a token. Errors
// are those of Authenticate; nothing is recorded.
func (d *Door) Identify(ctx context.Context, bearer string) (*Caller, error) {
	k, err := d.find(ctx, bearer)
	if err != nil {
		return nil, err
	}
	if err := k.alive(time.Now()); err != nil {
		return nil, err
	}
	c := k.caller
	return &c, nil
}

// Refuse limits and records, as Authenticate does, a refusal of who did not authenticate in
// another way. It returns what to answer.
func (d *Door) Refuse(o Origin, err error) error { return d.unauthenticated(nil, o, err) }

// find looks the token up, in memory or in the store. It is nil where its holder is not proven.
func (d *Door) find(ctx context.Context, bearer string) (*known, error) {
	if bearer == "" {
		return nil, fault.New(fault.AuthenticationRequired, "authenticate: send a token in the header Authorization: Bearer TOKEN")
	}
	id, ok := TokenID(bearer)
	if !ok {
		return nil, invalidToken()
	}
	k, err := d.token(ctx, store.DefaultTenant, id, d.store.Config().Rev)
	if err != nil {
		return nil, err
	}
	if !Matches(k.token.Hash, bearer) {
		return nil, invalidToken()
	}
	return k, nil
}

// token is the token as of the revision or a later one.
func (d *Door) token(ctx context.Context, tenant, id string, rev int64) (*known, error) {
	if k, ok := d.tokens.get(id); ok && k.rev >= rev {
		return k, nil
	}
	var k *known
	err := d.store.Read(ctx, func(r store.Reader) error {
		o, err := r.Object(tenant, store.KindToken, id)
		if err != nil {
			return err
		}
		k, err = read(r, o)
		return err
	})
	if fault.CodeOf(err) == fault.TokenNotFound {
		return nil, invalidToken()
	}
	if err != nil {
		return nil, err
	}
	d.tokens.put(id, k)
	if k.token.Bootstrap {
		d.bootstrapUsed()
	}
	return k, nil
}

// read makes a caller of a stored token and of whom it belongs to.
func read(r store.Reader, o *store.Object) (*known, error) {
	t, err := store.Decode[Token](o)
	if err != nil {
		return nil, err
	}
	k := &known{id: o.ID, token: t, rev: r.ConfigRev(), caller: Caller{
		Identity:       t.Identity,
		IdentityType:   identityType(t.Identity),
		Tenant:         o.Tenant,
		Scopes:         t.Scopes,
		TokenID:        o.ID,
		TokenExpiresAt: &t.ExpiresAt,
		rev:            r.ConfigRev(),
	}}
	kind, ok := subjectKind(t.Identity)
	if !ok { // a system: or dynamic: identity is the server's own, whatever the table says
		return nil, invalidToken()
	}
	owner, err := r.Object(o.Tenant, kind, t.Subject)
	switch {
	case fault.CodeOf(err) == kind.NotFound():
		now := r.Now()
		ended := *t
		ended.RevokedAt = &now
		k.token = &ended
	case err != nil:
		return nil, err
	case kind == store.KindUser:
		u, err := store.Decode[User](owner)
		if err != nil {
			return nil, err
		}
		k.caller.DisplayName = u.DisplayName
	default:
		k.caller.DisplayName = owner.Key
	}
	return k, nil
}

func (k *known) alive(now time.Time) error {
	if k.token.RevokedAt != nil {
		return fault.New(fault.TokenRevoked, "authenticate: the token was revoked; get a new one")
	}
	if !now.Before(k.token.ExpiresAt) {
		return fault.New(fault.TokenExpired, "authenticate: the token's life has ended; get a new one")
	}
	return nil
}

// recheck makes sure that the caller's token is still alive as of the configuration.
func (d *Door) recheck(ctx context.Context, c *Caller, cfg *store.Config) error {
	if c.TokenID == "" {
		return nil
	}
	now := time.Now()
	if c.rev >= cfg.Rev && now.Before(*c.TokenExpiresAt) {
		return nil
	}
	k, err := d.token(ctx, c.Tenant, c.TokenID, cfg.Rev)
	if err != nil {
		return err
	}
	if err := k.alive(now); err != nil {
		return err
	}
	c.rev = k.rev
	return nil
}

// unauthenticated counts and notes a refusal without an identity. Beyond the address's limit the
// answer is rate_limited. A store that fails is no refusal.
func (d *Door) unauthenticated(k *known, o Origin, err error) error {
	code := fault.CodeOf(err)
	if fault.Status(code) >= 500 {
		return err
	}
	if _, limited := d.limiter.take(addressOf(o.SourceIP), CategoryUnauthenticated); limited != nil {
		err, code = limited, fault.RateLimited
	}
	tenant, identity := store.DefaultTenant, ""
	if k != nil {
		tenant, identity = k.caller.Tenant, k.caller.Identity
	}
	d.refusals.note(o, tenant, identity, code)
	return err
}

func invalidToken() error {
	return fault.New(fault.TokenInvalid, "authenticate: the token is not known here; see that it was copied whole, and for this server")
}
