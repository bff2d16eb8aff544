// Package identity administers who can ask: personal access tokens, service accounts with their
// client credentials, and the first administrator. Who asks is found out by package access, which
// owns the form of a token; what they may do is a matter of policies alone.
package identity

import (
	"context"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// Where administration is judged.
const (
	tokensPath     = "sys/auth/tokens"
	accountsPath   = "sys/auth/service-accounts"
	introspectPath = "sys/auth/introspect"
)

// Config is what a service needs.
type Config struct {
	Store  store.Store
	Door   *access.Door
	Leases Leases
	Logger *slog.Logger // nil: none
}

// Leases revokes what an identity or a token ever obtained: lease.Manager.
type Leases interface {
	// Fence revokes the scope in the caller's transaction.
	Fence(tx store.Tx, f *store.Fence) error
	// Kick makes a committed fence take effect now.
	Kick()
}

// Service administers identities and tokens. Safe for concurrent use.
type Service struct {
	store  store.Store
	door   *access.Door
	leases Leases
	log    *slog.Logger
}

// New makes a service. Run keeps its tables small.
func New(c Config) *Service {
	s := &Service{store: c.Store, door: c.Door, leases: c.Leases, log: c.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s
}

// WhoAmI tells the caller who it is.
func (s *Service) WhoAmI(ctx context.Context, c *access.Caller) (*api.WhoAmI, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_whoami", Category: access.CategoryWhoAmI})
	if err != nil {
		return nil, err
	}
	if err := pass.Record(ctx, nil); err != nil {
		return nil, err
	}
	return &api.WhoAmI{
		IdentityID:     c.Identity,
		IdentityType:   c.IdentityType,
		DisplayName:    c.DisplayName,
		TenantID:       c.Tenant,
		Scopes:         list(c.Scopes),
		Groups:         list(c.Groups),
		Roles:          list(c.Roles),
		MFAVerifiedAt:  c.MFAVerifiedAt,
		TokenExpiresAt: c.TokenExpiresAt,
	}, nil
}

// Introspect tells about a token (RFC 7662): one of the caller's own identity, or, by read on
// sys/auth/introspect and the scope admin, any. What is no living token of the tenant is only
// told to be none.
func (s *Service) Introspect(ctx context.Context, c *access.Caller, token string) (*api.Introspection, error) {
	rights := []access.Right{{Scope: access.ScopeAdmin, Permission: "read", Path: introspectPath}}
	about, err := s.door.Identify(ctx, token)
	if code := fault.CodeOf(err); err != nil && fault.Status(code) >= 500 {
		return nil, err
	}
	if about != nil && about.Tenant == c.Tenant {
		rights = append(rights, access.Right{Owner: about.Identity})
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_introspect", Category: access.CategoryWhoAmI, Any: rights})
	if err != nil {
		return nil, err
	}
	answer := &api.Introspection{}
	if about != nil && about.Tenant == c.Tenant {
		pass.Set("token_id", about.TokenID)
		answer = &api.Introspection{Active: true, Sub: about.Identity, Scope: strings.Join(about.Scopes, " "),
			TenantID: about.Tenant, TokenType: "Bearer", TokenID: about.TokenID, ExpiresAt: about.TokenExpiresAt.Unix()}
		if at, ok := ident.Time(about.TokenID); ok {
			answer.IssuedAt = at.Unix()
		}
	}
	if err := pass.Record(ctx, nil); err != nil {
		return nil, err
	}
	return answer, nil
}

// newToken is a token to be made.
type newToken struct {
	tenant, name, identity, subject string
	scopes                          []string
	expires                         time.Time
	madeBy                          string
	bootstrap                       bool
}

// put stores the token and gives its id and its text, which is nowhere else.
func (n newToken) put(tx store.Tx) (*store.Object, statement.Secret, error) {
	id, text := access.NewTokenText()
	o := &store.Object{Tenant: n.tenant, Kind: store.KindToken, ID: id, Key: access.TokenKey(n.identity, id), Doc: document(access.Token{
		Name: n.name, Identity: n.identity, Subject: n.subject, Hash: access.Digest(text.Reveal()), Scopes: n.scopes,
		ExpiresAt: n.expires, MadeBy: n.madeBy, Bootstrap: n.bootstrap})}
	return o, text, tx.PutObject(o, 0)
}

// checkScopes refuses scopes that do not exist, are given twice, or are more than the maker has.
func checkScopes(c *access.Caller, scopes []string) error {
	if len(scopes) == 0 {
		return fault.New(fault.InvalidRequest, "read scopes: name at least one of %s", strings.Join(access.Scopes(), ", "))
	}
	known, seen := map[string]bool{}, map[string]bool{}
	for _, scope := range access.Scopes() {
		known[scope] = true
	}
	for _, scope := range scopes {
		if !known[scope] || seen[scope] {
			return fault.New(fault.InvalidRequest, "read scopes: each must be one of %s, and there once", strings.Join(access.Scopes(), ", "))
		}
		seen[scope] = true
	}
	for _, scope := range scopes {
		if !c.HasScope(scope) {
			return fault.New(fault.InsufficientScope, "give the scope %s: the token that asks does not have it itself", scope).With("scope", scope)
		}
	}
	return nil
}

// label tells whether s may name a token for people.
func label(s string) bool {
	return s != "" && len(s) <= 128 && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// list is never null on the wire.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
