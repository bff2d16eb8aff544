package identity

import (
	"context"
	"encoding/json"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/store"
)

// tokenLife is a personal token's when none is asked for.
const tokenLife = 90 * 24 * time.Hour

// CreateToken makes a personal token of the caller's own identity. It never has more scope than the
// token that asks, nor a later end, unless the caller has admin on sys/auth/tokens.
func (s *Service) CreateToken(ctx context.Context, c *access.Caller, req *api.TokenRequest) (*api.Token, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_token_create", Path: tokensPath, Category: access.CategoryAuth})
	if err != nil {
		return nil, err
	}
	scopes := req.Scopes
	if scopes == nil {
		scopes = c.Scopes
	}
	if !label(req.Name) {
		return nil, pass.Record(ctx, fault.New(fault.InvalidRequest, "name the token: a name has 1 to 128 printable characters"))
	}
	if err := checkScopes(c, scopes); err != nil {
		return nil, pass.Record(ctx, err)
	}
	expires, err := tokenEnd(pass, req.ExpiresIn)
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	var made *api.Token
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		owner := access.Subject(cfg, c.Tenant, c.Identity)
		if owner == nil {
			return fault.New(fault.Forbidden, "make a token: only users and service accounts have any")
		}
		o, text, err := newToken{tenant: c.Tenant, name: req.Name, identity: c.Identity, subject: owner.ID, scopes: scopes,
			expires: expires, madeBy: c.TokenID}.put(tx)
		if err != nil {
			return err
		}
		pass.Set("token_id", o.ID)
		made = &api.Token{ID: o.ID, Name: req.Name, IdentityID: c.Identity, Token: text.Reveal(), Scopes: scopes,
			CreatedAt: o.CreatedAt, ExpiresAt: expires}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// tokenEnd is when the new token ends: when it is asked to, if the caller may; when it is not
// asked for, no later than the caller may.
func tokenEnd(pass *access.Pass, asked *api.Duration) (time.Time, error) {
	life := tokenLife
	if asked != nil {
		life = asked.Std()
	}
	end := time.Now().UTC().Add(life).Truncate(time.Millisecond)
	makers := pass.Caller().TokenExpiresAt
	if makers == nil || !end.After(*makers) {
		return end, nil
	}
	err := pass.Check(access.Right{Scope: access.ScopeAdmin, Permission: "admin", Path: tokensPath})
	if err == nil {
		return end, nil
	}
	if asked == nil {
		return *makers, nil
	}
	return time.Time{}, fault.New(fault.Forbidden, "set the token's end: it would outlive the token that asks, which needs admin on %s", tokensPath).
		With("max_expires_at", makers.UTC().Format(time.RFC3339)).Because(err)
}

// Tokens lists the living tokens of an identity, the oldest first: one's own, or, by read on
// sys/auth/tokens and the scope admin, another's.
func (s *Service) Tokens(ctx context.Context, c *access.Caller, identity string, p page.Request) (*api.TokenList, error) {
	if identity == "" {
		identity = c.Identity
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: tokensPath, Category: access.CategoryAuth, Any: []access.Right{
		{Owner: identity}, {Scope: access.ScopeAdmin, Permission: "read", Path: tokensPath}}})
	if err != nil {
		return nil, err
	}
	answer := &api.TokenList{Tokens: []api.Token{}}
	after, err := p.After("tokens")
	if err == nil {
		err = s.store.Read(ctx, func(r store.Reader) error {
			answer.Tokens, err = living(r, c.Tenant, identity, after, p.Size()+1)
			return err
		})
	}
	answer.Tokens, answer.Page = page.Cut(p, "tokens", answer.Tokens, func(t api.Token) string { return access.TokenKey(identity, t.ID) })
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

func living(r store.Reader, tenant, identity, after string, limit int) ([]api.Token, error) {
	const chunk = 500
	tokens := []api.Token{}
	for {
		found, err := r.Objects(tenant, store.KindToken, access.TokenKey(identity, ""), after, chunk)
		if err != nil {
			return nil, err
		}
		for _, o := range found {
			t, err := store.Decode[access.Token](o)
			if err != nil {
				return nil, err
			}
			if t.RevokedAt != nil || !r.Now().Before(t.ExpiresAt) {
				continue
			}
			tokens = append(tokens, api.Token{ID: o.ID, Name: t.Name, IdentityID: t.Identity, Scopes: list(t.Scopes),
				CreatedAt: o.CreatedAt, ExpiresAt: t.ExpiresAt})
			if len(tokens) == limit {
				return tokens, nil
			}
		}
		if len(found) < chunk {
			return tokens, nil
		}
		after = found[len(found)-1].Key
	}
}

// DeleteToken revokes a token, from the next request on, on every node: one's own, or, by delete on
// sys/auth/tokens and the scope admin, another's. Leases that are tied to it end with it; with
// revokeLeases all that were obtained by it.
func (s *Service) DeleteToken(ctx context.Context, c *access.Caller, id string, revokeLeases bool) error {
	rights := []access.Right{{Scope: access.ScopeAdmin, Permission: "delete", Path: tokensPath}}
	var owner string
	err := s.store.Read(ctx, func(r store.Reader) error {
		t, err := tokenOf(r, c.Tenant, id)
		if err == nil {
			owner = t.Identity
		}
		return err
	})
	if owner != "" {
		rights = append(rights, access.Right{Owner: owner})
	}
	if err != nil && fault.CodeOf(err) != fault.TokenNotFound {
		return err
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_token_delete", Path: tokensPath, Category: access.CategoryAuth,
		Any: rights, Extra: map[string]any{"revoke_leases": revokeLeases}})
	if err != nil {
		return err
	}
	err = pass.Write(ctx, func(tx store.Tx, _ *store.Config) error {
		t, err := tokenOf(tx, c.Tenant, id)
		if err != nil {
			return err
		}
		pass.Set("token_id", id)
		pass.Set("token_identity", t.Identity)
		if err := revoke(tx, c.Tenant, id); err != nil {
			return err
		}
		return s.fence(tx, c, &store.Fence{Tenant: c.Tenant, TokenID: id, TiedOnly: !revokeLeases})
	})
	s.kick(err)
	return err
}

// tokenOf is a token that was not revoked yet; for all others it is token_not_found.
func tokenOf(r store.Reader, tenant, id string) (*access.Token, error) {
	o, err := r.Object(tenant, store.KindToken, id)
	if err != nil {
		return nil, err
	}
	t, err := store.Decode[access.Token](o)
	if err == nil && t.RevokedAt != nil {
		err = fault.New(fault.TokenNotFound, "find the token: it was revoked already")
	}
	return t, err
}

// revoke keeps the token's row: its holder is told token_revoked until its end, then it is trimmed.
func revoke(tx store.Tx, tenant, id string) error {
	return tx.UpdateObject(tenant, store.KindToken, id, func(o *store.Object) error {
		t, err := store.Decode[access.Token](o)
		if err != nil {
			return err
		}
		now, ended := tx.Now(), *t
		ended.RevokedAt = &now
		o.Doc = document(ended)
		return nil
	})
}

// fence revokes leases in the transaction that ends a token or an identity.
func (s *Service) fence(tx store.Tx, c *access.Caller, f *store.Fence) error {
	if s.leases == nil {
		return nil
	}
	f.Reason, f.By = api.ReasonIdentityRevoked, c.Identity
	return s.leases.Fence(tx, f)
}

// kick follows a committed fence.
func (s *Service) kick(err error) {
	if err == nil && s.leases != nil {
		s.leases.Kick()
	}
}

// document is what is stored; the types stored here cannot fail to marshal.
func document(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("marshal a document of our own: " + err.Error())
	}
	return b
}
