package postgresql

import (
	"context"
	"slices"
	"strings"
)

// droppedRole is an account that is gone. Its sessions bear the object id, which an account that is made
// now does not have.
type droppedRole struct {
	oid  uint32
	name string // for the log
}

// lookLater has a dropped account looked at once more; one that was not found has no sessions.
func (e *Engine) lookLater(v *victim) {
	if v.oid != 0 {
		e.late.Add(droppedRole{v.oid, v.recipe.Username})
	}
}

// lookLate ends sessions of accounts that are gone.
func (e *Engine) lookLate(roles []droppedRole) (again []droppedRole) {
	list := make([]string, len(roles))
	for i, r := range roles {
		list[i] = oidText(r.oid)
	}
	ctx, cancel := e.operation(context.Background())
	defer cancel()
	err := e.inMain(ctx, e.main(), func(c *conn) error {
		answer, err := c.guarded(ctx, "look for late sessions", nil, "SELECT DISTINCT usesysid FROM pg_stat_activity WHERE usesysid IN ("+strings.Join(list, ",")+")")
		if err != nil {
			return err
		}
		for _, r := range roles {
			if !slices.ContainsFunc(answer.last(), func(row []string) bool { return row[0] == oidText(r.oid) }) {
				continue
			}
			e.log.Error("a session outlived its dropped account: a login was under way", "username", r.name)
			if err := e.endSessions(ctx, c, r.oid, e.traits.endRight()); err != nil {
				e.undead.Add(1)
				again = append(again, r)
			}
		}
		return nil
	})
	if err != nil {
		return roles
	}
	return again
}
