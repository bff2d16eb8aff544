package cli

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "who did what", a.auditLogs(), a.auditVerify(), a.auditSummary())
}

func (a *app) auditLogs() *cobra.Command {
	var f client.AuditFilter
	var from, to string
	var failed bool
	var limit int
	cmd := a.remote("logs [flags]", "print entries, newest first", 0,
		func(ctx context.Context, c *client.Client, _ []string) (err error) {
			if f.From, err = timeFlag("from", from, ago); err != nil {
				return err
			}
			if f.To, err = timeFlag("to", to, ago); err != nil {
				return err
			}
			if failed {
				success := false
				f.Success = &success
			}
			items := []api.AuditEntry{}
			for entry, err := range c.AuditLogs(ctx, f) {
				if err != nil {
					return err
				}
				if items = append(items, entry); len(items) == limit {
					break
				}
			}
			return showList(a, "logs", items, []string{"time", "action", "ok", "identity", "path", "from", "details"},
				func(e api.AuditEntry) []any {
					return []any{e.Timestamp, e.Action, e.Success, e.IdentityID, e.SecretPath, e.SourceIP, details(e.ExtraData)}
				})
		})
	flags := cmd.Flags()
	flags.StringVar(&from, "from", "", "since this time, or this long ago, for instance 1h")
	flags.StringVar(&to, "to", "", "until this time, or this long ago")
	flags.StringVar(&f.Action, "action", "", "for instance dynamic_generate")
	flags.StringVar(&f.IdentityID, "identity", "", "of this identity")
	flags.StringVar(&f.PathPrefix, "path", "", "on paths that begin so")
	flags.StringVar(&f.SourceIP, "ip", "", "from this address")
	flags.StringVar(&f.RequestID, "request", "", "of this request, as an error names it")
	flags.BoolVar(&failed, "failed", false, "only what was refused or failed")
	flags.IntVar(&limit, "limit", 50, "print no more than this; 0 for all")
	return cmd
}

func (a *app) auditVerify() *cobra.Command {
	return a.remote("verify", "recompute the chains of entries", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := c.VerifyAudit(ctx)
			if err != nil {
				return err
			}
			err = a.show(v, func(t *table) {
				t.head("node", "entries", "ok", "first broken", "problem")
				for _, chain := range v.Chains {
					t.row(chain.Node, chain.Entries, chain.OK, chain.FirstBroken, chain.Problem)
				}
			})
			if err == nil && !v.OK {
				return errors.New("verify the audit trail: it was changed or lost in part")
			}
			return err
		})
}

func (a *app) auditSummary() *cobra.Command {
	var from, to string
	cmd := a.remote("summary [--from 24h]", "count entries by action", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			start, err := timeFlag("from", from, ago)
			if err != nil {
				return err
			}
			end, err := timeFlag("to", to, ago)
			if err != nil {
				return err
			}
			s, err := c.AuditSummary(ctx, start, end)
			if err != nil {
				return err
			}
			return a.show(s, func(t *table) {
				t.head("action", "ok", "failed")
				for _, line := range s.Actions {
					t.row(line.Action, line.OK, line.Failed)
				}
			})
		})
	cmd.Flags().StringVar(&from, "from", "", "since this time, or this long ago")
	cmd.Flags().StringVar(&to, "to", "", "until this time, or this long ago")
	return cmd
}

func details(extra map[string]any) string {
	if len(extra) == 0 {
		return ""
	}
	b, err := json.Marshal(extra)
	if err != nil {
		return ""
	}
	return string(b)
}
