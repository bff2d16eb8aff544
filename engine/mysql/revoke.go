package mysql

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// batchSize is how many accounts are killed together.
const batchSize = 100

const revokingAccount = "revoke a credential"

// victim is one account on its way out, with all its entries.
type victim struct {
	recipe  recipe
	entries []account
	foreign bool // an account of the name is there and is not ours

	outcome engine.Outcome
	err     error
}

// Revoke implements engine.Engine.
func (e *Engine) Revoke(ctx context.Context, r engine.Recipe) (engine.Outcome, error) {
	result := e.RevokeBatch(ctx, []engine.Recipe{r})[0]
	return result.Outcome, result.Err
}

// RevokeBatch implements engine.BatchRevoker.
func (e *Engine) RevokeBatch(ctx context.Context, rs []engine.Recipe) []engine.Result {
	recipes := map[string]recipe{}
	var groups []string
	results := engine.RevokeEach(rs, batchSize, func(raw engine.Recipe) (string, error) {
		r, err := e.readRecipe(raw)
		recipes[r.Username] = r
		return r.Username, err
	}, func(names []string) map[string]engine.Result {
		ctx, cancel := e.operation(ctx)
		defer cancel()
		victims, ended := make([]*victim, len(names)), map[string]engine.Result{}
		for i, name := range names {
			victims[i] = &victim{recipe: recipes[name]}
		}
		e.end(ctx, victims)
		for _, v := range victims {
			ended[v.recipe.Username] = engine.Result{Outcome: v.outcome, Err: v.err}
			if group := v.recipe.Group; v.err == nil && group != "" && !slices.Contains(groups, group) {
				groups = append(groups, group)
			}
		}
		return ended
	})
	failpoint.Hit(failpoint.R3)
	ctx, cancel := e.operation(ctx)
	defer cancel()
	e.retireGroups(ctx, groups)
	return results
}

// end kills accounts. The order is the law L2: no login first; then no session;
// then no account; then, once more, no session. What cannot be done for one of them
// is its own error; what cannot be done at all is that of those not done yet.
func (e *Engine) end(ctx context.Context, victims []*victim) {
	err := e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		b := batch{e: e, c: c, victims: victims}
		return b.run(ctx)
	})
	if err != nil {
		for _, v := range victims {
			if v.err == nil {
				v.err = plain(err)
			}
		}
	}
}

// batch is accounts that are killed together, on one connection. It can be repeated
// after a failure.
type batch struct {
	e       *Engine
	c       *conn
	victims []*victim
}

func (b batch) run(ctx context.Context) error {
	if err := b.find(ctx); err != nil {
		return err
	}
	sessions, err := b.lock(ctx)
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.Disabled)
	if err := b.endSessions(ctx, sessions); err != nil {
		return err
	}
	if err := b.ownStatements(ctx); err != nil {
		return err
	}
	if sessions, err = b.drop(ctx); err != nil {
		return err
	}
	return b.endSessions(ctx, sessions)
}

// live are those that still have to die: neither failed nor somebody else's.
func (b batch) live() []*victim {
	return slices.DeleteFunc(slices.Clone(b.victims), func(v *victim) bool { return v.foreign || v.err != nil })
}

func namesOf(victims []*victim) []string {
	names := make([]string, len(victims))
	for i, v := range victims {
		names[i] = v.recipe.Username
	}
	return names
}

// find looks the accounts up and tells which are ours (law L11).
func (b batch) find(ctx context.Context) error {
	found, err := b.e.accounts(ctx, b.c, revokingAccount, namesOf(b.victims)...)
	if err != nil {
		return err
	}
	for _, v := range b.victims {
		v.entries, v.foreign = found[v.recipe.Username], false
		if len(v.entries) > 0 && !b.e.ours(v.entries, v.recipe.Unmarked) {
			b.e.log.Warn("an account that bears the name of a credential is not ours: left alone", "username", v.recipe.Username)
			v.foreign = true
		}
	}
	return nil
}

// specs are all entries of the accounts that are there.
func (b batch) specs() []string {
	var specs []string
	for _, v := range b.live() {
		for _, a := range v.entries {
			specs = append(specs, a.spec())
		}
	}
	return specs
}

// lock takes the login away: from here on no session begins. It answers those that
// there are.
func (b batch) lock(ctx context.Context) (sessions [][]string, err error) {
	live := b.live()
	if len(live) == 0 {
		return nil, nil
	}
	sql := sessionQuery(live)
	if specs := b.specs(); len(specs) > 0 {
		sql = message("ALTER USER IF EXISTS "+strings.Join(specs, ", ")+" ACCOUNT LOCK", sql)
	}
	answer, err := b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, sql)
	return answer.last(), err
}

// sessionQuery selects rows of id and user. The servers go on to show a session by
// its name when the account is gone.
func sessionQuery(victims []*victim) string {
	return "SELECT ID, USER FROM information_schema.PROCESSLIST WHERE " + named(namesOf(victims)...)
}

// sessionPatience is how long sessions that were ended get to be gone: one may have
// much to roll back.
const sessionPatience = 5 * time.Second

// endSessions kills sessions and sees all of them gone. That the server takes a KILL
// proves nothing: MariaDB answers OK to a root that may kill nobody.
func (b batch) endSessions(ctx context.Context, sessions [][]string) error {
	deadline := time.Now().Add(sessionPatience)
	for pause := time.Millisecond; len(sessions) > 0; pause = min(2*pause, 100*time.Millisecond) {
		if time.Now().After(deadline) {
			b.giveUp(sessions)
			return nil
		}
		for _, s := range sessions {
			if err := b.c.kill(ctx, s[0]); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return busy(revokingAccount+": its sessions were told to end and are still there", ctx.Err())
		case <-time.After(pause):
		}
		var err error
		if sessions, err = b.sessions(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sessions are those that there are now.
func (b batch) sessions(ctx context.Context) ([][]string, error) {
	live := b.live()
	if len(live) == 0 {
		return nil, nil
	}
	answer, err := b.c.guarded(ctx, revokingAccount, nil, sessionQuery(live))
	return answer.last(), err
}

// giveUp makes what still has sessions fail, and lets the others go on.
func (b batch) giveUp(sessions [][]string) {
	for _, v := range b.victims {
		if slices.ContainsFunc(sessions, func(s []string) bool { return s[1] == v.recipe.Username }) {
			v.err = busy(revokingAccount+": its sessions were told to end and are still there", nil)
		}
	}
}

// kill ends a session; one that is gone is ended.
func (c *conn) kill(ctx context.Context, id string) error {
	_, err := c.guarded(ctx, "end a session", nil, "KILL CONNECTION "+id)
	if code(err) == codeUnknownThread {
		return nil
	}
	return err
}

// ownStatements runs the operator's revocation statements. The account is dropped
// all the same; where they fail it is dropped without them.
func (b batch) ownStatements(ctx context.Context) error {
	for _, v := range b.live() {
		if len(v.recipe.Revocation) == 0 || len(v.entries) == 0 {
			continue
		}
		b.c.spent = true
		sql, err := parseStatements(v.recipe.Revocation, "name", "role", "lease_id")
		if err != nil {
			return misconfigured(revokingAccount+": "+err.Error(), nil)
		}
		rendered, err := sql.Render(map[string]string{"name": v.recipe.Username, "role": v.recipe.Role, "lease_id": v.recipe.LeaseID})
		if err != nil {
			return misconfigured(revokingAccount+": "+err.Error(), nil)
		}
		for _, s := range rendered {
			if _, err := b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, s.Reveal()); code(err) != 0 {
				b.e.log.Warn("a revocation statement failed", "username", v.recipe.Username, "error", plain(err))
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// drop removes the accounts together, or, where the source keeps one of them, one by
// one; sees them gone, and has late sessions looked for. It answers the sessions that
// there are then.
func (b batch) drop(ctx context.Context) (sessions [][]string, err error) {
	live := b.live()
	if len(live) == 0 {
		return nil, nil
	}
	look := message(b.e.dialect.accountQuery(named(namesOf(live)...)), sessionQuery(live))
	answer, err := b.c.guarded(failpoint.OnSending(ctx, failpoint.R2), revokingAccount, []fence{b.e.sameServer()}, message(append(b.drops(live), look)...))
	if code(err) != 0 {
		for _, v := range live {
			v.err = plainOrNil(b.dropOne(ctx, v))
		}
		answer, err = b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, look)
	}
	if err != nil {
		return nil, err
	}
	there := readAccounts(answer[len(answer)-2])
	for _, v := range live {
		left := slices.ContainsFunc(there, func(a account) bool { return a.name == v.recipe.Username })
		switch {
		case v.err != nil:
		case left && v.outcome.Residue == "":
			v.err = busy(revokingAccount+": its account was dropped and is there again", nil)
		case len(v.entries) > 0:
			b.e.late.Add(v.recipe.Username)
		}
	}
	return answer.last(), nil
}

// drops are the statements that drop accounts, with the events that would end them.
func (b batch) drops(victims []*victim) []string {
	var statements []string
	for _, v := range victims {
		if v.recipe.Event != "" {
			statements = append(statements, "DROP EVENT IF EXISTS "+v.recipe.event())
		}
	}
	if specs := b.specs(); len(specs) > 0 {
		statements = append(statements, "DROP USER IF EXISTS "+strings.Join(specs, ", "))
	}
	return statements
}
