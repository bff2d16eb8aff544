package postgresql

import (
	"context"
	"sync/atomic"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

// makerPrefix begins the names of makers: roles with CREATEROLE, as which root
// makes accounts. On 16 and later the cost of a creation grows with the number
// of live roles that its creator made, so the accounts are spread over makers,
// where no superuser is to be had who could install the functions.
const makerPrefix = "sv_maker_"

// makerTurn is how many accounts a maker makes before the next one has its
// turn, each change costing new connections.
const makerTurn = 256

// makerWheel counts the turns.
type makerWheel struct{ drawn atomic.Uint64 }

// makers are those to use; none where the functions are installed.
func (e *Engine) makers() []string {
	if e.traits.functions {
		return nil
	}
	return e.traits.makers
}

// nextMaker is who makes the next account; empty for root itself.
func (e *Engine) nextMaker() string {
	makers := e.makers()
	if len(makers) == 0 {
		return ""
	}
	return makers[e.wheel.drawn.Add(1)/makerTurn%uint64(len(makers))]
}

// groupOwner is as whom groups are made and dropped: the first maker, else root.
func (e *Engine) groupOwner() place {
	at := e.main()
	if makers := e.makers(); len(makers) > 0 {
		at.maker = makers[0]
	}
	return at
}

// makeMakersGroup makes a group as the first maker and lets every maker make
// members of it. Rights are given to it by root, which has them.
func (e *Engine) makeMakersGroup(ctx context.Context, name string) error {
	return e.pool.with(ctx, issuing, e.groupOwner(), func(c *conn) error {
		answer, err := c.guarded(ctx, makingGroup, []fence{e.sameServer()}, message(
			"SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = "+statement.QuoteLiteral(name),
			`SELECT k.rolname FROM pg_auth_members m JOIN pg_roles k ON k.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
				WHERE m.admin_option AND g.rolname = `+statement.QuoteLiteral(name)))
		if err != nil {
			return err
		}
		var statements []string
		switch found := answer.rows(0); {
		case len(found) == 0:
			statements = e.rights.createGroup(name, e.groupMark(name))
		case found[0][0] != e.groupMark(name):
			return engine.Invalid("a role named %s exists at the source and is not ours: rename or drop it", statement.QuoteIdent(name))
		}
		able := map[string]bool{c.maker: true} // its creator
		for _, row := range answer.rows(1) {
			able[row[0]] = true
		}
		for _, maker := range e.makers() {
			if !able[maker] {
				statements = append(statements, "GRANT "+statement.QuoteIdent(name)+" TO "+statement.QuoteIdent(maker)+" WITH ADMIN OPTION")
			}
		}
		if len(statements) == 0 {
			return nil
		}
		_, err = c.guarded(ctx, makingGroup, []fence{e.sameServer()}, message(statements...))
		return err
	})
}
