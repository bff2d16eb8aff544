package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) secretsCommand() *cobra.Command {
	return group("secrets", "read and write secrets",
		a.secretsRead(), a.secretsWrite(), a.secretsList(), a.secretsDelete(),
		a.secretsUndelete(), a.secretsVersions(), a.secretsMetadata(), a.secretsRotate(), a.secretsExpiring())
}

func (a *app) secretsRead() *cobra.Command {
	var version int
	var field string
	cmd := a.remote("read PATH [--version N] [--field NAME]", "print a secret", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			secret, err := c.ReadSecret(ctx, args[0], version)
			if err != nil {
				return err
			}
			if field != "" {
				value, ok := secret.Data[field]
				if !ok {
					return invalid("print field %s: the secret has only %s", field, strings.Join(slices.Sorted(maps.Keys(secret.Data)), ", "))
				}
				_, err := fmt.Fprintln(a.Out, plain(value))
				return err
			}
			return a.show(secret, func(t *table) {
				for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
					t.field(name, plain(secret.Data[name]))
				}
				if secret.Expired {
					a.say("this secret expired at %s", text(secret.ExpiresAt))
				}
			})
		})
	cmd.Flags().IntVar(&version, "version", 0, "an older version than the current one")
	cmd.Flags().StringVar(&field, "field", "", "print the value of this field and nothing else")
	return a.complete(cmd, secretPaths)
}

func (a *app) secretsWrite() *cobra.Command {
	var o secretFlags
	cmd := a.remote("write PATH NAME=VALUE... | @FILE", "store a new version of a secret", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) < 2 {
				return invalid("write a secret: give its path and what to store; see scaivault secrets write --help")
			}
			data, err := a.secretData(args[1:])
			if err != nil {
				return err
			}
			write, err := o.document(data)
			if err != nil {
				return err
			}
			secret, err := c.WriteSecret(ctx, args[0], write)
			if err != nil {
				return err
			}
			return a.show(secret, func(t *table) {
				t.field("path", secret.Path)
				t.field("version", secret.Version)
				t.field("expires", secret.ExpiresAt)
			})
		})
	cmd.Long = `Store a new version of a secret. The new version holds only what is given here.

  NAME=VALUE     a text
  NAME=-         from standard input; asked for, and not shown, at a terminal
  NAME=@FILE     the text of a file
  NAME:=JSON     any JSON value
  @FILE, -       a JSON object with all the data, from a file or standard input

What is on the command line can be seen by others on this machine and stays in the
shell's history: use the other forms for what is secret.`
	flags := cmd.Flags()
	flags.StringVar(&o.kind, "type", "", "kv, json, certificate, ssh_key or api_key")
	flags.StringVar(&o.description, "description", "", "what it is for")
	flags.StringVar(&o.owner, "owner", "", "who answers for it")
	flags.StringSliceVar(&o.tags, "tag", nil, "a tag; may be repeated")
	flags.StringVar(&o.expiresIn, "expires-in", "", "mark it as expired after this time, for instance 90d")
	flags.IntVar(&o.maxVersions, "max-versions", 0, "how many versions to keep")
	flags.IntVar(&o.cas, "cas", -1, "only if this version is the current one; 0: only if there is none")
	return a.complete(cmd, secretPaths)
}

type secretFlags struct {
	kind, description, owner, expiresIn string
	tags                                []string
	maxVersions, cas                    int
}

func (o secretFlags) document(data map[string]json.RawMessage) (api.SecretWrite, error) {
	w := api.SecretWrite{Data: data, SecretType: o.kind}
	if o.description != "" || o.owner != "" || len(o.tags) > 0 {
		w.Metadata = &api.SecretMetadata{Description: o.description, Owner: o.owner, Tags: o.tags}
	}
	expires, err := durationFlag("expires-in", o.expiresIn)
	if err != nil {
		return w, err
	}
	options := api.SecretOptions{ExpiresIn: expires}
	if o.maxVersions != 0 {
		options.MaxVersions = &o.maxVersions
	}
	if o.cas >= 0 {
		options.CAS = &o.cas
	}
	if options != (api.SecretOptions{}) {
		w.Options = &options
	}
	return w, nil
}

// secretData reads the arguments of write.
func (a *app) secretData(args []string) (map[string]json.RawMessage, error) {
	data := map[string]json.RawMessage{}
	if len(args) == 1 && (args[0] == "-" || strings.HasPrefix(args[0], "@")) {
		text, err := a.readFile(strings.TrimPrefix(args[0], "@"))
		if err != nil {
			return nil, err
		}
		if json.Unmarshal(text, &data) != nil {
			return nil, invalid("read the data: it is not a JSON object")
		}
		return data, nil
	}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, invalid("read the data: each of it is NAME=VALUE, NAME=-, NAME=@FILE or NAME:=JSON")
		}
		raw, err := a.secretValue(&name, value)
		if err != nil {
			return nil, err
		}
		if _, twice := data[name]; twice {
			return nil, invalid("read the data: %s is given twice", name)
		}
		data[name] = raw
	}
	return data, nil
}

// secretValue reads one value and takes the colon of NAME:=JSON off the name.
func (a *app) secretValue(name *string, value string) (json.RawMessage, error) {
	if bare, ok := strings.CutSuffix(*name, ":"); ok {
		*name = bare
		if !json.Valid([]byte(value)) {
			return nil, invalid("read %s: what follows := is not JSON", bare)
		}
		return json.RawMessage(value), nil
	}
	if value == "-" {
		line, err := a.readSecret(*name)
		if err != nil {
			return nil, err
		}
		value = line
	} else if file, ok := strings.CutPrefix(value, "@"); ok {
		text, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		value = string(text)
	}
	return json.Marshal(value)
}

func (a *app) secretsList() *cobra.Command {
	cmd := a.remote("list [PREFIX]", "list secrets, without their data", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) > 1 {
				return invalid("list secrets: give one prefix, or none")
			}
			items, err := client.Collect(c.Secrets(ctx, strings.Join(args, "")))
			if err != nil {
				return err
			}
			return showList(a, "secrets", items, []string{"path", "type", "version", "updated", "expires", "deleted"},
				func(s api.SecretListItem) []any {
					return []any{s.Path, s.SecretType, s.Version, s.UpdatedAt, s.ExpiresAt, s.DeletedAt}
				})
		})
	return a.complete(cmd, secretPaths)
}

func (a *app) secretsDelete() *cobra.Command {
	var hard bool
	cmd := a.remote("delete PATH [--hard]", "delete a secret; it can be brought back for a while", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if hard {
				if err := c.DestroySecret(ctx, args[0]); err != nil {
					return err
				}
				a.say("%s and all its versions are gone for good", args[0])
				return nil
			}
			deleted, err := c.DeleteSecret(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(deleted, func(t *table) {
				t.field("path", deleted.Path)
				t.field("recoverable until", deleted.RecoverableUntil)
			})
		})
	cmd.Flags().BoolVar(&hard, "hard", false, "with all versions, for good")
	return a.complete(cmd, secretPaths)
}

func (a *app) secretsUndelete() *cobra.Command {
	return a.remote("undelete PATH", "bring a deleted secret back", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			secret, err := c.UndeleteSecret(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showSecret(secret)
		})
}

func (a *app) secretsVersions() *cobra.Command {
	return a.complete(a.remote("versions PATH", "list the versions of a secret", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			versions, err := c.SecretVersions(ctx, args[0])
			if err != nil {
				return err
			}
			return showList(a, "versions", versions, []string{"version", "current", "created", "by", "readable until"},
				func(v api.SecretVersion) []any {
					return []any{v.Version, v.Current, v.CreatedAt, v.CreatedBy, v.GraceUntil}
				})
		}), secretPaths)
}

func (a *app) secretsMetadata() *cobra.Command {
	return a.complete(a.remote("metadata PATH", "print all of a secret but its data", 1,
		func(ctx context.Context, c *client.Client, args []string) error {
			secret, err := c.SecretMetadata(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showSecret(secret)
		}), secretPaths)
}

func (a *app) showSecret(s api.Secret) error {
	return a.show(s, func(t *table) {
		t.field("path", s.Path)
		t.field("type", s.SecretType)
		t.field("version", strconv.Itoa(s.Version))
		t.field("description", s.Metadata.Description)
		t.field("tags", s.Metadata.Tags)
		t.field("owner", s.Metadata.Owner)
		t.field("created", s.CreatedAt)
		t.field("updated", s.UpdatedAt)
		t.field("expires", s.ExpiresAt)
		if r := s.Rotation; r != nil {
			t.field("rotation policy", r.Policy)
			t.field("rotation", r.State)
			t.field("next rotation", r.NextRotationAt)
			t.field("last failure", r.LastError)
		}
	})
}

func (a *app) secretsRotate() *cobra.Command {
	var grace, generator string
	cmd := a.remote("rotate PATH [NAME=VALUE...] [--grace DURATION]", "replace a secret's value", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				return invalid("rotate a secret: give its path")
			}
			r := api.SecretRotate{}
			var err error
			if len(args) > 1 {
				if r.Data, err = a.secretData(args[1:]); err != nil {
					return err
				}
			}
			if r.GracePeriod, err = durationFlag("grace", grace); err != nil {
				return err
			}
			if generator != "" {
				if r.SecretPolicyID, err = secretPolicyID(ctx, c, generator); err != nil {
					return err
				}
			}
			secret, err := c.RotateSecret(ctx, args[0], r)
			if err != nil {
				return err
			}
			return a.showSecret(secret)
		})
	cmd.Long = `Replace a secret's value by a new version. Without data the value is generated: by
--secret-policy, else as the secret's rotation policy says, else as a random password.
The root secret of an engine is changed at the engine's source first. The data are given
as to scaivault secrets write.`
	cmd.Flags().StringVar(&grace, "grace", "", "how long the former version stays readable")
	cmd.Flags().StringVar(&generator, "secret-policy", "", "the secret policy that generates the value")
	return a.complete(cmd, secretPaths)
}

func (a *app) secretsExpiring() *cobra.Command {
	var days int
	cmd := a.remote("expiring [PREFIX] [--days N]", "list secrets that expire, or are to be rotated, soon", -1,
		func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) > 1 || days < 0 || days > 3650 {
				return invalid("list secrets: give one prefix, or none, and --days from 0 to 3650")
			}
			items, err := client.Collect(c.SecretsDue(ctx, strings.Join(args, ""), time.Now().AddDate(0, 0, days)))
			if err != nil {
				return err
			}
			return a.showDue(items)
		})
	cmd.Flags().IntVar(&days, "days", 30, "within this many days")
	return a.complete(cmd, secretPaths)
}

// plain is a JSON text as its own characters, and any other value as JSON.
func plain(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
