package server

import (
	"net/http"
	"strings"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/identity"
	"github.com/scaivault/scaivault/internal/statement"
)

func (s *Server) authRoutes() []route {
	const tokens, accounts = "/auth/tokens", "/auth/service-accounts"
	admin := access.ScopeAdmin
	revokeLeases := flag("revoke_leases", "Revoke every lease that it obtained, too.")
	return []route{
		get("/auth/whoami", "Tell the caller who it is.", s.whoAmI),
		op(http.MethodPost, "/auth/introspect", http.StatusOK, "Tell about a token (RFC 7662).", s.introspect),
		form("/auth/token", "Give a service account a token for its client credentials (RFC 6749 section 4.4).", s.grant),

		op(http.MethodPost, tokens, http.StatusCreated, "Make a personal access token; its text is shown once.", s.createToken),
		get(tokens, "List one's living tokens.", s.listTokens).list(text("identity_id", "Of this identity; for administrators.")),
		remove(tokens+"/{id}", "Revoke a token.", s.deleteToken).query(revokeLeases),

		op(http.MethodPost, accounts, http.StatusCreated, "Create a service account; its secret is shown once.", s.createAccount).needs(admin),
		get(accounts, "List the service accounts that the caller may read.", s.listAccounts).needs(admin).list(),
		get(accounts+"/{id}", "Show a service account.", s.getAccount).needs(admin),
		remove(accounts+"/{id}", "End a service account with its tokens and bindings.", s.deleteAccount).needs(admin).
			query(revokeLeases),
	}
}

func (s *Server) whoAmI(c *call) (*api.WhoAmI, error) { return s.Identities.WhoAmI(c.ctx, c.caller) }

func (s *Server) introspect(c *call, req *api.IntrospectRequest) (*api.Introspection, error) {
	return s.Identities.Introspect(c.ctx, c.caller, req.Token)
}

// grant takes the credentials from the form or from the Authorization header, not from both.
func (s *Server) grant(c *call) (*api.AccessToken, error) {
	values, err := c.form("grant_type", "client_id", "client_secret", "scope")
	if err != nil {
		return nil, err
	}
	if values.Get("grant_type") != "client_credentials" {
		return nil, fault.New(fault.InvalidRequest, "read the form: grant_type must be client_credentials")
	}
	id, secret := values.Get("client_id"), values.Get("client_secret")
	if len(c.r.Header["Authorization"]) > 0 {
		user, password, ok := c.r.BasicAuth()
		if !ok || len(c.r.Header["Authorization"]) > 1 || secret != "" || id != "" && id != user {
			return nil, fault.New(fault.InvalidRequest,
				"authenticate the client: send its credentials once, in the form or as one Authorization: Basic header")
		}
		id, secret = user, password
	}
	return s.Identities.Grant(c.ctx, identity.Credentials{ClientID: id, Secret: statement.Secret(secret),
		Scopes: strings.Fields(values.Get("scope"))}, c.origin)
}

func (s *Server) createToken(c *call, req *api.TokenRequest) (*api.Token, error) {
	return s.Identities.CreateToken(c.ctx, c.caller, req)
}

func (s *Server) listTokens(c *call) (*api.TokenList, error) {
	return s.Identities.Tokens(c.ctx, c.caller, c.text("identity_id"), c.page())
}

func (s *Server) deleteToken(c *call) error {
	return s.Identities.DeleteToken(c.ctx, c.caller, c.path("id"), c.flag("revoke_leases"))
}

func (s *Server) createAccount(c *call, req *api.ServiceAccountRequest) (*api.ServiceAccount, error) {
	return s.Identities.CreateAccount(c.ctx, c.caller, req)
}

func (s *Server) listAccounts(c *call) (*api.ServiceAccountList, error) {
	return s.Identities.Accounts(c.ctx, c.caller, c.page())
}

func (s *Server) getAccount(c *call) (*api.ServiceAccount, error) {
	return s.Identities.Account(c.ctx, c.caller, c.path("id"))
}

func (s *Server) deleteAccount(c *call) error {
	return s.Identities.DeleteAccount(c.ctx, c.caller, c.path("id"), c.flag("revoke_leases"))
}
