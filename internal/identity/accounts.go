package identity

import (
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/page"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

const (
	clientSecretPrefix = "sks_"
	accountTokenLife   = time.Hour
	maxAccounts        = 10_000
)

// accountRight is judged for each account by its name; one of an impossible name where all are.
func accountRight(permission, name string) access.Right {
	path := accountsPath
	if access.ValidName(name) {
		path += "/" + name
	}
	return access.Right{Scope: access.ScopeAdmin, Permission: permission, Path: path}
}

func accountIdentity(name string) string { return "sa:" + name }

// CreateAccount makes a service account. It may do nothing until a policy is bound to it.
func (s *Service) CreateAccount(ctx context.Context, c *access.Caller, req *api.ServiceAccountRequest) (*api.ServiceAccount, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_service_account_create", Category: access.CategoryAuth,
		Any: []access.Right{accountRight("write", req.Name)}})
	if err != nil {
		return nil, err
	}
	if !access.ValidName(req.Name) {
		return nil, pass.Record(ctx, fault.New(fault.InvalidRequest,
			"name the service account: a name is a lower case letter and up to 62 of a-z, 0-9, _ and -"))
	}
	if err := checkScopes(c, req.Scopes); err != nil {
		return nil, pass.Record(ctx, err)
	}
	pass.Set("service_account", req.Name)
	var made *api.ServiceAccount
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if n := len(cfg.List(c.Tenant, store.KindServiceAccount, "")); n >= maxAccounts {
			return fault.New(fault.InvalidRequest, "make the service account: there are %d already, which is the most", n)
		}
		secret := access.NewSecret(clientSecretPrefix)
		o := &store.Object{Tenant: c.Tenant, Kind: store.KindServiceAccount, ID: ident.New(ident.ServiceAccount), Key: req.Name,
			Doc: document(access.ServiceAccount{SecretHash: access.Digest(secret.Reveal()), Scopes: req.Scopes})}
		// Bindings to an account of this name that was are not this one's.
		if err := access.ChangeAccess(tx, cfg, []*store.Object{o}, access.BindingsTo(cfg, c.Tenant, accountIdentity(req.Name))); err != nil {
			return err
		}
		made = showAccount(o, req.Scopes)
		made.ClientSecret = secret.Reveal()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// Account reads one, by id or name.
func (s *Service) Account(ctx context.Context, c *access.Caller, id string) (*api.ServiceAccount, error) {
	pass, name, err := s.admitAccount(ctx, c, "read", "read", id)
	if err != nil {
		return nil, err
	}
	var answer *api.ServiceAccount
	o, doc, err := account(pass.Config(), c.Tenant, name)
	if err == nil {
		answer = showAccount(o, doc.Scopes)
	}
	if err := pass.Record(ctx, err); err != nil {
		return nil, err
	}
	return answer, nil
}

// Accounts lists those that the caller may read, by name.
func (s *Service) Accounts(ctx context.Context, c *access.Caller, p page.Request) (*api.ServiceAccountList, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "list", Path: accountsPath, Category: access.CategoryAuth,
		Any: []access.Right{{Scope: access.ScopeAdmin}}})
	if err != nil {
		return nil, err
	}
	answer := &api.ServiceAccountList{ServiceAccounts: []api.ServiceAccount{}}
	after, err := p.After("service_accounts")
	if err != nil {
		return nil, pass.Record(ctx, err)
	}
	for _, o := range pass.Config().List(c.Tenant, store.KindServiceAccount, "") {
		if o.Key <= after || !s.door.Allowed(c, accountRight("read", o.Key)) {
			continue
		}
		doc, err := store.Decode[access.ServiceAccount](o)
		if err != nil {
			return nil, pass.Record(ctx, err)
		}
		answer.ServiceAccounts = append(answer.ServiceAccounts, *showAccount(o, doc.Scopes))
		if len(answer.ServiceAccounts) > p.Size() {
			break
		}
	}
	answer.ServiceAccounts, answer.Page = page.Cut(p, "service_accounts", answer.ServiceAccounts,
		func(a api.ServiceAccount) string { return a.Name })
	if err := pass.Record(ctx, nil); err != nil {
		return nil, err
	}
	return answer, nil
}

// DeleteAccount ends a service account with its tokens and bindings, from the next request on.
// Leases tied to its tokens end too; with revokeLeases all that it ever obtained.
func (s *Service) DeleteAccount(ctx context.Context, c *access.Caller, id string, revokeLeases bool) error {
	pass, name, err := s.admitAccount(ctx, c, "auth_service_account_delete", "delete", id)
	if err != nil {
		return err
	}
	pass.Set("revoke_leases", revokeLeases)
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		o, _, err := account(cfg, c.Tenant, name)
		if err != nil {
			return err
		}
		// Its tokens name the object that goes: without it they are revoked.
		gone := append([]*store.Object{o}, access.BindingsTo(cfg, c.Tenant, accountIdentity(name))...)
		if err := access.ChangeAccess(tx, cfg, nil, gone); err != nil {
			return err
		}
		return s.fence(tx, c, &store.Fence{Tenant: c.Tenant, Identity: accountIdentity(name), TiedOnly: !revokeLeases})
	})
	s.kick(err)
	return err
}

// admitAccount judges a request for an account by its name. An unknown one is judged too, so that
// who may not see it does not learn whether it is there.
func (s *Service) admitAccount(ctx context.Context, c *access.Caller, action, permission, id string) (*access.Pass, string, error) {
	name := id
	if o := s.store.Config().Object(c.Tenant, store.KindServiceAccount, id); o != nil {
		name = o.Key
	}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: action, Category: access.CategoryAuth, Any: []access.Right{accountRight(permission, name)}})
	if err == nil && access.ValidName(name) {
		pass.Set("service_account", name)
	}
	return pass, name, err
}

func account(cfg *store.Config, tenant, name string) (*store.Object, *access.ServiceAccount, error) {
	o := cfg.ByKey(tenant, store.KindServiceAccount, name)
	if o == nil {
		return nil, nil, fault.New(fault.ServiceAccountNotFound, "find the service account: there is none of this id")
	}
	doc, err := store.Decode[access.ServiceAccount](o)
	return o, doc, err
}

// Credentials is what a client proves itself with (RFC 6749 section 4.4).
type Credentials struct {
	ClientID string
	Secret   statement.Secret
	Scopes   []string // empty: all of the account
}

// Grant gives a service account a token of one hour for its credentials. Why they are refused is
// not told: the answer to an unknown client and to a wrong secret is the same token_invalid.
func (s *Service) Grant(ctx context.Context, given Credentials, o access.Origin) (*api.AccessToken, error) {
	sa, doc := client(s.store.Config(), given)
	if sa == nil {
		return nil, s.door.Refuse(o, fault.New(fault.TokenInvalid, "authenticate the client: the client credentials are not valid"))
	}
	scopes := given.Scopes
	if len(scopes) == 0 {
		scopes = doc.Scopes
	}
	identity := accountIdentity(sa.Key)
	c := &access.Caller{Identity: identity, IdentityType: access.TypeServiceAccount, DisplayName: sa.Key, Tenant: sa.Tenant,
		Scopes: doc.Scopes, Origin: o}
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "auth_token_grant", Path: tokensPath, Category: access.CategoryAuth})
	if err != nil {
		return nil, err
	}
	if err := checkScopes(c, scopes); err != nil {
		return nil, pass.Record(ctx, err)
	}
	var answer *api.AccessToken
	err = pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		if now, _ := client(cfg, given); now == nil {
			return fault.New(fault.TokenInvalid, "authenticate the client: the client credentials are not valid")
		}
		t, text, err := newToken{tenant: sa.Tenant, name: "client credentials", identity: identity, subject: sa.ID, scopes: scopes,
			expires: tx.Now().UTC().Add(accountTokenLife)}.put(tx)
		if err != nil {
			return err
		}
		pass.Set("token_id", t.ID)
		answer = &api.AccessToken{AccessToken: text.Reveal(), TokenType: "Bearer", ExpiresIn: int64(accountTokenLife / time.Second),
			Scope: strings.Join(scopes, " ")}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// client is the account that the credentials prove; nil for none. It compares a secret for an
// unknown client, too.
func client(cfg *store.Config, given Credentials) (*store.Object, *access.ServiceAccount) {
	o, doc := cfg.Object(store.DefaultTenant, store.KindServiceAccount, given.ClientID), &access.ServiceAccount{}
	if o != nil {
		var err error
		if doc, err = store.Decode[access.ServiceAccount](o); err != nil {
			return nil, nil
		}
	}
	if !access.Matches(doc.SecretHash, given.Secret.Reveal()) {
		return nil, nil
	}
	return o, doc
}

func showAccount(o *store.Object, scopes []string) *api.ServiceAccount {
	return &api.ServiceAccount{ID: o.ID, Name: o.Key, IdentityID: accountIdentity(o.Key), ClientID: o.ID,
		Scopes: list(scopes), CreatedAt: o.CreatedAt}
}
