package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/scaivault/scaivault/engine/postgresql"
)

// growth measures whether issuing is slower where many leases live: on two
// equal sources in turn, of which one has them, so that drift cancels.
func (b *bench) growth(ctx context.Context, young, old *rig) error {
	n := 5000
	if b.quick {
		n = 1000
	}
	b.say("PostgreSQL %s: %d live leases", old.title(), n)
	if _, err := old.stock(ctx, fast, filler, n); err != nil {
		return err
	}
	what := fmt.Sprintf("credentials/s, 8 callers, 4096 rounds, with 0 and with %d live leases", n)
	aim := 0.0
	if old.way == postgresql.SetupDefiner {
		aim = 0.9
	}
	return b.twins(ctx, young, old, what, aim)
}

// cycles measures whether what came and went leaves anything behind: on two
// equal sources in turn, of which one has seen much.
func (b *bench) cycles(ctx context.Context, young, old *rig) error {
	n := 5000
	if b.quick {
		n = 1000
	}
	before, err := old.aclSize(ctx)
	if err != nil {
		return err
	}
	b.say("PostgreSQL %s: %d cycles of issue and revoke", old.title(), n)
	if err := old.cycle(ctx, n); err != nil {
		return err
	}
	users, err := old.accounts(ctx)
	if err != nil {
		return err
	}
	after, err := old.aclSize(ctx)
	if err != nil {
		return err
	}
	b.report.figure("age", fmt.Sprintf("users left on %s after %d cycles of issue and revoke", old.server.Version, n), fmt.Sprint(users), "0")
	b.report.figure("age", "characters of all access lists before and after them", before+" and "+after, "equal")
	return b.twins(ctx, young, old, fmt.Sprintf("credentials/s, 8 callers, 4096 rounds, after 0 and after %d cycles of issue and revoke", n), 0.9)
}

// twins compares two rigs, for the server and for the direct client.
func (b *bench) twins(ctx context.Context, young, old *rig, what string, aim float64) error {
	b.say("PostgreSQL %s: %s", old.title(), what)
	youngDirect, youngOurs := young.turns(8, b.turn()/2, usual, 4096)
	oldDirect, oldOurs := old.turns(8, b.turn()/2, usual, 4096)
	ours, err := warm(ctx, b.rounds(), youngOurs, oldOurs)
	if err != nil {
		return err
	}
	direct, err := warm(ctx, 3, youngDirect, oldDirect)
	if err != nil {
		return err
	}
	b.report.age(what, old.title(), ours, direct, aim)
	return nil
}

// cycle issues and revokes n times.
func (r *rig) cycle(ctx context.Context, n int) error {
	_, err := times(ctx, 8, n, func(ctx context.Context, caller int) error {
		id, err := r.one(ctx, caller, usual, member)
		if err != nil {
			return err
		}
		return r.end(ctx, caller, id)
	})
	return err
}

// twoRigs runs a section that needs two of them.
func (b *bench) twoRigs(f func(context.Context, *rig, *rig) error) func(context.Context, *rig) error {
	return func(ctx context.Context, old *rig) error {
		young, err := b.newRig(ctx, old.server.Major, old.way, old.home.kind)
		if err != nil {
			return err
		}
		return errors.Join(f(ctx, young, old), young.close())
	}
}
