package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

func (a *app) clockCommand() *cobra.Command {
	show := a.remote("show", "tell the time by which leases live", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			shown, err := c.Clock(ctx)
			if err != nil {
				return err
			}
			return a.showClock(shown)
		})
	confirm := a.remote("confirm", "state that the store's clock is right", 0,
		func(ctx context.Context, c *client.Client, _ []string) error {
			shown, err := c.ConfirmClock(ctx)
			if err != nil {
				return err
			}
			return a.showClock(shown)
		})
	confirm.Long = `State that the store's clock, which jumped, is right. Every lease that ended by it is
revoked at once. Look at "scaivault clock show" first: held_leases tells how many.

A clock that went back cannot be confirmed while leases live: set it right instead, or
revoke all leases first.`
	return group("clock", "the time by which leases live", show, confirm)
}

func (a *app) showClock(c api.Clock) error {
	return a.show(c, func(t *table) {
		t.field("state", c.State)
		t.field("time", c.Time)
		t.field("store clock", c.StoreClock)
		t.field("skew seconds", c.SkewSeconds)
		t.field("held leases", c.HeldLeases)
	})
}
