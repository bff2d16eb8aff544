// Package cli is the command line. It speaks to a server through package client,
// so that it can do nothing which a program could not; only server, dev,
// bootstrap, backup and restore work on a store of their own.
//
// The rules of its output: what was asked for goes to standard output, as a table
// or with --json as the document of the API; everything else goes to standard
// error, in lower case and behind "scaivault:". A credential is printed only
// where it was asked for by name.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/engine"
)

// Process is what a command sees of the world.
type Process struct {
	Version string   // of the program; what the Go tool knows when empty
	Args    []string // without the program's name
	Environ []string // NAME=value
	In      io.Reader
	Out     io.Writer
	Err     io.Writer
	// Engines are kinds of sources besides the built-in ones.
	Engines []engine.Type
}

// app is what the commands of one run share.
type app struct {
	Process
	json     bool
	settings settings // from flags; the environment and the file fill what is empty
}

// Main runs the command line and answers the exit code of the process.
func Main(ctx context.Context, p Process) int {
	a := &app{Process: p}
	root := a.root()
	root.SetArgs(p.Args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	err := root.ExecuteContext(ctx)
	var ended *childExit
	if errors.As(err, &ended) {
		return ended.code
	}
	if err != nil {
		a.fail(err)
	}
	return exitCode(err)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "scaivault",
		Short: "credentials made on demand, that die when their time is over",
		Long: `scaivault hands out credentials made on demand for one caller, and kills them at
their source when their time is over.

Where the server is and who is asking comes from SCAIVAULT_URL, SCAIVAULT_TOKEN
(or SCAIVAULT_CLIENT_ID and SCAIVAULT_CLIENT_SECRET) and SCAIVAULT_TENANT_ID, else
from ~/.scaivault/config.json, which "scaivault auth login" writes.

Exit codes: 0 done, 1 failed, 2 not authenticated, 3 not allowed, 4 not found,
5 the request or the command line is not valid. "run", "ssh" and "az" end with their command's.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(cmd, errors.New("there is no command "+quote(args[0])))
		}
		return cmd.Help()
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.settings.URL, "url", "", "address of the server")
	flags.StringVar(&a.settings.Tenant, "tenant", "", "tenant to work in")
	flags.BoolVar(&a.json, "json", false, "print the document of the API, for machines")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, err) })

	root.AddGroup(
		&cobra.Group{ID: "use", Title: "Use credentials and secrets:"},
		&cobra.Group{ID: "manage", Title: "Manage:"},
		&cobra.Group{ID: "host", Title: "On the server's host:"},
		&cobra.Group{ID: "target", Title: "On hosts that people log in to:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("use", a.runCommand(), a.sshCommand(), a.azCommand(), a.awsCommand(), a.gcpCommand(), a.dynamicCommand(), a.secretsCommand())
	add("manage", a.authCommand(), a.policiesCommand(), a.rotationCommand(), a.secretPoliciesCommand(), a.auditCommand(), a.clockCommand(), a.resumeCommand(), a.configCommand())
	add("host", a.serverCommand(), a.devCommand(), a.bootstrapCommand(), a.backupCommand(), a.restoreCommand(), a.customCommand())
	add("target", a.sshHostCommand())
	root.AddCommand(a.versionCommand(), a.openAPICommand())
	return root
}

// group is a command that only holds others. Cobra would print help and succeed
// for a misspelt one.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use + " COMMAND", Short: short, Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true}
	c.AddCommand(commands...)
	var known []string
	for _, command := range c.Commands() {
		known = append(known, command.Name())
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		what := "a command is missing"
		if len(args) > 0 {
			what = "there is no command " + quote(args[0])
		}
		return usage(cmd, fmt.Errorf("%s; there are %s", what, strings.Join(known, ", ")))
	}
	return c
}

// remote makes a command that works through the server. Its arguments are
// counted by n; -1 takes any number.
func (a *app) remote(use, short string, n int, run func(ctx context.Context, c *client.Client, args []string) error) *cobra.Command {
	return a.local(use, short, n, func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return run(ctx, c, args)
	})
}

// local makes a command that needs no server.
func (a *app) local(use, short string, n int, run func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		DisableFlagsInUseLine: true,
		Args: func(cmd *cobra.Command, args []string) error {
			check := cobra.ArbitraryArgs
			if n >= 0 {
				check = cobra.ExactArgs(n)
			}
			if err := check(cmd, args); err != nil {
				return usage(cmd, errors.New("the arguments do not fit"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) },
	}
}
