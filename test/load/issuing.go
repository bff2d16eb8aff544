package main

import (
	"context"
	"fmt"
)

// issue measures how fast credentials are made.
func (b *bench) issue(ctx context.Context, r *rig) error {
	rows := []struct {
		callers    int
		engine     string
		iterations int
		aim        float64
	}{
		{1, usual, 4096, 0.6}, {8, usual, 4096, 0.8}, {32, usual, 4096, 0.85}, {32, fast, 1, 0.3},
	}
	for _, row := range rows {
		what := fmt.Sprintf("credentials/s, %d callers, %d rounds", row.callers, row.iterations)
		if !b.rows.MatchString(what) {
			continue
		}
		b.say("PostgreSQL %s: %s", r.title(), what)
		direct, ours := r.turns(row.callers, b.turn(), row.engine, row.iterations)
		c, err := warm(ctx, b.rounds(), direct, ours)
		if err != nil {
			return err
		}
		b.report.rate(what, r.title(), c, row.aim)
		b.report.figure("process", fmt.Sprintf("processor time of the server per credential, %d callers, %d rounds, %s", row.callers, row.iterations, r.title()),
			fmt.Sprintf("%.0f µs", medianOf(c.ours, cpu)), "")
		if row.callers == 32 && row.engine == usual {
			b.report.delay("p99 in ms of the row above", r.title(), c, 1.3)
		}
	}
	memory, err := r.vault.resident()
	b.report.figure("process", "resident memory after the load on "+r.server.Version, fmt.Sprintf("%.0f MiB", memory), "")
	return err
}
