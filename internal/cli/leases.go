package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) credsCommand() *cobra.Command {
	var ttl string
	var metadata map[string]string
	var other []string
	cmd := a.remote("creds ENGINE ROLE [--ttl 2h]", "make a credential and print it", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			life, err := durationFlag("ttl", ttl)
			if err != nil {
				return err
			}
			params := map[string]any{}
			if err := set(params, other); err != nil {
				return err
			}
			cred, err := c.GenerateCredential(ctx, args[0], args[1], api.CredsRequest{TTL: life, Metadata: metadata, Params: params})
			if err != nil {
				return err
			}
			return a.show(cred, func(t *table) {
				for _, name := range slices.Sorted(maps.Keys(cred.Data)) {
					t.field(name, cred.Data[name])
				}
				t.field("lease", cred.LeaseID)
				t.field("expires", cred.ExpiresAt)
				t.renewable(cred.Renewable, cred.MaxExpiresAt)
			})
		})
	cmd.Long = `Make a credential and print it: this once, nothing can show it again. Give it back
with "scaivault dynamic leases revoke LEASE"; it dies by itself when its time is
over. To run one command with a credential, use "scaivault run", which does not
show it to anybody and revokes it at the end.`
	cmd.Flags().StringVar(&ttl, "ttl", "", "its life; the role's default when absent")
	cmd.Flags().StringToStringVar(&metadata, "metadata", nil, "kept with the lease: NAME=VALUE; may be repeated")
	cmd.Flags().StringArrayVar(&other, "set", nil, "a field that the engine wants, as NAME=VALUE; may be repeated")
	return a.complete(cmd, engineNames, roleNames)
}

func (a *app) leasesList() *cobra.Command {
	var f client.LeaseFilter
	var status, before, after string
	cmd := a.remote("list [flags]", "list leases", 0,
		func(ctx context.Context, c *client.Client, _ []string) (err error) {
			f.Status = api.LeaseStatus(status)
			if f.ExpiresBefore, err = timeFlag("expires-before", before, ahead); err != nil {
				return err
			}
			if f.ExpiresAfter, err = timeFlag("expires-after", after, ahead); err != nil {
				return err
			}
			items, err := client.Collect(c.Leases(ctx, f))
			if err != nil {
				return err
			}
			return showList(a, "leases", items, []string{"lease", "engine", "role", "identity", "username", "status", "expires"},
				func(l api.Lease) []any {
					return []any{l.LeaseID, l.Engine, l.Role, l.IdentityID, l.Username, l.Status, l.ExpiresAt}
				})
		})
	flags := cmd.Flags()
	flags.StringVar(&f.Engine, "engine", "", "of this engine")
	flags.StringVar(&f.Role, "role", "", "of this role")
	flags.StringVar(&f.IdentityID, "identity", "", "of this identity")
	flags.StringVar(&status, "status", "", "issuing, active, revoking or revoked")
	flags.BoolVar(&f.Residue, "residue", false, "only those whose account, dead, could not be dropped; get LEASE says what to run at the source")
	flags.StringVar(&f.Username, "username", "", "with this user name, as seen in the source's log")
	flags.StringVar(&before, "expires-before", "", "a time, or a duration from now")
	flags.StringVar(&after, "expires-after", "", "a time, or a duration from now")
	a.completeFlag(cmd, "engine", engineNames)
	return cmd
}

func (a *app) leasesGet() *cobra.Command {
	return a.complete(a.remote("get LEASE", "print a lease; never the credential", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			l, err := c.Lease(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showLease(l)
		}), leaseIDs)
}

func (a *app) leasesRenew() *cobra.Command {
	var increment, ttl string
	cmd := a.remote("renew LEASE [--increment 1h | --ttl 10m]", "move a credential's end", 1,
		func(ctx context.Context, c *client.Client, args []string) (err error) {
			var r api.RenewRequest
			if r.Increment, err = durationFlag("increment", increment); err != nil {
				return err
			}
			if r.TTL, err = durationFlag("ttl", ttl); err != nil {
				return err
			}
			l, err := c.RenewLease(ctx, args[0], r)
			if err != nil {
				return err
			}
			return a.showLease(l)
		})
	cmd.Flags().StringVar(&increment, "increment", "", "the life wanted from now on; never shortens")
	cmd.Flags().StringVar(&ttl, "ttl", "", "exactly this much from now, also shorter")
	cmd.MarkFlagsMutuallyExclusive("increment", "ttl")
	return a.complete(cmd, leaseIDs)
}

func (a *app) leasesRevoke() *cobra.Command {
	var wait string
	cmd := a.remote("revoke LEASE... [--wait 30s]", "end credentials now", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return invalid("revoke: give the ids of the leases; see: scaivault dynamic leases list")
			}
			limit, err := waitFlag(wait)
			if err != nil {
				return err
			}
			for _, id := range args {
				l, err := c.RevokeLease(ctx, id, limit)
				if err != nil {
					return err
				}
				if l == nil {
					a.say("%s is dead at its source", id)
					continue
				}
				a.say("%s is not dead yet; the server goes on until it is", id)
				if err := a.showLease(*l); err != nil {
					return err
				}
			}
			return nil
		})
	cmd.Flags().StringVar(&wait, "wait", "", "how long to wait for a source that is slow")
	return a.complete(cmd, leaseIDs)
}

func (a *app) leasesRevokePrefix() *cobra.Command {
	var wait string
	cmd := a.remote("revoke-prefix ENGINE[/ROLE] [--wait 30s]", "end all credentials of an engine or role now", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			limit, err := waitFlag(wait)
			if err != nil {
				return err
			}
			r, err := c.RevokePrefix(ctx, args[0], limit)
			if err != nil {
				return err
			}
			return a.showRevoked(r)
		})
	cmd.Flags().StringVar(&wait, "wait", "", "how long to wait until all are dead")
	return a.complete(cmd, credNames)
}

func (a *app) leasesRevokeBy() *cobra.Command {
	var f api.RevokeFilterRequest
	var before, wait string
	cmd := a.remote("revoke-by --identity ID | --token ID | --engine E --role R | --issued-before TIME", "end all credentials that match", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			issued, err := timeFlag("issued-before", before, ago)
			if err != nil {
				return err
			}
			f.IssuedBefore = notZero(issued)
			if f == (api.RevokeFilterRequest{}) {
				return invalid("revoke: say which; see scaivault dynamic leases revoke-by --help")
			}
			limit, err := waitFlag(wait)
			if err != nil {
				return err
			}
			r, err := c.RevokeBy(ctx, f, limit)
			if err != nil {
				return err
			}
			return a.showRevoked(r)
		})
	flags := cmd.Flags()
	flags.StringVar(&f.IdentityID, "identity", "", "obtained by this identity")
	flags.StringVar(&f.TokenID, "token", "", "obtained with this token")
	flags.StringVar(&f.Engine, "engine", "", "of this engine")
	flags.StringVar(&f.Role, "role", "", "of this role of the engine")
	flags.StringVar(&before, "issued-before", "", "issued before this time, or this long ago")
	flags.StringVar(&wait, "wait", "", "how long to wait until all are dead")
	a.completeFlag(cmd, "engine", engineNames)
	return cmd
}

func waitFlag(value string) (time.Duration, error) {
	d, err := durationFlag("wait", value)
	if d == nil {
		return 0, err
	}
	return d.Std(), nil
}

func (a *app) showLease(l api.Lease) error {
	return a.show(l, func(t *table) {
		t.field("lease", l.LeaseID)
		t.field("of", l.Engine+"/"+l.Role)
		t.field("identity", l.IdentityID)
		t.field("username", l.Username)
		t.field("status", string(l.Status))
		t.field("issued", l.IssuedAt)
		t.field("expires", l.ExpiresAt)
		t.renewable(l.Renewable, l.MaxExpiresAt)
		t.field("renewed", l.RenewedAt)
		t.field("revoked", l.RevokedAt)
		if r := l.Revocation; r != nil {
			t.field("reason", r.Reason)
			t.field("asked by", r.RequestedBy)
			t.field("attempts", r.Attempts)
			t.field("last error", r.LastError)
			t.field("next attempt", r.NextAttemptAt)
			t.field("dead at", r.EffectiveAt)
			t.field("residue", r.Residue)
		}
		t.field("metadata", l.Metadata)
	})
}

func (a *app) showRevoked(r api.RevokeResult) error {
	if r.Pending > 0 {
		a.say("%d are not dead yet; the server goes on until they are", r.Pending)
	}
	return a.show(r, func(t *table) {
		t.field("matched", r.Matched)
		t.field("dead", r.Revoked)
		t.field("pending", fmt.Sprint(r.Pending))
		for _, id := range r.PendingLeases {
			t.field("pending lease", id)
		}
	})
}

// renewable tells until when a credential can be made to live; of one whose end cannot be moved, nothing.
func (t *table) renewable(can bool, until time.Time) {
	if can {
		t.field("renewable until", until)
	}
}
