package main

import (
	"context"
	"fmt"

	"github.com/scaivault/scaivault/engine/postgresql"
)

// growth measures whether issuing grows slower while many leases live: before,
// with them, and after they are gone, so that drift cancels.
func (b *bench) growth(ctx context.Context, r *rig) error {
	n, rounds := 5000, b.rounds()
	if b.quick {
		n = 1000
	}
	speed := func() (comparison, error) {
		direct, ours := r.turns(8, b.turn()/2, usual, 4096)
		return warm(ctx, rounds, direct, ours)
	}
	b.say("PostgreSQL %s: issuing with 0 live leases", r.title())
	empty, err := speed()
	if err != nil {
		return err
	}
	b.say("PostgreSQL %s: issuing with %d live leases", r.title(), n)
	if _, err := r.stock(ctx, fast, filler, n); err != nil {
		return err
	}
	full, err := speed()
	if err != nil {
		return err
	}
	aim := 0.0
	if r.way == postgresql.SetupDefiner {
		aim = 0.9
		if err := r.clear(ctx, fast, filler); err != nil {
			return err
		}
		again, err := speed()
		if err != nil {
			return err
		}
		empty.direct, empty.ours = append(empty.direct, again.direct...), append(empty.ours, again.ours...)
	}
	b.report.age(fmt.Sprintf("credentials/s, 8 callers, 4096 rounds: 0 live leases, then %d", n), r.title(), empty, full, aim)
	return nil
}

// cycles measures whether what came and went leaves anything behind.
func (b *bench) cycles(ctx context.Context, r *rig) error {
	n := 5000
	if b.quick {
		n = 1000
	}
	speed := func() (comparison, error) {
		direct, ours := r.turns(8, b.turn()/2, usual, 4096)
		return warm(ctx, b.rounds(), direct, ours)
	}
	aclBefore, err := r.aclSize(ctx)
	if err != nil {
		return err
	}
	b.say("PostgreSQL %s: issuing before %d cycles", r.title(), n)
	before, err := speed()
	if err != nil {
		return err
	}
	b.say("PostgreSQL %s: %d cycles of issue and revoke", r.title(), n)
	if err := r.cycle(ctx, n); err != nil {
		return err
	}
	users, err := r.accounts(ctx)
	if err != nil {
		return err
	}
	aclAfter, err := r.aclSize(ctx)
	if err != nil {
		return err
	}
	after, err := speed()
	if err != nil {
		return err
	}
	b.report.age(fmt.Sprintf("credentials/s, 8 callers, 4096 rounds: before and after %d cycles of issue and revoke", n), r.title(), before, after, 0.9)
	b.report.figure("age", fmt.Sprintf("users left on %s after the cycles", r.server.Version), fmt.Sprint(users), "0")
	b.report.figure("age", "characters of access lists before and after them", aclBefore+" and "+aclAfter, "equal")
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
