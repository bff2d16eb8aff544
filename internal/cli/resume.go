package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) resumeCommand() *cobra.Command {
	var r api.ResumeRequest
	cmd := a.remote("resume --only-copy", "end the quarantine of a restored store", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			q, err := c.Resume(ctx, r)
			if err != nil {
				return err
			}
			return a.show(q, func(t *table) {
				t.field("quarantine", q.Active)
				t.field("was", q.Reason)
				t.field("since", q.Since)
				t.field("resumed", q.ResumedAt)
				t.field("by", q.ResumedBy)
			})
		})
	cmd.Long = `End the quarantine of a store that was restored from a backup, or was found to be an
older copy of itself. Until then it is read and verified only: nothing is issued,
renewed, revoked or removed, since a second copy of a store would kill the accounts
of the first.

Without --only-copy nothing is done, and the answer tells why the store is in
quarantine. Before you give it: stop every other copy of this store for good, end the
tokens and policies that should not have come back, and read what
"scaivault audit verify" says. Then what expired meanwhile is revoked at once.`
	cmd.Flags().BoolVar(&r.OnlyCopy, "only-copy", false, "no other copy of this store runs, or ever will")
	return cmd
}
