package cli

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

// finder answers the id of what is given by its name or by its id.
type finder func(ctx context.Context, c *client.Client, name string) (id string, err error)

// itemFunc is what a command does with the item of an id; args are all that was given, the name too.
type itemFunc func(ctx context.Context, c *client.Client, id string, args []string) error

// remoteOn makes a command on the item that its first argument names.
func (a *app) remoteOn(find finder, use, short string, n int, run itemFunc) *cobra.Command {
	return a.remote(use, short, n, func(ctx context.Context, c *client.Client, args []string) error {
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		id, err := find(ctx, c, name)
		if err != nil {
			return err
		}
		return run(ctx, c, id, args)
	})
}

func policyID(ctx context.Context, c *client.Client, name string) (string, error) {
	return findNamed(c.Policies(ctx, true), "pol_", client.PolicyNotFound, "policy", name,
		func(p api.PolicyListItem) (string, []string) { return p.ID, []string{p.Name} })
}

func rotationPolicyID(ctx context.Context, c *client.Client, name string) (string, error) {
	return findNamed(c.RotationPolicies(ctx), "rot_", client.RotationPolicyNotFound, "rotation policy", name,
		func(p api.RotationPolicy) (string, []string) { return p.ID, []string{p.Name} })
}

func secretPolicyID(ctx context.Context, c *client.Client, name string) (string, error) {
	return findNamed(c.SecretPolicies(ctx), "sp_", client.SecretPolicyNotFound, "secret policy", name,
		func(p api.SecretPolicy) (string, []string) { return p.ID, []string{p.Name} })
}

// accountID also takes the identity of a service account.
func accountID(ctx context.Context, c *client.Client, name string) (string, error) {
	return findNamed(c.ServiceAccounts(ctx), "sa_", "service_account_not_found", "service account", name,
		func(s api.ServiceAccount) (string, []string) { return s.ID, []string{s.Name, s.IdentityID} })
}

// findNamed is the id of the first item that has the name among its own. What begins like an id is
// taken for one, and the server is not asked.
func findNamed[T any](items iter.Seq2[T, error], prefix string, code client.Code, noun, name string, of func(T) (id string, names []string)) (string, error) {
	if name == "" {
		return "", invalid("find the %s: give its name", noun)
	}
	if strings.HasPrefix(name, prefix) {
		return name, nil
	}
	for item, err := range items {
		if err != nil {
			return "", err
		}
		if id, names := of(item); slices.Contains(names, name) {
			return id, nil
		}
	}
	return "", &client.Error{Code: code, Status: 404, Message: "there is no " + noun + " " + quote(name)}
}
