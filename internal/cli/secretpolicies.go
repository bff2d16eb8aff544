package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) secretPoliciesCommand() *cobra.Command {
	return group("secret-policies", "say how the values of secrets are generated",
		a.secretPoliciesList(), a.secretPoliciesGet(), a.secretPoliciesCreate(), a.secretPoliciesUpdate(),
		a.secretPoliciesDelete(), a.secretPoliciesGenerate(), a.secretPoliciesPreview())
}

const generatorHelp = `
  random         [length=32] [classes=upper,lower,digits,symbols] [symbols=-_]
  hex            [bytes=32]
  uuid
  template       template='sk_{{random:32}}', also hex:N digits:N lower:N upper:N uuid
  rsa_keypair    [bits=3072]
  ec_keypair     [curve=P-256]
  ssh_keypair    [key_type=ed25519] [bits=3072] [comment=TEXT]
  bcrypt_hash    [length=32] [cost=12]
  static         value=-

field=NAME says which field of the secret gets the value.`

func (a *app) secretPoliciesList() *cobra.Command {
	return a.remote("list", "list the secret policies", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.SecretPolicies(ctx))
			if err != nil {
				return err
			}
			return showList(a, "secret_policies", items, []string{"name", "generator", "id", "description"},
				func(p api.SecretPolicy) []any { return []any{p.Name, p.Generator, p.ID, p.Description} })
		})
}

func (a *app) secretPoliciesGet() *cobra.Command {
	return a.onSecretPolicy("get POLICY", "print a secret policy", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			p, err := c.SecretPolicy(ctx, id)
			if err != nil {
				return err
			}
			return a.showSecretPolicy(p)
		})
}

func (a *app) secretPoliciesCreate() *cobra.Command {
	var description string
	cmd := a.remote("create NAME GENERATOR [PARAMETER=VALUE...]", "make a secret policy", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) < 2 {
				return invalid("make a secret policy: give its name and a generator; see scaivault secret-policies create --help")
			}
			p, err := a.parameters(args[2:])
			if err != nil {
				return err
			}
			made, err := c.CreateSecretPolicy(ctx, api.SecretPolicyRequest{Name: args[0], Generator: args[1], Parameters: p, Description: description})
			if err != nil {
				return err
			}
			return a.showSecretPolicy(made)
		})
	cmd.Long = "Make a secret policy. The generators and their parameters:\n" + generatorHelp
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	return cmd
}

func (a *app) secretPoliciesUpdate() *cobra.Command {
	var description string
	cmd := a.onSecretPolicy("update POLICY [PARAMETER=VALUE...] [--description TEXT]", "change a secret policy; parameters replace all former ones", -1,
		func(ctx context.Context, c *client.Client, id string, args []string) error {
			p, err := a.parameters(args[1:])
			if err != nil {
				return err
			}
			patch := api.SecretPolicyPatch{Parameters: p}
			if description != "" {
				patch.Description = &description
			}
			changed, err := c.UpdateSecretPolicy(ctx, id, patch)
			if err != nil {
				return err
			}
			return a.showSecretPolicy(changed)
		})
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	return cmd
}

func (a *app) secretPoliciesDelete() *cobra.Command {
	return a.onSecretPolicy("delete POLICY", "remove a secret policy that no rotation policy uses", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			return c.DeleteSecretPolicy(ctx, id)
		})
}

func (a *app) secretPoliciesGenerate() *cobra.Command {
	return a.onSecretPolicy("generate POLICY", "print a fresh value, which is stored nowhere", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			g, err := c.GenerateSecret(ctx, id)
			if err != nil {
				return err
			}
			return a.showGenerated(g)
		})
}

func (a *app) secretPoliciesPreview() *cobra.Command {
	cmd := a.remote("preview GENERATOR [PARAMETER=VALUE...]", "print what a generator would make", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return invalid("preview a value: give a generator; see scaivault secret-policies preview --help")
			}
			p, err := a.parameters(args[1:])
			if err != nil {
				return err
			}
			g, err := c.PreviewSecret(ctx, api.SecretPreview{Generator: args[0], Parameters: p})
			if err != nil {
				return err
			}
			return a.showGenerated(g)
		})
	cmd.Long = "Print what a generator would make; it is stored nowhere. The generators and their parameters:\n" + generatorHelp
	return cmd
}

// parameters reads PARAMETER=VALUE; value=- is asked for.
func (a *app) parameters(args []string) (*api.GeneratorParameters, error) {
	if len(args) == 0 {
		return nil, nil //nolint:nilnil // no parameters are an answer
	}
	d := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		switch {
		case !ok || name == "":
			return nil, invalid("read the parameters: each is NAME=VALUE")
		case name == "classes":
			d[name] = strings.Split(value, ",")
		case name == "value" && value == "-":
			line, err := a.readSecret("the value")
			if err != nil {
				return nil, err
			}
			d[name] = line
		case slices.Contains([]string{"length", "bytes", "bits", "cost"}, name):
			d[name] = jsonOrText(value)
		default:
			d[name] = value
		}
	}
	p, err := as[api.GeneratorParameters](d)
	return &p, err
}

func (a *app) onSecretPolicy(use, short string, n int, run itemFunc) *cobra.Command {
	return a.complete(a.remoteOn(secretPolicyID, use, short, n, run), secretPolicyNames)
}

func (a *app) showSecretPolicy(p api.SecretPolicy) error {
	return a.show(p, func(t *table) {
		t.field("name", p.Name)
		t.field("id", p.ID)
		t.field("description", p.Description)
		t.field("generator", p.Generator)
		if parameters, err := as[map[string]any](map[string]any{"p": p.Parameters}); err == nil {
			set, _ := parameters["p"].(map[string]any)
			for _, name := range slices.Sorted(maps.Keys(set)) {
				t.field(name, set[name])
			}
		}
	})
}

func (a *app) showGenerated(g api.GeneratedSecret) error {
	return a.show(g, func(t *table) {
		for _, name := range slices.Sorted(maps.Keys(g.Data)) {
			if strings.Contains(g.Data[name], "\n") { // a key: as it is, for a file
				fmt.Fprint(t.w, g.Data[name])
				continue
			}
			t.field(name, g.Data[name])
		}
	})
}
