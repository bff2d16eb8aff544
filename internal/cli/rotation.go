package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) rotationCommand() *cobra.Command {
	return group("rotation", "replace the values of secrets in time",
		group("policies", "say how often, and how",
			a.rotationList(), a.rotationGet(), a.rotationCreate(), a.rotationUpdate(), a.rotationDelete(),
			a.rotationSwitch("enable", "let a policy rotate", (*client.Client).EnableRotationPolicy),
			a.rotationSwitch("disable", "stop a policy from rotating", (*client.Client).DisableRotationPolicy),
			a.rotationSecrets(), a.rotationAssign(), a.rotationUnassign(), a.rotationRotate()))
}

func (a *app) rotationList() *cobra.Command {
	return a.remote("list", "list the rotation policies", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.RotationPolicies(ctx))
			if err != nil {
				return err
			}
			return showList(a, "data", items, []string{"name", "interval", "secrets", "generates", "active", "id"},
				func(p api.RotationPolicy) []any {
					return []any{p.Name, p.Interval, p.SecretsCount, p.AutoGenerate, p.IsActive, p.ID}
				})
		})
}

func (a *app) rotationGet() *cobra.Command {
	return a.onRotationPolicy("get POLICY", "print a rotation policy", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			p, err := c.RotationPolicy(ctx, id)
			if err != nil {
				return err
			}
			return a.showRotationPolicy(p)
		})
}

type rotationFlags struct {
	interval, grace, warn, generator, description, byHand string
}

func (o *rotationFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.interval, "interval", "", "the longest life of a value, for instance 30d; at least 10s")
	flags.StringVar(&o.grace, "grace", "", "how long the former version stays readable")
	flags.StringVar(&o.warn, "warn-before", "", "how long before its time a secret is shown as due")
	flags.StringVar(&o.generator, "secret-policy", "", "the secret policy that generates the values")
	flags.StringVar(&o.byHand, "by-hand", "", "true: a person writes the values, the server only warns")
	flags.StringVar(&o.description, "description", "", "what it is for")
}

// patch reads the flags; only what is given is set.
func (o *rotationFlags) patch(ctx context.Context, c *client.Client) (p api.RotationPolicyPatch, err error) {
	for _, f := range []struct {
		name, value string
		to          **api.Duration
	}{{"interval", o.interval, &p.Interval}, {"grace", o.grace, &p.GracePeriod}, {"warn-before", o.warn, &p.WarnBefore}} {
		if *f.to, err = durationFlag(f.name, f.value); err != nil {
			return p, err
		}
	}
	switch o.byHand {
	case "":
	case "true", "false":
		generate := o.byHand == "false"
		p.AutoGenerate = &generate
	default:
		return p, invalid("--by-hand: write true or false")
	}
	if o.description != "" {
		p.Description = &o.description
	}
	if o.generator != "" {
		id, err := secretPolicyID(ctx, c, o.generator)
		if err != nil {
			return p, err
		}
		p.SecretPolicyID = &id
	}
	return p, nil
}

func (a *app) rotationCreate() *cobra.Command {
	var o rotationFlags
	cmd := a.remote("create NAME --interval DURATION", "make a rotation policy", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if o.interval == "" {
				return invalid("make a rotation policy: say how long a value may live, for instance --interval 30d")
			}
			p, err := o.patch(ctx, c)
			if err != nil {
				return err
			}
			r := api.RotationPolicyRequest{Name: args[0], Interval: p.Interval, GracePeriod: p.GracePeriod, WarnBefore: p.WarnBefore,
				AutoGenerate: p.AutoGenerate, Description: o.description}
			if p.SecretPolicyID != nil {
				r.SecretPolicyID = *p.SecretPolicyID
			}
			made, err := c.CreateRotationPolicy(ctx, r)
			if err != nil {
				return err
			}
			a.say("put secrets under it: scaivault rotation policies assign %s PATH", made.Name)
			return a.showRotationPolicy(made)
		})
	cmd.Long = `Make a rotation policy. Each secret that is assigned to it gets a new value before its
present one is older than the interval. The root secret of an engine is rotated at the
engine's source.

Without --secret-policy the value is a random password of 32 characters.`
	o.register(cmd)
	return cmd
}

func (a *app) rotationUpdate() *cobra.Command {
	var o rotationFlags
	cmd := a.onRotationPolicy("update POLICY [--interval DURATION] [--grace DURATION] [--warn-before DURATION]", "change what is given", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			p, err := o.patch(ctx, c)
			if err != nil {
				return err
			}
			if p == (api.RotationPolicyPatch{}) {
				return invalid("change a rotation policy: nothing to change is given; see scaivault rotation policies update --help")
			}
			changed, err := c.UpdateRotationPolicy(ctx, id, p)
			if err != nil {
				return err
			}
			return a.showRotationPolicy(changed)
		})
	o.register(cmd)
	return cmd
}

func (a *app) rotationDelete() *cobra.Command {
	return a.onRotationPolicy("delete POLICY", "remove a policy that no secret is assigned to", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			return c.DeleteRotationPolicy(ctx, id)
		})
}

func (a *app) rotationSwitch(name, short string, do func(*client.Client, context.Context, string) (api.RotationPolicy, error)) *cobra.Command {
	return a.onRotationPolicy(name+" POLICY", short, 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			p, err := do(c, ctx, id)
			if err != nil {
				return err
			}
			return a.showRotationPolicy(p)
		})
}

func (a *app) rotationSecrets() *cobra.Command {
	return a.onRotationPolicy("secrets POLICY", "list the secrets of a policy", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			items, err := client.Collect(c.RotationSecrets(ctx, id))
			if err != nil {
				return err
			}
			return a.showDue(items)
		})
}

func (a *app) rotationAssign() *cobra.Command {
	return a.onRotationPolicy("assign POLICY PATH", "put a secret under a policy", 2,
		func(ctx context.Context, c *client.Client, id string, args []string) error {
			s, err := c.AssignRotation(ctx, id, args[1])
			if err != nil {
				return err
			}
			return a.showSecret(s)
		}, secretPaths)
}

func (a *app) rotationUnassign() *cobra.Command {
	return a.onRotationPolicy("unassign POLICY PATH", "take a secret out of a policy", 2,
		func(ctx context.Context, c *client.Client, id string, args []string) error {
			return c.UnassignRotation(ctx, id, args[1])
		}, secretPaths)
}

func (a *app) rotationRotate() *cobra.Command {
	return a.onRotationPolicy("rotate POLICY", "rotate all secrets of a policy now", 1,
		func(ctx context.Context, c *client.Client, id string, args []string) error {
			r, err := c.RotateByPolicy(ctx, id)
			if err != nil {
				return err
			}
			a.say("how far it is: scaivault rotation policies secrets %s", args[0])
			return a.show(r, func(t *table) { t.field("rotated now", r.Scheduled) })
		})
}

func (a *app) onRotationPolicy(use, short string, n int, run itemFunc, more ...names) *cobra.Command {
	return a.complete(a.remoteOn(rotationPolicyID, use, short, n, run), append([]names{rotationNames}, more...)...)
}

func (a *app) showRotationPolicy(p api.RotationPolicy) error {
	return a.show(p, func(t *table) {
		t.field("name", p.Name)
		t.field("id", p.ID)
		t.field("description", p.Description)
		t.field("interval", p.Interval)
		if p.GracePeriod != nil {
			t.field("grace period", *p.GracePeriod)
		}
		if p.WarnBefore != nil {
			t.field("warn before", *p.WarnBefore)
		}
		t.field("generates", p.AutoGenerate)
		t.field("secret policy", p.SecretPolicyID)
		t.field("secrets", p.SecretsCount)
		t.field("active", p.IsActive)
	})
}

// showDue lists secrets by when their time ends.
func (a *app) showDue(items []api.SecretListItem) error {
	return showList(a, "secrets", items, []string{"path", "version", "rotation", "next rotation", "expires"},
		func(s api.SecretListItem) []any {
			return []any{s.Path, s.Version, s.RotationState, s.NextRotationAt, s.ExpiresAt}
		})
}
