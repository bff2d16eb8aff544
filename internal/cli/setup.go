package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/engine/postgresql"
)

func (a *app) enginesSetupSQL() *cobra.Command {
	var s postgresql.Setup
	cmd := a.local("setup-sql postgresql --root ROLE --database NAME", "print the SQL that prepares a source for ScaiVault", 1,
		func(_ context.Context, args []string) error {
			if args[0] != "postgresql" {
				return invalid("print the set-up: %q needs none, or is not known; there is: postgresql", args[0])
			}
			sql, err := postgresql.SetupSQL(s)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(a.Out, sql)
			return err
		})
	cmd.Long = `Print the SQL that an administrator runs once, as a superuser connected to the
database, so that ScaiVault can make users there. It can be run again.

Two ways: "functions" installs functions that make and drop users, and only those
of ScaiVault; its root needs no other right, and the cost of a user does not grow
with their number. "createrole" needs no functions and gives root CREATEROLE.`
	cmd.Example = `  scaivault dynamic engines setup-sql postgresql --root scaivault --database support \
    --owner app | psql -d support`
	flags := cmd.Flags()
	flags.StringVar(&s.Root, "root", "scaivault", "the role that ScaiVault logs in as")
	flags.StringVar(&s.Database, "database", "", "the database that the connection URL names")
	flags.StringArrayVar(&s.Schemas, "schema", nil, "a schema whose tables roles may be given rights on; public when absent; may be repeated")
	flags.StringVar(&s.Owner, "owner", "", "who owns these tables, so that rights on later tables are included")
	flags.StringSliceVar(&s.Rights, "right", nil, "rights on tables that roles may give; SELECT,INSERT,UPDATE,DELETE when absent")
	flags.StringVar(&s.Way, "way", postgresql.SetupDefiner, postgresql.SetupDefiner+" or "+postgresql.SetupCreateRole)
	cmd.ValidArgs = []string{"postgresql"}
	return cmd
}
