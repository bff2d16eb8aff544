package crash_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
)

const (
	// callers work at the same time.
	callers = 20
	// patience is how long a caller waits for an answer.
	patience = 12 * time.Second

	rotateEvery = 1500 * time.Millisecond
	prefixEvery = 3 * time.Second
)

// credential is what a caller was answered, and what came of it.
type credential struct {
	lease, username, password, role string

	answered             time.Time
	ends                 time.Time // before any renewal
	revokeAsked, revoked bool      // revoked: 204 was answered
	refusedAt            time.Time // by the source, zero when never
	survived             bool      // it logged in after the 204
}

// prefixRevocation was answered with everything dead.
type prefixRevocation struct{ begun, answered time.Time }

// rotations of the root, by their answer.
type rotations struct{ answered, refused, unknown int }

// employ sets the callers to work until the function that it returns is called.
func (w *world) employ(t *testing.T, p plan) (rest func()) {
	t.Helper()
	w.full = p.full
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range callers {
		all.Go(func() { w.repeat(ctx, func() time.Duration { return rand.N(p.rest) }, w.once) })
	}
	all.Go(func() { w.repeat(ctx, func() time.Duration { return rotateEvery }, w.rotate) })
	all.Go(func() { w.repeat(ctx, func() time.Duration { return prefixEvery }, w.revokePrefix) })
	return func() {
		cancel()
		all.Wait()
	}
}

func (w *world) repeat(ctx context.Context, pause func() time.Duration, do func(context.Context, *node)) {
	for ctx.Err() == nil {
		bounded, enough := context.WithTimeout(ctx, patience)
		do(bounded, w.nodes[rand.IntN(len(w.nodes))])
		enough()
		select {
		case <-time.After(pause()):
		case <-ctx.Done():
		}
	}
}

// once issues a credential and mostly does something with it, or with one that
// was issued long ago, at any node.
func (w *world) once(ctx context.Context, n *node) {
	c := w.issue(ctx, n)
	if c == nil {
		return
	}
	elsewhere := w.nodes[rand.IntN(len(w.nodes))]
	switch rand.IntN(10) {
	case 0, 1:
		w.use(ctx, c)
	case 2, 3:
		w.revoke(ctx, elsewhere, c)
	case 4:
		w.renew(ctx, elsewhere, c)
	case 5:
		w.mu.Lock()
		old := w.given[rand.IntN(len(w.given))]
		w.mu.Unlock()
		w.revoke(ctx, elsewhere, old)
	}
}

// issue asks for a credential of a life that mostly ends during the run; now and
// then it gives up before the answer.
func (w *world) issue(ctx context.Context, n *node) *credential {
	role, life := reader, 2*time.Hour
	switch k := rand.IntN(10); {
	case k < 2:
		role = batch
	case k < 7:
		life = (4*time.Second + rand.N(12*time.Second)).Truncate(time.Second)
	}
	if rand.IntN(50) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
		defer cancel()
	}
	ttl := api.Duration(life)
	answer, err := n.app.GenerateCredential(ctx, "db", role, api.CredsRequest{TTL: &ttl})
	if err != nil {
		w.refused(n, "issue", err, client.LeaseRevoked)
		return nil
	}
	c := &credential{lease: answer.LeaseID, username: answer.Data["username"], password: answer.Data["password"], role: role,
		answered: time.Now(), ends: answer.ExpiresAt.Truncate(time.Microsecond)} // as stores keep it
	w.mu.Lock()
	defer w.mu.Unlock()
	w.given = append(w.given, c)
	return c
}

func (w *world) revoke(ctx context.Context, n *node, c *credential) {
	w.mu.Lock()
	c.revokeAsked = true
	w.mu.Unlock()
	pending, err := n.app.RevokeLease(ctx, c.lease, 0)
	if err != nil {
		w.refused(n, "revoke", err)
		return
	}
	if pending != nil {
		return
	}
	w.answer("revocations")
	alive := rand.IntN(2) == 0 && w.login(ctx, c) == nil
	w.mu.Lock()
	defer w.mu.Unlock()
	c.revoked, c.survived = true, c.survived || alive
}

func (w *world) renew(ctx context.Context, n *node, c *credential) {
	longer := api.Duration(2*time.Hour + rand.N(time.Hour).Truncate(time.Second))
	if _, err := n.app.RenewLease(ctx, c.lease, api.RenewRequest{TTL: &longer}); err != nil {
		w.refused(n, "renew", err, client.LeaseExpired, client.LeaseRevoked, client.VersionConflict) // what settles a cut-off issuance changes the lease, too
		return
	}
	w.answer("renewals")
}

// use logs in at the source, which no trouble keeps the callers from.
func (w *world) use(ctx context.Context, c *credential) {
	var refusal *pgconn.PgError
	switch err := w.login(ctx, c); {
	case err == nil:
		w.answer("log-ins")
	case errors.As(err, &refusal) && strings.HasPrefix(refusal.Code, "28"):
		w.mu.Lock()
		defer w.mu.Unlock()
		c.refusedAt = time.Now()
	}
}

func (w *world) login(ctx context.Context, c *credential) error {
	conn, err := pgx.Connect(ctx, w.source.URL(c.username, c.password, w.db))
	if err == nil {
		_ = conn.Close(ctx)
	}
	return err
}

// revokePrefix kills everything of the role batch while it is being issued.
func (w *world) revokePrefix(ctx context.Context, n *node) {
	begun := time.Now()
	result, err := n.app.RevokePrefix(ctx, "db/"+batch, 5*time.Second)
	if err != nil {
		w.refused(n, "revoke by prefix", err)
		return
	}
	if result.Pending > 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prefixes = append(w.prefixes, prefixRevocation{begun, time.Now()})
}

// rotate changes the root's password at the source (law L9).
func (w *world) rotate(ctx context.Context, n *node) {
	_, err := n.keeper.RotateRoot(ctx, "db")
	var refused *client.Error
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil:
		w.rotations.answered++
	case errors.As(err, &refused) && refused.Status < 500:
		w.rotations.refused++
	default:
		w.rotations.unknown++
	}
}

// refused counts an answer that trouble does not explain. 503 is how trouble is
// answered, and 409 where the lease is one that may have ended. A node that
// cannot ask its store which root is the present one may be refused by the
// source with a former one, and on a busy machine the source by a time limit.
func (w *world) refused(n *node, what string, err error, expected ...client.Code) {
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Status == http.StatusServiceUnavailable || slices.Contains(expected, refused.Code) ||
		refused.Code == client.EngineError && (!w.full || !w.wasAble(n)) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals = append(w.refusals, fmt.Sprintf("%s at %s: %s: %d %s: %s (%s)", time.Now().UTC().Format(time.StampMilli), n.vault.URL, what,
		refused.Status, refused.Code, refused.Message, refused.RequestID))
}

func (w *world) answer(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[what]++
}
