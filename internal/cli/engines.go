package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) dynamicCommand() *cobra.Command {
	return group("dynamic", "credentials made on demand: engines, roles, leases",
		group("engines", "the sources that credentials are made at",
			a.enginesList(), a.enginesGet(), a.enginesCreate(), a.enginesUpdate(), a.enginesDelete(),
			a.enginesHealth(), a.enginesRotateRoot(), a.enginesReconcile(), a.enginesAbandon(), a.enginesAcceptSource(), a.enginesSetupSQL()),
		group("roles", "what the credentials of an engine may do",
			a.rolesList(), a.rolesGet(), a.rolesCreate(), a.rolesUpdate(), a.rolesDelete(), a.rolesTest()),
		a.credsCommand(),
		group("leases", "the credentials that live",
			a.leasesList(), a.leasesGet(), a.leasesRenew(), a.leasesRevoke(), a.leasesRevokePrefix(), a.leasesRevokeBy()))
}

func (a *app) enginesList() *cobra.Command {
	return a.remote("list", "list the engines", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			items, err := client.Collect(c.Engines(ctx))
			if err != nil {
				return err
			}
			return showList(a, "engines", items, []string{"name", "type", "status", "roles", "leases", "default ttl", "max ttl"},
				func(e api.Engine) []any {
					return []any{e.Name, e.Type, e.Status, e.RoleCount, e.ActiveLeases, e.DefaultTTL, e.MaxTTL}
				})
		})
}

func (a *app) enginesGet() *cobra.Command {
	return a.complete(a.remote("get ENGINE", "print an engine", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.Engine(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showEngine(e)
		}), engineNames)
}

// engineFlags build an engine's document: the file first, then what is given
// one by one.
type engineFlags struct {
	file, kind, plugin, url, root string
	defaultTTL, maxTTL            string
	maxLeases                     int64
	config                        []string
}

func (o *engineFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.plugin, "plugin", "", "for databases: postgresql, mysql, redis or mongodb")
	flags.StringVar(&o.url, "connection-url", "", "where the source is, with {{username}} and {{password}} in the place of root's")
	flags.StringVar(&o.root, "root-secret", "", "path of the secret with the source's root credential")
	flags.StringVar(&o.defaultTTL, "default-ttl", "", "life of a credential that asks for none")
	flags.StringVar(&o.maxTTL, "max-ttl", "", "longest life, renewals included")
	flags.Int64Var(&o.maxLeases, "max-leases", 0, "refuse more living credentials than this")
	flags.StringArrayVar(&o.config, "config", nil, "any other setting as NAME=VALUE; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "the engine as JSON; - for standard input")
}

func (o *engineFlags) document(a *app) (map[string]any, error) {
	d, err := a.document(o.file)
	if err != nil {
		return nil, err
	}
	config, ok := d["config"].(map[string]any)
	if !ok {
		config = map[string]any{}
	}
	put(config, "plugin", o.plugin)
	put(config, "connection_url", o.url)
	put(config, "root_credentials_path", o.root)
	if err := set(config, o.config); err != nil {
		return nil, err
	}
	if len(config) > 0 {
		d["config"] = config
	}
	put(d, "default_ttl", o.defaultTTL)
	put(d, "max_ttl", o.maxTTL)
	put(d, "type", o.kind)
	if o.maxLeases != 0 {
		d["max_leases"] = o.maxLeases
	}
	return d, nil
}

func (a *app) enginesCreate() *cobra.Command {
	var o engineFlags
	var replace bool
	cmd := a.remote("create ENGINE --connection-url URL --root-secret PATH", "make an engine; its connection is tried first", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := o.document(a)
			if err != nil {
				return err
			}
			d["name"] = args[0]
			if d["type"] == nil {
				d["type"] = "database"
			}
			r, err := as[api.EngineRequest](d)
			if err != nil {
				return err
			}
			write := c.CreateEngine
			if replace {
				write = func(ctx context.Context, r api.EngineRequest) (api.Engine, error) {
					return c.ReplaceEngine(ctx, args[0], r, false)
				}
			}
			e, err := write(ctx, r)
			if err != nil {
				return err
			}
			return a.showEngine(e)
		})
	cmd.Example = `  scaivault secrets write infra/postgres/support/root username=scaivault password=-
  scaivault dynamic engines create support-db --plugin postgresql \
    --connection-url 'postgresql://{{username}}:{{password}}@db.internal:5432/support' \
    --root-secret infra/postgres/support/root --default-ttl 1h --max-ttl 24h`
	o.register(cmd)
	cmd.Flags().StringVar(&o.kind, "type", "", "kind of the source; database when absent")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace it if there is one")
	return cmd
}

func (a *app) enginesUpdate() *cobra.Command {
	var o engineFlags
	var force bool
	cmd := a.remote("update ENGINE [flags]", "change what is given", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := o.document(a)
			if err != nil {
				return err
			}
			patch, err := as[api.EnginePatch](d)
			if err != nil {
				return err
			}
			e, err := c.UpdateEngine(ctx, args[0], patch, force)
			if err != nil {
				return err
			}
			return a.showEngine(e)
		})
	o.register(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "to another server: revoke the living credentials on the old one first")
	return a.complete(cmd, engineNames)
}

func (a *app) enginesDelete() *cobra.Command {
	var force bool
	cmd := a.remote("delete ENGINE [--force]", "remove an engine", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			pending, err := c.DeleteEngine(ctx, args[0], force)
			if pending {
				a.say("%s goes when its last credential is dead; see: scaivault dynamic leases list --engine %s", args[0], args[0])
			}
			return err
		})
	cmd.Flags().BoolVar(&force, "force", false, "revoke its living credentials first")
	return a.complete(cmd, engineNames)
}

func (a *app) enginesHealth() *cobra.Command {
	return a.complete(a.remote("health ENGINE", "look at the source now", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			h, err := c.EngineHealth(ctx, args[0])
			if err != nil {
				return err
			}
			err = a.show(h, func(t *table) {
				t.field("status", h.Status)
				t.field("error", h.Error)
				t.field("latency", fmt.Sprintf("%d ms", h.LatencyMS))
				t.field("tls", h.TLS)
				t.field("clock offset", fmt.Sprintf("%d ms", h.ClockOffsetMS))
				t.field("missing grants", h.MissingGrants)
				for _, w := range h.Warnings {
					t.field("warning", w)
				}
				t.field("still to revoke", h.RevocationBacklog)
				t.field("overdue", fmt.Sprintf("%d s", h.OldestOverdueSeconds))
				t.field("orphans", h.Orphans)
				t.field("residues", h.Residues)
			})
			if err == nil && h.Status != api.EngineHealthy {
				return fmt.Errorf("look at %s: it is %s", args[0], h.Status)
			}
			return err
		}), engineNames)
}

func (a *app) enginesRotateRoot() *cobra.Command {
	return a.complete(a.remote("rotate-root ENGINE", "give the root credential a new password, at the source and in its secret", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.RotateRoot(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showEngine(e)
		}), engineNames)
}

func (a *app) enginesReconcile() *cobra.Command {
	var remove, restored, last bool
	cmd := a.remote("reconcile ENGINE [--last | --remove [--restored]]", "compare the accounts at the source with the leases", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if restored && !remove {
				return invalid("reconcile %s: --restored says what --remove may remove", args[0])
			}
			if last {
				return a.lastReconcile(ctx, c, args[0])
			}
			run := func() (api.ReconcileResult, error) { return c.Reconcile(ctx, args[0], remove) }
			if restored {
				run = func() (api.ReconcileResult, error) { return c.ReconcileRestored(ctx, args[0]) }
			}
			r, err := run()
			if err != nil {
				return err
			}
			return a.show(r, func(t *table) {
				t.field("accounts of ours", r.Accounts)
				t.field("without a lease", orNone(r.Orphans))
				t.field("removed", orNone(r.Removed))
				t.field("removed by a later run", orNone(r.Pending))
				t.field("leases without account", orNone(r.Missing))
				t.field("residues", orNone(r.Residues))
			})
		})
	cmd.Flags().BoolVar(&last, "last", false, "show what the last run found, by the schedule or by hand, and do not ask the source")
	cmd.Flags().BoolVar(&remove, "remove", false, "remove accounts of ours that no lease bears, and that a run ten minutes ago saw, too")
	cmd.Flags().BoolVar(&restored, "restored", false, "remove also what was made since the backup that this store was restored from; else that is only listed for a day")
	cmd.MarkFlagsMutuallyExclusive("last", "remove")
	return a.complete(cmd, engineNames)
}

func (a *app) lastReconcile(ctx context.Context, c *client.Client, engine string) error {
	r, err := c.LastReconcile(ctx, engine)
	if err != nil {
		return err
	}
	return a.show(r, func(t *table) {
		t.field("at", r.At)
		t.field("error", r.Error)
		t.field("accounts read", r.ListedAt)
		t.field("accounts of ours", r.Accounts)
		t.field("without a lease", r.OrphanCount)
		for _, o := range r.Orphans {
			t.field("since "+text(o.FirstSeen), o.Username)
		}
		t.field("removed", orNone(r.Removed))
		t.field("leases without account", orNone(r.Missing))
		if r.CounterDrift != 0 {
			t.field("counter of active leases off by", r.CounterDrift)
		}
		t.field("next", r.NextAt)
	})
}

func (a *app) enginesAbandon() *cobra.Command {
	var reason, confirm string
	cmd := a.remote("abandon ENGINE --reason TEXT --confirm ENGINE", "state that the source no longer exists", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if reason == "" || confirm != args[0] {
				return invalid("abandon %s: its credentials are given up without asking the source; say why with --reason, and --confirm %s", args[0], args[0])
			}
			r, err := c.Abandon(ctx, args[0], reason)
			if err != nil {
				return err
			}
			return a.show(r, func(t *table) {
				t.field("given up", r.Abandoned)
				for _, account := range r.Accounts {
					t.field("account", account)
				}
			})
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	cmd.Flags().StringVar(&confirm, "confirm", "", "the engine's name once more")
	return a.complete(cmd, engineNames)
}

func (a *app) enginesAcceptSource() *cobra.Command {
	return a.complete(a.remote("accept-source ENGINE", "state that the server now behind the engine is the right one", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			e, err := c.AcceptSource(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showEngine(e)
		}), engineNames)
}

func (a *app) showEngine(e api.Engine) error {
	return a.show(e, func(t *table) {
		t.field("name", e.Name)
		t.field("id", e.ID)
		t.field("type", e.Type)
		t.field("status", e.Status)
		t.field("config", string(e.Config))
		t.field("default ttl", e.DefaultTTL)
		t.field("max ttl", e.MaxTTL)
		if e.MaxLeases > 0 {
			t.field("max leases", e.MaxLeases)
		}
		t.field("metadata", e.Metadata)
		t.field("roles", e.RoleCount)
		t.field("living credentials", e.ActiveLeases)
	})
}

func put(d map[string]any, name, value string) {
	if value != "" {
		d[name] = value
	}
}

func orNone(names []string) any {
	if len(names) == 0 {
		return "none"
	}
	return names
}
