package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) authCommand() *cobra.Command {
	return group("auth", "log in; tokens and service accounts",
		a.authWhoAmI(), a.authLogin(),
		group("tokens", "your own tokens", a.tokensCreate(), a.tokensList(), a.tokensDelete()),
		group("service-accounts", "identities for programs", a.accountsCreate(), a.accountsList(), a.accountsDelete()))
}

func (a *app) authWhoAmI() *cobra.Command {
	return a.remote("whoami", "tell who is asking", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			me, err := c.WhoAmI(ctx)
			if err != nil {
				return err
			}
			return a.show(me, func(t *table) {
				t.field("identity", me.IdentityID)
				t.field("name", me.DisplayName)
				t.field("tenant", me.TenantID)
				t.field("scopes", me.Scopes)
				t.field("groups", me.Groups)
				t.field("token expires", me.TokenExpiresAt)
			})
		})
}

func (a *app) authLogin() *cobra.Command {
	var id string
	cmd := a.local("login [--url URL] [--client-id ID]", "check a token, and keep it for the next commands", 0,
		func(ctx context.Context, _ []string) error {
			s, err := a.resolve()
			if err != nil {
				return err
			}
			s.Token, s.ClientID, s.ClientSecret = "", id, ""
			if id == "" {
				s.Token, err = a.readSecret("token")
			} else {
				s.ClientSecret, err = a.readSecret("client secret")
			}
			if err != nil {
				return err
			}
			c, err := a.connect(s)
			if err != nil {
				return err
			}
			me, err := c.WhoAmI(ctx)
			if err != nil {
				return err
			}
			s.URL = c.URL()
			if err := a.saveSettings(s); err != nil {
				return err
			}
			a.say("logged in to %s as %s", s.URL, me.IdentityID)
			return nil
		})
	cmd.Long = `Check a token, and keep it for the next commands in ~/.scaivault/config.json, which
only you can read. The token is read from standard input, or asked for at a
terminal and not shown; with --client-id the secret of that service account is.`
	cmd.Flags().StringVar(&id, "client-id", "", "log in as this service account")
	return cmd
}

func (a *app) tokensCreate() *cobra.Command {
	var r api.TokenRequest
	var expires string
	cmd := a.remote("create NAME [--scope SCOPE,...] [--expires-in 90d]", "make a token and print it", 1,
		func(ctx context.Context, c *client.Client, args []string) (err error) {
			r.Name = args[0]
			if r.ExpiresIn, err = durationFlag("expires-in", expires); err != nil {
				return err
			}
			if r.Scopes == nil {
				me, err := c.WhoAmI(ctx)
				if err != nil {
					return err
				}
				r.Scopes = me.Scopes
			}
			token, err := c.CreateToken(ctx, r)
			if err != nil {
				return err
			}
			a.say("keep the token now: nothing can show it again")
			return a.show(token, func(t *table) {
				t.field("token", token.Token)
				t.field("id", token.ID)
				t.field("scopes", token.Scopes)
				t.field("expires", token.ExpiresAt)
			})
		})
	cmd.Flags().StringSliceVar(&r.Scopes, "scope", nil, "what it may be used for; your own scopes when absent")
	cmd.Flags().StringVar(&expires, "expires-in", "", "its life; 90d when absent")
	return cmd
}

func (a *app) tokensList() *cobra.Command {
	return a.remote("list", "list your tokens", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.Tokens(ctx))
			if err != nil {
				return err
			}
			return showList(a, "tokens", items, []string{"id", "name", "created", "expires", "scopes"},
				func(t api.Token) []any { return []any{t.ID, t.Name, t.CreatedAt, t.ExpiresAt, t.Scopes} })
		})
}

func (a *app) tokensDelete() *cobra.Command {
	var leases bool
	cmd := a.remote("delete TOKEN [--revoke-leases]", "end a token now", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			return c.DeleteToken(ctx, args[0], leases)
		})
	cmd.Flags().BoolVar(&leases, "revoke-leases", false, "and all credentials that it obtained")
	return a.complete(cmd, tokenIDs)
}

func (a *app) accountsCreate() *cobra.Command {
	var r api.ServiceAccountRequest
	cmd := a.remote("create NAME --scope SCOPE,...", "make a service account and print its secret", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(r.Scopes) == 0 {
				return invalid("make a service account: say with --scope what it is for, for instance dynamic:generate")
			}
			r.Name = args[0]
			account, err := c.CreateServiceAccount(ctx, r)
			if err != nil {
				return err
			}
			a.say("keep the client secret now: nothing can show it again")
			return a.show(account, func(t *table) {
				t.field("identity", account.IdentityID)
				t.field("client id", account.ClientID)
				t.field("client secret", account.ClientSecret)
				t.field("id", account.ID)
				t.field("scopes", account.Scopes)
			})
		})
	cmd.Flags().StringSliceVar(&r.Scopes, "scope", nil, "what its tokens may be used for, for instance dynamic:generate")
	return cmd
}

func (a *app) accountsList() *cobra.Command {
	return a.remote("list", "list the service accounts", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.ServiceAccounts(ctx))
			if err != nil {
				return err
			}
			return showList(a, "service_accounts", items, []string{"identity", "id", "client id", "created", "scopes"},
				func(s api.ServiceAccount) []any {
					return []any{s.IdentityID, s.ID, s.ClientID, s.CreatedAt, s.Scopes}
				})
		})
}

func (a *app) accountsDelete() *cobra.Command {
	var leases bool
	cmd := a.remoteOn(accountID, "delete ACCOUNT [--revoke-leases]", "end a service account and its tokens now", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			return c.DeleteServiceAccount(ctx, id, leases)
		})
	cmd.Flags().BoolVar(&leases, "revoke-leases", false, "and all credentials that they obtained")
	return a.complete(cmd, accountIDs)
}
