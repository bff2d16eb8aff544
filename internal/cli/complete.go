package cli

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

const (
	// completionTime is how long a person may be kept waiting after a Tab.
	completionTime = 2 * time.Second
	// completionMax is how many names are offered.
	completionMax = 200
)

// names offers what an argument may be; earlier are the arguments before it.
type names func(ctx context.Context, c *client.Client, earlier []string) iter.Seq2[string, error]

// complete makes the shell offer one kind of names for each argument of a
// command. A server that does not answer offers nothing, and says nothing.
func (a *app) complete(cmd *cobra.Command, kinds ...names) *cobra.Command {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(kinds) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offer(cmd.Context(), kinds[len(args)], args, typed), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// completeFlag is complete for the value of a flag.
func (a *app) completeFlag(cmd *cobra.Command, flag string, kind names) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.offer(cmd.Context(), kind, args, typed), cobra.ShellCompDirectiveNoFileComp
	})
}

func (a *app) offer(ctx context.Context, kind names, args []string, typed string) []string {
	c, err := a.client()
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	var offered []string
	for name, err := range kind(ctx, c, args) {
		if err != nil || len(offered) == completionMax {
			break
		}
		if strings.HasPrefix(name, typed) {
			offered = append(offered, name)
		}
	}
	return offered
}

func engineNames(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.Engines(ctx), func(e api.Engine) string { return e.Name })
}

// roleNames are those of the engine given before.
func roleNames(ctx context.Context, c *client.Client, earlier []string) iter.Seq2[string, error] {
	return each(c.Roles(ctx, earlier[0]), func(r api.Role) string { return r.Name })
}

// credNames are all "ENGINE/ROLE".
func credNames(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for engine, err := range c.Engines(ctx) {
			if err != nil {
				yield("", err)
				return
			}
			for role, err := range c.Roles(ctx, engine.Name) {
				if !yield(engine.Name+"/"+role.Name, err) {
					return
				}
			}
		}
	}
}

func leaseIDs(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.Leases(ctx, client.LeaseFilter{Status: api.LeaseActive}), func(l api.Lease) string { return l.LeaseID })
}

func policyNames(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.Policies(ctx, true), func(p api.PolicyListItem) string { return p.Name })
}

func rotationNames(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.RotationPolicies(ctx), func(p api.RotationPolicy) string { return p.Name })
}

func secretPolicyNames(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.SecretPolicies(ctx), func(p api.SecretPolicy) string { return p.Name })
}

func secretPaths(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.Secrets(ctx, ""), func(s api.SecretListItem) string { return s.Path })
}

func tokenIDs(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.Tokens(ctx), func(t api.Token) string { return t.ID })
}

func accountIDs(ctx context.Context, c *client.Client, _ []string) iter.Seq2[string, error] {
	return each(c.ServiceAccounts(ctx), func(s api.ServiceAccount) string { return s.ID })
}

func each[T any](items iter.Seq2[T, error], name func(T) string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for item, err := range items {
			if !yield(name(item), err) || err != nil {
				return
			}
		}
	}
}
