package postgresql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// lockGrants waits, to the end of the transaction, for the advisory lock under
// which rights on shared objects are given and taken: concurrent GRANTs on one
// object fail with "tuple concurrently updated". Its key is the database's oid
// behind a constant ("SVLT"), so it holds across engines, nodes and
// installations.
const lockGrants = "SELECT pg_advisory_xact_lock(1398164564::int8 << 32 | (SELECT oid::int8 FROM pg_database WHERE datname = current_database()))"

// commitLocally lets the commit of a creation wait for no standby: an account
// that a failover loses harms nobody. Never for a drop, which would come back.
const commitLocally = "SET LOCAL synchronous_commit = local"

// draft is what Plan keeps for Issue beside the recipe.
type draft struct {
	recipe   recipe
	verifier <-chan statement.Secret // computed while the plan is made durable
}

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	ro, ok := r.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(r.Params) > 0 && string(r.Params) != "{}" && string(r.Params) != "null" {
		return nil, refused("plan a credential: postgresql takes no fields beside ttl and metadata", nil)
	}
	name := e.newName(r.RoleName)
	password := statement.Password(nil)
	rec := recipe{
		Source: e.source, Username: name, LeaseID: r.LeaseID, Role: r.RoleName,
		Mark: e.accountMark(name, r.LeaseID), Heir: e.heir(ro),
		Revocation: ro.RevocationStatements, Renewal: ro.RenewStatements,
	}
	if ro.grouped() {
		rec.Group = e.groupName(r.RoleName, ro)
		rec.Functions, rec.Maker = e.traits.functions, e.nextMaker()
	}
	d := &draft{recipe: rec}
	if ro.PasswordForm == passwordScram {
		d.verifier = later(func() statement.Secret {
			return statement.Secret(statement.ScramSHA256(password, *e.config.ScramIterations, nil))
		})
	} else {
		d.verifier = later(func() statement.Secret { return password })
	}
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: name, Role: ro, ExpiresAt: r.ExpiresAt, Recipe: rec.encode(),
		Data:    map[string]statement.Secret{"username": statement.Secret(name), "password": password},
		Private: d,
	}, nil
}

// later computes beside the caller; the answer can be taken once.
func later(compute func() statement.Secret) <-chan statement.Secret {
	c := make(chan statement.Secret, 1)
	go func() { c <- compute() }()
	return c
}

func (e *Engine) newName(role string) string {
	if e.config.names != nil {
		return e.options.Namer.Name(e.config.names, role)
	}
	return e.options.Namer.New(role, maxNameBytes)
}

// heir is who gets what an account owns, where that is not the group or root.
func (e *Engine) heir(r *role) string {
	if r.ReassignOwnedTo != "" {
		return r.ReassignOwnedTo
	}
	return e.config.ReassignOwnedTo
}

// Issue implements engine.Engine.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	d, ok := p.Private.(*draft)
	if !ok {
		return nil, misconfigured("issue a credential: the plan is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	verifier := <-d.verifier
	d.verifier = later(func() statement.Secret { return verifier }) // for the next attempt

	r := p.Role.(*role) //nolint:forcetypeassert // Plan has seen it
	oid, err := e.create(ctx, p, r, d.recipe, verifier)
	if r.grouped() && code(err) == codeUndefinedObject {
		e.forgetGroup(d.recipe.Group) // another node saw its last member go
		oid, err = e.create(ctx, p, r, d.recipe, verifier)
	}
	if err != nil {
		return nil, e.issueError(err)
	}
	d.recipe.OID = oid
	return d.recipe.encode(), nil
}

// create makes the account in the form of its role.
func (e *Engine) create(ctx context.Context, p *engine.Plan, r *role, rec recipe, verifier statement.Secret) (oid uint32, err error) {
	if r.grouped() {
		if err := e.readyGroup(ctx, rec.Role, r); err != nil {
			return 0, notIssued(err)
		}
		return e.createMember(ctx, &creating{plan: p, role: r, recipe: rec, verifier: verifier})
	}
	err = e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.main(), func(c *conn) error {
			oid, err = e.createByStatements(ctx, c, p, r, rec, verifier)
			return err
		})
	})
	return oid, err
}

// createMember makes a member of the role's group.
func (e *Engine) createMember(ctx context.Context, n *creating) (uint32, error) {
	if *e.config.ScramIterations <= gatherRounds {
		return e.gather(ctx, n)
	}
	err := e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.mainOf(n.recipe), func(c *conn) error {
			return e.createMembers(ctx, c, []*creating{n}, n.plan.Deadline)
		})
	}, codeDivisionByZero)
	return n.oid, err
}

// issueError keeps the kinds to those that Issue may answer.
func (e *Engine) issueError(err error) error {
	if nameTaken(err) {
		return failure(engine.NameTaken, "issue a credential: an account of the planned name exists", err)
	}
	return plain(err)
}

// notIssued is an error from before the account: nothing of it is left.
func notIssued(err error) error {
	var known *engine.Error
	if errors.As(err, &known) && known.Kind == engine.Uncertain {
		return failure(engine.Busy, known.Reason, err)
	}
	return plain(err)
}

// insist repeats what failed because somebody else changed the same rows of the
// catalogs, until the context ends. Such a failure has undone everything.
func (e *Engine) insist(ctx context.Context, attempt func() error, more ...string) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := attempt()
		if !retried(err) && !slices.Contains(more, code(err)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// retried tells the failures that insist repeats.
func retried(err error) bool {
	return slices.Contains([]string{codeInternal, codeDeadlock, codeSerialization}, code(err))
}

func (e *Engine) issueFences(c *conn, p *engine.Plan) []fence {
	return []fence{beforeDeadline(c, p.Deadline), e.sameServer()}
}

// createByStatements runs the operator's templates in one transaction of their
// own, under the lock that keeps GRANTs apart, and marks what they made. The
// session is reset afterwards, whatever they set.
func (e *Engine) createByStatements(ctx context.Context, c *conn, p *engine.Plan, r *role, rec recipe, verifier statement.Secret) (uint32, error) {
	sql, err := creation(r, rec, verifier, c.sourceTime(p.ExpiresAt))
	if err != nil {
		return 0, err
	}
	statements := []string{commitLocally}
	if r.creation.Has("grant") || r.creation.Has("revoke") {
		// The wait for the lock may outlast the deadline: look once more.
		statements = append(statements, lockGrants, "SELECT 1/("+beforeDeadline(c, p.Deadline).condition+")::int")
	}
	statements = append(statements, sql...)
	statements = append(statements, ownRights{}.mark(rec.Username, rec.Mark),
		"SELECT "+statement.QuoteLiteral(statement.QuoteIdent(rec.Username))+"::regrole::oid")
	answer, err := c.guarded(failpoint.OnSending(ctx, failpoint.F3, failpoint.F5), "issue a credential", e.issueFences(c, p), message(statements...), verifier, p.Data["password"])
	for _, n := range c.notices {
		e.log.Warn("the source warned about a creation statement", "role", rec.Role, "sqlstate", n.Code)
	}
	failpoint.Hit(failpoint.F4)
	// Locks of the session outlive a failure, too.
	if _, err := c.run(ctx, "DISCARD ALL"); err != nil {
		c.close() // the session cannot be used again, whatever was made
	}
	if err != nil {
		return 0, err
	}
	return parseOID(answer.one()), nil
}

// creation renders the templates, adds the end where they set none, and keeps
// the search path to what an administrator's session has.
func creation(r *role, rec recipe, password statement.Secret, until time.Time) ([]string, error) {
	rendered, err := r.creation.Render(map[string]string{
		"name":       rec.Username,
		"password":   password.Reveal(),
		"expiration": until.UTC().Format(time.RFC3339Nano),
		"role":       rec.Role,
		"lease_id":   rec.LeaseID,
	})
	if err != nil {
		return nil, misconfigured("issue a credential: "+err.Error(), nil)
	}
	statements := []string{`SET LOCAL search_path = "$user", public`}
	for _, s := range rendered {
		statements = append(statements, s.Reveal())
	}
	statements = append(statements, "SET LOCAL search_path = pg_catalog, pg_temp")
	if !r.creation.Has("valid", "until") {
		statements = append(statements, ownRights{}.setEnd(rec.Username, until))
	}
	return statements, nil
}

// accountMark is the comment that makes an account ours beyond its name. It
// holds the name, so that one account's cannot be put on another, and neither
// the caller nor the tenant: everybody may read comments.
func (e *Engine) accountMark(name, leaseID string) string {
	return e.options.Namer.Mark(fmt.Sprintf("%s%s:%s", markPrefix, name, leaseID))
}

const markPrefix = "scaivault:"
