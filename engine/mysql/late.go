package mysql

import (
	"context"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// lookLate ends sessions of accounts that are gone; names are never used again.
func (e *Engine) lookLate(names []string) (again []string) {
	for chunk := range slices.Chunk(names, batchSize) {
		victims := make([]*victim, len(chunk))
		for i, name := range chunk {
			victims[i] = &victim{recipe: recipe{Username: name}}
		}
		if err := e.endLate(victims); err != nil {
			again = append(again, chunk...)
		}
	}
	return again
}

func (e *Engine) endLate(victims []*victim) error {
	ctx, cancel := e.operation(context.Background())
	defer cancel()
	return e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		b := batch{e: e, c: c, victims: victims}
		late, err := b.sessions(ctx)
		if err != nil {
			return err
		}
		for _, s := range late {
			e.log.Error("a session outlived its dropped account: a login was under way", "username", s[1])
		}
		if err := b.endSessions(ctx, late); err != nil {
			return err
		}
		for _, v := range victims {
			if v.err != nil {
				return v.err
			}
		}
		return nil
	})
}
