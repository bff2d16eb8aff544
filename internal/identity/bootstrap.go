package identity

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// The first administrator.
const (
	adminName     = "admin"
	adminIdentity = "user:" + adminName
	adminPolicy   = "administrator"
)

// adminTokenLife is that of a token made on the host.
const adminTokenLife = 24 * time.Hour

// AdminToken is a token of the first administrator, for a file that only the host can read.
type AdminToken struct {
	ID        string
	Text      statement.Secret
	ExpiresAt time.Time
}

// Bootstrap makes the first administrator of a new store: the user, the policy "administrator"
// (admin on **) with the binding, and a token of 24 hours. In a store that has one it does nothing
// and returns nil. Idempotent: a crash leaves all of it or nothing.
func (s *Service) Bootstrap(ctx context.Context) (*AdminToken, error) {
	if access.Subject(s.store.Config(), store.DefaultTenant, adminIdentity) != nil {
		return nil, nil
	}
	pass, err := s.admitHost(ctx, "auth_bootstrap", "first start")
	if err != nil {
		return nil, err
	}
	var token *AdminToken
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if access.Subject(cfg, store.DefaultTenant, adminIdentity) != nil {
			token = nil
			return nil
		}
		user := &store.Object{Tenant: store.DefaultTenant, Kind: store.KindUser, ID: ident.New("usr"), Key: adminName,
			Doc: document(access.User{DisplayName: "Administrator"})}
		made := access.SystemPolicy(store.DefaultTenant, adminPolicy, adminIdentity,
			policy.Rule{PathPattern: "**", Permissions: []policy.Permission{policy.Admin}})
		if err := access.ChangeAccess(tx, cfg, append(made, user), nil); err != nil {
			return err
		}
		token, err = s.adminToken(tx, user.ID, "bootstrap")
		return err
	})
	if err != nil {
		return nil, err
	}
	return token, nil
}

// NewAdminToken makes another token of the first administrator, for who has the host in hand. It
// is marked with why; with only, the former ones of the same mark are revoked.
func (s *Service) NewAdminToken(ctx context.Context, why string, only bool) (*AdminToken, error) {
	pass, err := s.admitHost(ctx, "auth_token_create", why)
	if err != nil {
		return nil, err
	}
	var token *AdminToken
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		user := access.Subject(cfg, store.DefaultTenant, adminIdentity)
		if user == nil {
			return fault.New(fault.IdentityNotFound, "make an administrator's token: the store has no user %s", adminName)
		}
		if only {
			if err := revokeNamed(tx, why); err != nil {
				return err
			}
		}
		token, err = s.adminToken(tx, user.ID, why)
		return err
	})
	if err != nil {
		return nil, err
	}
	return token, nil
}

func revokeNamed(tx store.Tx, name string) error {
	tokens, err := living(tx, store.DefaultTenant, adminIdentity, "", 0)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if t.Name != name {
			continue
		}
		if err := revoke(tx, store.DefaultTenant, t.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) adminToken(tx store.Tx, user, name string) (*AdminToken, error) {
	end := tx.Now().UTC().Add(adminTokenLife)
	o, text, err := newToken{tenant: store.DefaultTenant, name: name, identity: adminIdentity, subject: user,
		scopes: []string{access.ScopeAdmin}, expires: end, bootstrap: true}.put(tx)
	if err != nil {
		return nil, err
	}
	return &AdminToken{ID: o.ID, Text: text, ExpiresAt: end}, nil
}

// admitHost lets in who acts on the host itself: the operating system guards it, not a policy.
func (s *Service) admitHost(ctx context.Context, action, why string) (*access.Pass, error) {
	return s.door.Admit(ctx, access.System(store.DefaultTenant, "system:host"), access.Ask{Action: action, Path: tokensPath,
		Extra: map[string]any{"reason": why}})
}

// trimEvery and trimAfter: an ended token is kept a day, so that its holder is told why.
const (
	trimEvery = time.Hour
	trimAfter = 24 * time.Hour
	trimChunk = 500
)

// Run removes tokens that ended a day ago, every hour, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if n, err := s.Trim(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("tokens: remove ended ones", "error", err, "removed", n)
			}
		case <-ctx.Done():
			return
		}
	}
}

// Trim removes tokens that ended more than a day ago and those whose owner is gone, and tells how
// many.
func (s *Service) Trim(ctx context.Context) (removed int, err error) {
	for after := ""; ; {
		var found []*store.Object
		if err := s.store.Read(ctx, func(r store.Reader) (err error) {
			found, err = r.Objects(store.DefaultTenant, store.KindToken, "", after, trimChunk)
			return err
		}); err != nil || len(found) == 0 {
			return removed, err
		}
		n, err := s.trim(ctx, found)
		removed += n
		if err != nil {
			return removed, err
		}
		after = found[len(found)-1].Key
	}
}

func (s *Service) trim(ctx context.Context, found []*store.Object) (removed int, err error) {
	var ended []*store.Object
	cfg := s.store.Config()
	for _, o := range found {
		t, err := store.Decode[access.Token](o)
		if err != nil {
			return 0, err
		}
		if time.Since(t.ExpiresAt) > trimAfter || access.Owner(cfg, o.Tenant, t) == nil && time.Since(o.UpdatedAt) > trimAfter {
			ended = append(ended, o)
		}
	}
	if len(ended) == 0 {
		return 0, nil
	}
	err = s.store.Write(ctx, func(tx store.Tx) error {
		for _, o := range ended {
			// Another node may have been first.
			if err := tx.DeleteObject(o.Tenant, store.KindToken, o.ID); err != nil && fault.CodeOf(err) != fault.TokenNotFound {
				return err
			}
		}
		return tx.Audit(store.DefaultTenant, &api.AuditEntry{Action: "auth_token_trim", IdentityType: access.TypeSystem,
			IdentityID: "system:identity", SecretPath: tokensPath, Success: true, ExtraData: map[string]any{"count": len(ended)}})
	})
	if err != nil {
		return 0, err
	}
	return len(ended), nil
}
