package postgresql

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	// gatherRounds is up to how many SCRAM rounds creations share a message.
	// PostgreSQL spends the rounds once more on its side; with 4096 of them that
	// is all that counts, and a batch would only wait for its other members.
	gatherRounds = 64
	// gatherMost is how many creations share a message.
	gatherMost = 32
)

// gatherer puts creations that wait for a writer into one message. While
// nobody waits, a creation goes alone and at once.
type gatherer struct {
	mu      sync.Mutex
	waiting map[gathering][]*creating
	writers map[gathering]int
}

// gathering is what the members of one message have in common.
type gathering struct{ group, maker string }

// creating is one member to be made.
type creating struct {
	plan     *engine.Plan
	role     *role
	recipe   recipe
	verifier statement.Secret

	begun bool // under gatherer.mu: it is in a message
	done  chan struct{}
	oid   uint32
	err   error
}

// gather makes a member, possibly together with others.
func (e *Engine) gather(ctx context.Context, n *creating) (uint32, error) {
	n.done = make(chan struct{})
	g, group := &e.gatherer, gathering{n.recipe.Group, n.recipe.Maker}
	g.mu.Lock()
	if g.waiting == nil {
		g.waiting, g.writers = map[gathering][]*creating{}, map[gathering]int{}
	}
	g.waiting[group] = append(g.waiting[group], n)
	if g.writers[group] < e.writersPerGroup() {
		g.writers[group]++
		go e.write(group)
	}
	g.mu.Unlock()

	select {
	case <-n.done:
		return n.oid, n.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n.begun {
		return 0, uncertain("issue a credential: the source did not answer in time, so it may have been done", ctx.Err())
	}
	g.waiting[group] = slices.DeleteFunc(g.waiting[group], func(other *creating) bool { return other == n })
	return 0, busy("issue a credential: there was no time left to begin", ctx.Err())
}

// writersPerGroup: from 16 on, an open transaction that made a member of a
// group keeps every other one of that group waiting.
func (e *Engine) writersPerGroup() int {
	if e.traits.version >= 160000 {
		return 1
	}
	return 2
}

// write makes what waits for a group, until nothing does.
func (e *Engine) write(group gathering) {
	g := &e.gatherer
	for {
		g.mu.Lock()
		most := min(gatherMost, len(g.waiting[group]))
		batch := g.waiting[group][:most:most]
		g.waiting[group] = g.waiting[group][most:]
		if len(batch) == 0 {
			delete(g.waiting, group)
			if g.writers[group]--; g.writers[group] == 0 {
				delete(g.writers, group)
			}
			g.mu.Unlock()
			return
		}
		for _, n := range batch {
			n.begun = true
		}
		g.mu.Unlock()
		e.writeBatch(batch)
	}
}

// writeBatch makes all or none; where the source refuses, each is tried alone,
// so that one taken name does not fail the others.
func (e *Engine) writeBatch(batch []*creating) {
	deadline := batch[0].plan.Deadline
	for _, n := range batch {
		if n.plan.Deadline.Before(deadline) {
			deadline = n.plan.Deadline
		}
	}
	ctx, cancel := e.operation(context.Background())
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, deadline)
	defer cancel()
	err := e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.mainOf(batch[0].recipe), func(c *conn) error { return e.createMembers(ctx, c, batch, deadline) })
	}, codeDivisionByZero)
	if err != nil && len(batch) > 1 && engine.KindOf(err) != engine.Uncertain && engine.KindOf(err) != engine.Unreachable && time.Now().Before(deadline) {
		for _, n := range batch {
			e.writeBatch([]*creating{n})
		}
		return
	}
	for _, n := range batch {
		n.err = err
		close(n.done)
	}
}

// createMembers makes members of one group in one message.
func (e *Engine) createMembers(ctx context.Context, c *conn, batch []*creating, deadline time.Time) error {
	statements := []string{commitLocally, shareGroup(batch[0].recipe.Group)}
	names := make([]string, len(batch))
	secrets := make([]statement.Secret, len(batch))
	for i, n := range batch {
		statements = append(statements, n.recipe.rightsOver().create(newAccount{
			name: n.recipe.Username, verifier: n.verifier, until: c.sourceTime(n.plan.ExpiresAt),
			group: n.recipe.Group, mark: n.recipe.Mark, asGroup: n.role.RunAsGroup,
		})...)
		names[i] = statement.QuoteLiteral(statement.QuoteIdent(n.recipe.Username))
		secrets[i] = n.verifier
	}
	statements = append(statements, "SELECT unnest(ARRAY["+strings.Join(names, ",")+"]::regrole[])::oid")
	ctx = failpoint.OnSending(ctx, failpoint.F3, failpoint.F5)
	answer, err := c.guarded(ctx, "issue a credential", []fence{beforeDeadline(c, deadline), e.sameServer()}, message(statements...), secrets...)
	if err != nil {
		return err
	}
	for i, row := range answer.last() {
		batch[i].oid = parseOID(row[0])
	}
	return nil
}
