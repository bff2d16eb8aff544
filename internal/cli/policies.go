package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) policiesCommand() *cobra.Command {
	return group("policies", "say who may do what",
		a.policiesList(), a.policiesGet(), a.policiesCreate(), a.policiesUpdate(), a.policiesDelete(),
		a.policiesBind(), a.policiesUnbind(), a.policiesBindings(), a.policiesTest())
}

func (a *app) policiesList() *cobra.Command {
	var all bool
	cmd := a.remote("list [--all]", "list the policies", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.Policies(ctx, all))
			if err != nil {
				return err
			}
			return showList(a, "policies", items, []string{"name", "rules", "bindings", "active", "id", "description"},
				func(p api.PolicyListItem) []any {
					return []any{p.Name, p.RuleCount, p.BindingCount, p.IsActive, p.ID, p.Description}
				})
		})
	cmd.Flags().BoolVar(&all, "all", false, "also those that are switched off")
	return cmd
}

func (a *app) policiesGet() *cobra.Command {
	return a.complete(a.remoteOn(policyID, "get POLICY", "print a policy", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			p, err := c.Policy(ctx, id)
			if err != nil {
				return err
			}
			return a.showPolicy(p)
		}), policyNames)
}

func (a *app) policiesCreate() *cobra.Command {
	var o policyFlags
	cmd := a.remote("create NAME --allow PATTERN=PERMISSION,...", "make a policy, bound to nobody", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := a.policyDocument(o)
			if err != nil {
				return err
			}
			d["name"] = args[0]
			r, err := as[api.PolicyRequest](d)
			if err != nil {
				return err
			}
			p, err := c.CreatePolicy(ctx, r)
			if err != nil {
				return err
			}
			return a.showPolicy(p)
		})
	cmd.Long = `Make a policy: what is allowed on which paths. It allows nobody anything before it
is bound to them: scaivault policies bind.

  --allow 'infra/**=read'                           secrets below infra/
  --allow 'dynamic/support-db/*=dynamic:generate'   credentials of each role of an engine

* is one segment of a path, ** any number of them.`
	o.register(cmd)
	return cmd
}

func (a *app) policiesUpdate() *cobra.Command {
	var o policyFlags
	var active string
	cmd := a.remote("update POLICY [--allow PATTERN=PERMISSION,...] [--active=false]", "change what is given; --allow replaces all rules", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := a.policyDocument(o)
			if err != nil {
				return err
			}
			switch active {
			case "":
			case "true", "false":
				d["is_active"] = active == "true"
			default:
				return invalid("--active: write true or false")
			}
			if len(d) == 0 {
				return invalid("change a policy: nothing to change is given; see scaivault policies update --help")
			}
			patch, err := as[api.PolicyPatch](d)
			if err != nil {
				return err
			}
			id, err := policyID(ctx, c, args[0])
			if err != nil {
				return err
			}
			p, err := c.UpdatePolicy(ctx, id, patch)
			if err != nil {
				return err
			}
			return a.showPolicy(p)
		})
	o.register(cmd)
	cmd.Flags().StringVar(&active, "active", "", "true or false: switch it on or off")
	return a.complete(cmd, policyNames)
}

type policyFlags struct {
	file, description string
	allow             []string
}

func (o *policyFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&o.allow, "allow", nil, "a rule: PATTERN=PERMISSION,...; may be repeated")
	flags.StringVar(&o.description, "description", "", "what it is for")
	flags.StringVarP(&o.file, "file", "f", "", "the policy as JSON, conditions included; - for standard input")
}

func (a *app) policyDocument(o policyFlags) (map[string]any, error) {
	d, err := a.document(o.file)
	if err != nil {
		return nil, err
	}
	if o.description != "" {
		d["description"] = o.description
	}
	var rules []map[string]any
	for _, rule := range o.allow {
		at := strings.LastIndexByte(rule, '=')
		if at <= 0 || at == len(rule)-1 {
			return nil, invalid("--allow: %q is not PATTERN=PERMISSION,...", rule)
		}
		rules = append(rules, map[string]any{"path_pattern": rule[:at], "permissions": strings.Split(rule[at+1:], ",")})
	}
	if rules != nil {
		d["rules"] = rules
	}
	return d, nil
}

func (a *app) policiesDelete() *cobra.Command {
	var force bool
	cmd := a.remoteOn(policyID, "delete POLICY [--force]", "remove a policy", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			return c.DeletePolicy(ctx, id, force)
		})
	cmd.Flags().BoolVar(&force, "force", false, "also if it is bound to somebody")
	return a.complete(cmd, policyNames)
}

func (a *app) policiesBind() *cobra.Command {
	var expires string
	cmd := a.remote("bind POLICY IDENTITY [--expires TIME]", "give a policy's rules to an identity or group", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			kind, err := identityType(args[1])
			if err != nil {
				return err
			}
			end, err := timeFlag("expires", expires, ahead)
			if err != nil {
				return err
			}
			request := api.BindingRequest{IdentityType: kind, IdentityID: args[1]}
			if !end.IsZero() {
				request.ExpiresAt = &end
			}
			id, err := policyID(ctx, c, args[0])
			if err != nil {
				return err
			}
			b, err := c.BindPolicy(ctx, id, request)
			if err != nil {
				return err
			}
			return a.show(b, func(t *table) {
				t.field("binding", b.ID)
				t.field("identity", b.IdentityID)
				t.field("expires", b.ExpiresAt)
			})
		})
	cmd.Flags().StringVar(&expires, "expires", "", "end of the binding: a time, or a duration from now")
	return a.complete(cmd, policyNames)
}

// identityType tells from an identity's prefix what the API wants to be told.
func identityType(identity string) (string, error) {
	prefix, _, _ := strings.Cut(identity, ":")
	switch prefix {
	case "user", "group", "system":
		return prefix, nil
	case "sa":
		return "service_account", nil
	case "dynamic":
		return "system", nil
	}
	return "", invalid("bind a policy: %q is no identity; write user:…, sa:…, group:…, system:… or dynamic:<engine>", identity)
}

func (a *app) policiesUnbind() *cobra.Command {
	return a.complete(a.remoteOn(policyID, "unbind POLICY BINDING|IDENTITY", "take a policy's rules away", 2,
		func(ctx context.Context, c *client.Client, id string, args []string) error {
			bindings, err := client.Collect(c.Bindings(ctx, id))
			if err != nil {
				return err
			}
			at := slices.IndexFunc(bindings, func(b api.Binding) bool { return b.ID == args[1] || b.IdentityID == args[1] })
			if at < 0 {
				return &client.Error{Code: "binding_not_found", Status: 404, Message: fmt.Sprintf("policy %s is not bound to %s", args[0], args[1])}
			}
			return c.UnbindPolicy(ctx, id, bindings[at].ID)
		}), policyNames)
}

func (a *app) policiesBindings() *cobra.Command {
	return a.complete(a.remoteOn(policyID, "bindings POLICY", "list to whom a policy is bound", 1,
		func(ctx context.Context, c *client.Client, id string, _ []string) error {
			bindings, err := client.Collect(c.Bindings(ctx, id))
			if err != nil {
				return err
			}
			return showList(a, "bindings", bindings, []string{"identity", "type", "expires", "id"},
				func(b api.Binding) []any { return []any{b.IdentityID, b.IdentityType, b.ExpiresAt, b.ID} })
		}), policyNames)
}

func (a *app) policiesTest() *cobra.Command {
	var ip, at string
	var mfa bool
	cmd := a.remote("test IDENTITY PATH PERMISSION", "ask what the policies would decide", 3,
		func(ctx context.Context, c *client.Client, args []string) error {
			when, err := timeFlag("at", at, ahead)
			if err != nil {
				return err
			}
			request := api.PolicyTestRequest{IdentityID: args[0], Path: args[1], Permission: args[2]}
			if ip != "" || mfa || !when.IsZero() {
				request.Context = &api.PolicyTestContext{SourceIP: ip, MFAVerified: mfa, Timestamp: notZero(when)}
			}
			result, err := c.TestPolicies(ctx, request)
			if err != nil {
				return err
			}
			return a.show(result, func(t *table) {
				t.field("allowed", result.Allowed)
				t.field("by policy", result.MatchedPolicy)
				if r := result.MatchedRule; r != nil {
					t.field("by rule", ruleText(*r))
				}
				t.field("reason", result.Reason)
				t.field("failed condition", result.FailedCondition)
			})
		})
	cmd.Flags().StringVar(&ip, "ip", "", "as if asked from this address")
	cmd.Flags().BoolVar(&mfa, "mfa", false, "as if verified by a second factor")
	cmd.Flags().StringVar(&at, "at", "", "as if asked at this time")
	return cmd
}

func notZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *app) showPolicy(p api.Policy) error {
	return a.show(p, func(t *table) {
		t.field("name", p.Name)
		t.field("id", p.ID)
		t.field("description", p.Description)
		t.field("active", p.IsActive)
		for _, r := range p.Rules {
			t.field("allows", ruleText(r))
		}
		for _, b := range p.Bindings {
			t.field("bound to", b.IdentityID)
		}
	})
}

func ruleText(r api.PolicyRule) string {
	words := make([]string, len(r.Permissions))
	for i, p := range r.Permissions {
		words[i] = string(p)
	}
	text := r.PathPattern + " = " + strings.Join(words, ",")
	if r.Conditions != nil {
		text += " under conditions"
	}
	return text
}
