package postgresql

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// batchSize is how many accounts are killed together.
const batchSize = 100

// batchPatience is how long sessions that were ended get to be gone before
// their accounts leave the batch.
const batchPatience = time.Second

const revokingAccount = "revoke a credential"

// victim is one account on its way out.
type victim struct {
	recipe recipe
	oid    uint32
	marked bool // it bears the comment of its lease
	found  bool // exists, and is ours

	done    bool
	outcome engine.Outcome
	err     error
}

// Revoke implements engine.Engine.
func (e *Engine) Revoke(ctx context.Context, r engine.Recipe) (engine.Outcome, error) {
	result := e.RevokeBatch(ctx, []engine.Recipe{r})[0]
	return result.Outcome, result.Err
}

// RevokeBatch implements engine.BatchRevoker.
//
// The order is the law L2: no login first, and committed; then no session; then
// nothing owned or granted; then no account; then, once more, no session. Names
// go sorted, so that two nodes cannot block each other for ever.
func (e *Engine) RevokeBatch(ctx context.Context, rs []engine.Recipe) []engine.Result {
	victims := make([]*victim, len(rs))
	var live []*victim
	for i, raw := range rs {
		v := &victim{}
		v.recipe, v.err = e.readRecipe(raw)
		victims[i] = v
		if v.err == nil {
			live = append(live, v)
		}
	}
	slices.SortFunc(live, func(a, b *victim) int {
		return cmp.Or(strings.Compare(a.recipe.Maker, b.recipe.Maker), strings.Compare(a.recipe.Username, b.recipe.Username))
	})
	for len(live) > 0 {
		n := 1 // of one maker, who alone may end them
		for n < min(len(live), batchSize) && live[n].recipe.Maker == live[0].recipe.Maker {
			n++
		}
		e.revokeChunk(ctx, live[:n])
		live = live[n:]
	}
	failpoint.Hit(failpoint.R3)
	e.retireGroups(ctx, formerGroups(victims))

	results := make([]engine.Result, len(rs))
	for i, v := range victims {
		results[i] = engine.Result{Outcome: v.outcome, Err: v.err}
	}
	return results
}

// formerGroups are the groups that lost a member.
func formerGroups(victims []*victim) []string {
	var groups []string
	for _, v := range victims {
		if v.done && v.err == nil && v.recipe.Group != "" {
			groups = append(groups, v.recipe.Group)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

// revokeChunk kills a sorted batch. What fails as a whole is tried one by one,
// so that one account does not keep the others alive.
func (e *Engine) revokeChunk(ctx context.Context, victims []*victim) {
	err := e.tryChunk(ctx, victims)
	if err == nil {
		return
	}
	var known *engine.Error
	definite := errors.As(err, &known) && (known.Kind == engine.Refused || known.Kind == engine.Misconfigured || known.Kind == engine.Busy)
	for _, v := range victims {
		switch {
		case v.done:
		case len(victims) > 1 && definite && ctx.Err() == nil && code(err) != "":
			e.revokeChunk(ctx, []*victim{v})
		default:
			v.err = plain(err)
		}
	}
}

// tryChunk kills the easy ones together and the others one after the other.
func (e *Engine) tryChunk(ctx context.Context, victims []*victim) error {
	together, cancel := e.operation(ctx)
	defer cancel()
	var hard []*victim
	err := e.insist(together, func() error {
		return e.pool.with(together, revoking, e.mainOf(victims[0].recipe), func(c *conn) error {
			b := batch{e: e, c: c}
			var err error
			hard, err = b.run(together, victims)
			return err
		})
	}, codeUndefinedObject)
	if err != nil {
		return err
	}
	e.dismantleAll(ctx, hard)
	return nil
}

// dismantleAll deals with each by itself, and with as many at a time as there
// are connections beside the one that is kept.
func (e *Engine) dismantleAll(ctx context.Context, victims []*victim) {
	var wg sync.WaitGroup
	places := make(chan struct{}, *e.config.MaxOpenConnections-1)
	for _, v := range victims {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, cancel := e.operation(ctx)
			defer cancel()
			v.err = e.dismantle(ctx, v)
			v.done = true
		})
	}
	wg.Wait()
}

// batch is the fast path: five messages for up to batchSize accounts.
type batch struct {
	e *Engine
	c *conn
}

// run kills those that hold nothing and answers those that need more. It can be
// repeated after a failure.
func (b batch) run(ctx context.Context, victims []*victim) (hard []*victim, err error) {
	if err := b.find(ctx, victims); err != nil {
		return nil, err
	}
	var here []*victim
	for _, v := range victims {
		if v.found && !v.done {
			here = append(here, v)
		}
	}
	if err := b.disable(ctx, here); err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.Disabled)
	ties, err := b.endSessions(ctx, victims)
	if err != nil {
		return nil, err
	}
	var easy, granted []*victim
	for _, v := range victims {
		t := ties[v.oid]
		switch {
		case v.done:
		case !v.found && !t.sessions:
			v.done = true // already gone is dead
		case t.sessions || t.owns || t.prepared || len(v.recipe.Revocation) > 0:
			hard = append(hard, v)
		case t.granted:
			granted = append(granted, v)
		default:
			easy = append(easy, v)
		}
	}
	if len(granted) > 0 {
		freed, kept, err := b.free(ctx, granted)
		if err != nil {
			return nil, err
		}
		easy, hard = append(easy, freed...), append(hard, kept...)
	}
	return hard, b.drop(ctx, easy)
}

// find looks the accounts up and tells which are ours (law L11): the name bears
// our checksum, and it is the very role that was issued. Where its oid never
// became known, the mark or the group must prove it.
func (b batch) find(ctx context.Context, victims []*victim) error {
	values := make([]string, len(victims))
	for i, v := range victims {
		values[i] = "(" + strconv.Itoa(i) + "," + statement.QuoteLiteral(v.recipe.Username) + "," + statement.QuoteLiteral(v.recipe.Group) + ")"
		v.found, v.oid, v.marked = false, v.recipe.OID, false
	}
	answer, err := b.c.guarded(ctx, revokingAccount, []fence{b.e.sameServer()}, accountQuery(values))
	if err != nil {
		return err
	}
	for _, row := range answer.last() {
		i, err := strconv.Atoi(row[0])
		if err != nil {
			return err
		}
		v, a := victims[i], readAccount(row[1:])
		if !b.e.ours(v.recipe, a) {
			b.e.log.Warn("an account that bears the name of a credential is not ours: left alone", "username", v.recipe.Username)
			v.done = v.recipe.OID == 0 // with an oid, its sessions may still be there
			continue
		}
		v.found, v.oid, v.marked = true, a.oid, a.comment == v.recipe.Mark
	}
	return nil
}

// disable takes login and password away, and commits that by itself: from here
// on no session begins.
func (b batch) disable(ctx context.Context, victims []*victim) error {
	if len(victims) == 0 {
		return nil
	}
	var statements []string
	for way, names := range byRights(victims) {
		statements = append(statements, way.disable(names)...)
	}
	_, err := b.c.guarded(ctx, revokingAccount, nil, message(statements...))
	return err
}

// endSessions ends all sessions together and answers what the accounts still
// hold when that has had some time.
func (b batch) endSessions(ctx context.Context, victims []*victim) (map[uint32]tie, error) {
	deadline := time.Now().Add(batchPatience)
	for told := false; ; told = true {
		ties, err := b.look(ctx, victims)
		if err != nil {
			return nil, err
		}
		var oids, lend []string
		for _, v := range victims {
			switch {
			case !ties[v.oid].sessions:
			case b.e.traits.signal:
				oids = append(oids, oidText(v.oid))
			case v.found:
				oids = append(oids, oidText(v.oid))
				lend = append(lend, v.recipe.rightsOver().lend(v.recipe.Username))
			}
		}
		if len(oids) == 0 || time.Now().After(deadline) {
			return ties, nil
		}
		if told {
			select {
			case <-ctx.Done():
				return nil, busy(revokingAccount+": its sessions were told to end and are still there", ctx.Err())
			case <-time.After(2 * time.Millisecond):
			}
		} else if len(lend) > 0 {
			if _, err := b.c.guarded(ctx, revokingAccount, nil, message(lend...)); err != nil {
				return nil, err
			}
		}
		if _, err := b.c.guarded(ctx, revokingAccount, nil, terminate(b.e.traits.endRight(), "usesysid IN ("+strings.Join(oids, ",")+")")); err != nil {
			if code(err) == codeNoPrivilege {
				return ties, nil // taken one by one, each says what is missing
			}
			return nil, err
		}
	}
}

// tie is what still holds an account.
type tie struct {
	sessions bool
	granted  bool // rights in the database of the connection, and nothing else
	owns     bool // objects, or anything in another database
	prepared bool // transactions
}

// look finds what the accounts still hold. pg_shdepend has a row for every
// object of every database, so without one a plain DROP ROLE suffices.
func (b batch) look(ctx context.Context, victims []*victim) (map[uint32]tie, error) {
	var oids, names []string
	for _, v := range victims {
		if v.oid != 0 {
			oids = append(oids, oidText(v.oid))
			names = append(names, statement.QuoteLiteral(v.recipe.Username))
		}
	}
	ties := map[uint32]tie{}
	if len(oids) == 0 {
		return ties, nil
	}
	list := strings.Join(oids, ",")
	answer, err := b.c.guarded(ctx, revokingAccount, nil, message(
		"SELECT DISTINCT usesysid FROM pg_stat_activity WHERE usesysid IN ("+list+")",
		`SELECT DISTINCT s.refobjid, s.deptype = 'a' AND s.dbid IN (0, d.oid) FROM pg_shdepend s, pg_database d
			WHERE d.datname = current_database() AND s.refclassid = 'pg_authid'::regclass AND s.refobjid IN (`+list+`)`,
		"SELECT DISTINCT r.oid FROM pg_prepared_xacts p JOIN pg_roles r ON r.rolname = p.owner WHERE p.owner IN ("+strings.Join(names, ",")+")"))
	if err != nil {
		return nil, err
	}
	set := func(rows [][]string, change func(*tie, []string)) {
		for _, row := range rows {
			t := ties[parseOID(row[0])]
			change(&t, row)
			ties[parseOID(row[0])] = t
		}
	}
	set(answer.rows(0), func(t *tie, _ []string) { t.sessions = true })
	set(answer.rows(1), func(t *tie, row []string) {
		t.granted = t.granted || row[1] == "t"
		t.owns = t.owns || row[1] != "t"
	})
	set(answer.rows(2), func(t *tie, _ []string) { t.prepared = true })
	return ties, nil
}

// free takes direct rights from accounts that have nothing else, in one
// transaction under the lock of GRANTs. Where that fails, they are dealt with
// one by one.
func (b batch) free(ctx context.Context, victims []*victim) (freed, kept []*victim, err error) {
	statements := []string{lockGrants}
	names := make([]string, len(victims))
	for i, v := range victims {
		statements = append(statements, v.recipe.rightsOver().lend(v.recipe.Username))
		names[i] = statement.QuoteIdent(v.recipe.Username)
	}
	statements = append(statements, "DROP OWNED BY "+strings.Join(names, ", "))
	if _, err := b.c.guarded(ctx, revokingAccount, nil, message(statements...)); err != nil {
		if code(err) == "" || retried(err) {
			return nil, nil, err
		}
		return nil, victims, nil
	}
	ties, err := b.look(ctx, victims)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range victims {
		if ties[v.oid] == (tie{}) {
			freed = append(freed, v)
		} else {
			kept = append(kept, v)
		}
	}
	return freed, kept, nil
}

// byRights sorts the names of accounts by the way in which they can be changed,
// and then by name; one name once.
func byRights(victims []*victim) map[rights][]string {
	names := map[rights][]string{}
	for _, v := range victims {
		way := v.recipe.rightsOver()
		names[way] = append(names[way], v.recipe.Username)
	}
	for way := range names {
		slices.Sort(names[way])
		names[way] = slices.Compact(names[way])
	}
	return names
}

// drop removes accounts that nothing holds, and looks once more for sessions:
// one whose login was under way at the first look appears late.
func (b batch) drop(ctx context.Context, victims []*victim) error {
	if len(victims) == 0 {
		return nil
	}
	var statements []string
	for way, names := range byRights(victims) {
		statements = append(statements, way.drop(names))
	}
	if _, err := b.c.guarded(failpoint.OnSending(ctx, failpoint.R2), revokingAccount, nil, message(statements...)); err != nil {
		return err
	}
	ties, err := b.look(ctx, victims)
	if err != nil {
		return err
	}
	for _, v := range victims {
		b.e.late.add(b.e.lookLate, v.oid, v.recipe.Username)
		if !ties[v.oid].sessions {
			v.done = true
			continue
		}
		v.found = false
		v.err = b.e.endSessions(ctx, b.c, v.oid, b.e.traits.endRight())
		v.done = true
	}
	return nil
}
