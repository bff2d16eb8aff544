package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
)

// azOptions are the flags of az.
type azOptions struct {
	ttl             string
	exec            bool
	noSubscriptions bool
}

func (a *app) azCommand() *cobra.Command {
	var o azOptions
	cmd := a.local("az ENGINE/ROLE ARGUMENT...", "run the Azure CLI with a login of its own", -1,
		func(ctx context.Context, args []string) error {
			if len(args) < 2 {
				return invalid("az: write: scaivault az ENGINE/ROLE ARGUMENT...")
			}
			c, err := a.client()
			if err != nil {
				return err
			}
			return a.az(ctx, c, o, args[0], args[1:])
		})
	cmd.Long = `Make a credential of Azure, log the Azure CLI in with it in a folder of its own, run
az, and revoke the credential when az has ended, or when it is told to end. az's exit
code is passed on, and signals are passed to it. Your own login is not touched.

The Azure CLI takes no credential from its environment and knows no program that gives
it one: it must be logged in. The secret goes to az login through its standard input,
and stands nowhere in a list of processes. az keeps it in the folder, which only you can
enter (AZURE_CONFIG_DIR), and which is removed at the end. The cloud, the subscription
and the defaults that you have set hold there, too, and your extensions.

With --exec another program is run in the place of az: it and what it starts find az
logged in, such as a script, or a library that asks az for tokens.

A role that was given just now may not be known everywhere at Azure: a subscription is
waited for, up to two minutes. A role that gives none, such as one of groups only,
needs --allow-no-subscriptions.

The credential lives for the role's default, or for --ttl, and cannot be renewed. The
arguments behind ENGINE/ROLE are for az.`
	cmd.Example = `  scaivault az cloud/reader group list --output table
  scaivault az --exec cloud/deploy ./deploy.sh production`
	flags := cmd.Flags()
	flags.StringVar(&o.ttl, "ttl", "", "its life; the role's default when absent")
	flags.BoolVar(&o.exec, "exec", false, "run a program, the first argument, in the place of az")
	flags.BoolVar(&o.noSubscriptions, "allow-no-subscriptions", false, "do not wait for a subscription")
	flags.SetInterspersed(false) // what follows ENGINE/ROLE is az's
	return a.complete(cmd, credNames)
}

// az is the life of one login: credential, folder, login, az, revocation. From its first line on no signal
// that can be caught ends the process before the credential is given back. There is no logout: it would do
// no more than delete files, and the folder is deleted.
func (a *app) az(ctx context.Context, c *client.Client, o azOptions, creds string, args []string) error {
	signals, release := catchSignals()
	defer release()

	path, err := a.find("az")
	if err != nil {
		return err
	}
	program := path
	if !o.exec {
		args = slices.Concat([]string{"az"}, args)
	} else if program, err = a.find(args[0]); err != nil {
		return err
	}
	lease, err := obtain(ctx, c, creds, o.ttl, client.GenerateOptions{Metadata: map[string]string{"via": "scaivault az"}})
	if err != nil {
		return err
	}
	defer a.giveBack(lease)

	login, err := a.newAzLogin(path, lease)
	if err != nil {
		return err
	}
	defer login.close()
	if err := login.untilUsable(signals, !o.noSubscriptions); err != nil {
		return err
	}
	go a.keepAlive(ctx, lease)
	return a.attend(signals, a.child(program, args, login.environ))
}
