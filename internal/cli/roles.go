package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) rolesList() *cobra.Command {
	return a.complete(a.remote("list ENGINE", "list the roles of an engine", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			items, err := client.Collect(c.Roles(ctx, args[0]))
			if err != nil {
				return err
			}
			return showList(a, "roles", items, []string{"name", "leases", "default ttl", "max ttl", "updated"},
				func(r api.Role) []any { return []any{r.Name, r.ActiveLeases, r.DefaultTTL, r.MaxTTL, r.UpdatedAt} })
		}), engineNames)
}

func (a *app) rolesGet() *cobra.Command {
	return a.complete(a.remote("get ENGINE ROLE", "print a role", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			r, err := c.Role(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			return a.showRole(r)
		}), engineNames, roleNames)
}

// roleFlags build a role's document: the file first, then what is given one by one.
type roleFlags struct {
	file                                  string
	privileges, creation, revocation      []string
	renewal, memberOf, aclRules, other    []string
	mongodbRoles                          []string
	passwordForm, defaultTTL, maxTTL      string
	database                              string
	maxLeases                             int64
	runAsGroup, tieToToken, reallyReplace bool
}

func (o *roleFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&o.privileges, "privilege", nil, `what its credentials may do, for instance "SELECT ON ALL TABLES IN SCHEMA public", or for MySQL "SELECT ON app.*"; may be repeated`)
	flags.StringArrayVar(&o.memberOf, "member-of", nil, "a role of the database that its credentials are members of; may be repeated")
	flags.StringArrayVar(&o.creation, "creation-statement", nil, "instead of privileges: SQL with {{name}}, {{password}}, {{expiration}}; may be repeated")
	flags.StringArrayVar(&o.revocation, "revocation-statement", nil, "SQL in the place of the engine's own revocation; may be repeated")
	flags.StringArrayVar(&o.renewal, "renew-statement", nil, "SQL in the place of the engine's own renewal; may be repeated")
	flags.StringArrayVar(&o.aclRules, "acl-rule", nil, `for Redis: what its credentials may do, for instance "~app:*" and "+@read"; may be repeated`)
	flags.StringArrayVar(&o.mongodbRoles, "mongodb-role", nil, `for MongoDB: a role that its credentials have, as ROLE@DATABASE, for instance "read@app"; may be repeated`)
	flags.StringVar(&o.database, "database", "", "for MongoDB: the database in which its credentials are users; admin when absent")
	flags.StringVar(&o.passwordForm, "password-form", "", "plain: {{password}} is the password itself, and not what the source keeps of it")
	flags.BoolVar(&o.runAsGroup, "run-as-group", false, "what one credential makes belongs to all of the role")
	flags.BoolVar(&o.tieToToken, "tie-to-token", false, "a credential ends with the token that asked for it")
	flags.StringVar(&o.defaultTTL, "default-ttl", "", "life of a credential that asks for none")
	flags.StringVar(&o.maxTTL, "max-ttl", "", "longest life, renewals included")
	flags.Int64Var(&o.maxLeases, "max-leases", 0, "refuse more living credentials than this")
	flags.StringArrayVar(&o.other, "set", nil, "any other field as NAME=VALUE; may be repeated")
	flags.StringVarP(&o.file, "file", "f", "", "the role as JSON; - for standard input")
}

func (o *roleFlags) document(a *app) (client.Document, error) {
	d, err := a.document(o.file)
	if err != nil {
		return nil, err
	}
	for name, texts := range map[string][]string{
		"privileges": o.privileges, "member_of": o.memberOf, "creation_statements": o.creation,
		"revocation_statements": o.revocation, "renew_statements": o.renewal, "acl_rules": o.aclRules,
	} {
		if len(texts) > 0 {
			d[name] = texts
		}
	}
	if len(o.mongodbRoles) > 0 {
		if d["roles"], err = mongodbRoles(o.mongodbRoles); err != nil {
			return nil, err
		}
	}
	put(d, "database", o.database)
	put(d, "password_form", o.passwordForm)
	put(d, "default_ttl", o.defaultTTL)
	put(d, "max_ttl", o.maxTTL)
	if o.runAsGroup {
		d["run_as_group"] = true
	}
	if o.tieToToken {
		d["tie_to_token"] = true
	}
	if o.maxLeases != 0 {
		d["max_leases"] = o.maxLeases
	}
	return d, set(d, o.other)
}

// mongodbRoles reads ROLE@DATABASE. Names of databases hold no @.
func mongodbRoles(texts []string) ([]map[string]string, error) {
	var roles []map[string]string
	for _, text := range texts {
		at := strings.LastIndexByte(text, '@')
		if at < 1 || at == len(text)-1 {
			return nil, invalid("--mongodb-role: %q is not ROLE@DATABASE", text)
		}
		roles = append(roles, map[string]string{"role": text[:at], "db": text[at+1:]})
	}
	return roles, nil
}

func (a *app) rolesCreate() *cobra.Command {
	var o roleFlags
	cmd := a.remote("create ENGINE ROLE --privilege TEXT [flags]", "make a role", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := o.document(a)
			if err != nil {
				return err
			}
			var r api.Role
			if o.reallyReplace {
				delete(d, "name")
				r, err = c.ReplaceRole(ctx, args[0], args[1], d)
			} else {
				d["name"] = args[1]
				r, err = c.CreateRole(ctx, args[0], d)
			}
			if err != nil {
				return err
			}
			return a.showRole(r)
		})
	cmd.Example = `  scaivault dynamic roles create support-db readonly --default-ttl 1h --max-ttl 8h \
    --privilege 'USAGE ON SCHEMA public' --privilege 'SELECT ON ALL TABLES IN SCHEMA public'`
	o.register(cmd)
	cmd.Flags().BoolVar(&o.reallyReplace, "replace", false, "replace it if there is one")
	return a.complete(cmd, engineNames)
}

func (a *app) rolesUpdate() *cobra.Command {
	var o roleFlags
	cmd := a.remote("update ENGINE ROLE [flags]", "change what is given", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			d, err := o.document(a)
			if err != nil {
				return err
			}
			r, err := c.UpdateRole(ctx, args[0], args[1], d)
			if err != nil {
				return err
			}
			return a.showRole(r)
		})
	o.register(cmd)
	return a.complete(cmd, engineNames, roleNames)
}

func (a *app) rolesDelete() *cobra.Command {
	var force bool
	cmd := a.remote("delete ENGINE ROLE [--force]", "remove a role", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			pending, err := c.DeleteRole(ctx, args[0], args[1], force)
			if pending {
				a.say("%s/%s goes when its last credential is dead; see: scaivault dynamic leases list --engine %s --role %s", args[0], args[1], args[0], args[1])
			}
			return err
		})
	cmd.Flags().BoolVar(&force, "force", false, "revoke its living credentials first")
	return a.complete(cmd, engineNames, roleNames)
}

func (a *app) rolesTest() *cobra.Command {
	return a.complete(a.remote("test ENGINE ROLE", "issue, verify and revoke one credential, and tell each step", 2,
		func(ctx context.Context, c *client.Client, args []string) error {
			test, err := c.TestRole(ctx, args[0], args[1])
			if err != nil {
				return err
			}
			err = a.show(test, func(t *table) {
				t.head("step", "ok", "time", "error")
				for _, s := range test.Steps {
					t.row(s.Step, s.OK, fmt.Sprintf("%d ms", s.DurationMS), s.Error)
				}
			})
			if err == nil && !test.OK {
				return fmt.Errorf("test %s/%s: it does not work", args[0], args[1])
			}
			return err
		}), engineNames, roleNames)
}

func (a *app) showRole(r api.Role) error {
	for _, w := range r.Warnings {
		a.say("warning: %s", w)
	}
	return a.show(r, func(t *table) {
		t.field("engine", r.Engine)
		t.field("name", r.Name)
		t.field("default ttl", r.DefaultTTL)
		t.field("max ttl", r.MaxTTL)
		for _, name := range slices.Sorted(maps.Keys(r.Spec)) {
			for _, value := range lines(r.Spec[name]) {
				t.field(strings.ReplaceAll(name, "_", " "), value)
			}
		}
		t.field("metadata", r.Metadata)
		t.field("living credentials", r.ActiveLeases)
	})
}

// lines gives each text of a JSON array, and any other value by itself.
func lines(raw json.RawMessage) []string {
	var texts []string
	if json.Unmarshal(raw, &texts) == nil {
		return texts
	}
	return []string{plain(raw)}
}
