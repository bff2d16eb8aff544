package cli

import (
	"context"
	"encoding/json"

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
			if q.ResumedAt != nil {
				a.adviseRotation(ctx, c)
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

// adviseRotation names the CAs of which revoked certificates may be good again: an older copy of a store
// does not know what was revoked, or made, after it.
func (a *app) adviseRotation(ctx context.Context, c *client.Client) {
	for e, err := range c.Engines(ctx) {
		if err != nil {
			a.say("the ssh engines could not be listed (%v): rotate the key of each CA as for a key in the wrong hands, where a certificate that was revoked must stay so", err)
			return
		}
		var config struct {
			Mode string `json:"mode"`
		}
		if e.Type == "ssh" && json.Unmarshal(e.Config, &config) == nil && config.Mode != "otp" {
			a.say("engine %s: certificates that were revoked after this copy was made are good again to their end: rotate its CA as for a key in the wrong hands (docs/engines/ssh.md)", e.Name)
		}
	}
}
