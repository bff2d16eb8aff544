package mysql

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

const issuingAccount = "issue a credential"

// groupTries bounds how often a group that was retired under a creation is made
// again.
const groupTries = 3

// draft is what Plan keeps for Issue beside the recipe.
type draft struct {
	recipe recipe
	hash   func() statement.Secret // computed once, while the plan is made durable
}

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	ro, ok := r.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(r.Params) > 0 && string(r.Params) != "{}" && string(r.Params) != "null" {
		return nil, refused("plan a credential: mysql takes no fields beside ttl and metadata", nil)
	}
	d := e.draft(ro, r.RoleName, r.LeaseID)
	password := statement.Password(nil)
	d.hash = sync.OnceValue(func() statement.Secret { return e.dialect.hash(password) })
	go d.hash()
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: d.recipe.Username, Role: ro, ExpiresAt: r.ExpiresAt, Recipe: d.recipe.encode(),
		Data:    map[string]statement.Secret{"username": statement.Secret(d.recipe.Username), "password": password},
		Private: d,
	}, nil
}

func (e *Engine) draft(r *role, roleName, leaseID string) *draft {
	d := &draft{recipe: recipe{
		Source: e.source, Username: e.newName(roleName), Host: r.Host, LeaseID: leaseID, Role: roleName, Event: e.config.ExpiryEvents,
		Revocation: r.RevocationStatements, Renewal: r.RenewStatements,
	}}
	switch {
	case !r.declarative():
		d.recipe.Unmarked = !r.madeLocked()
	case e.dialect == mySQL:
		d.recipe.Group = e.groupName(roleName, r)
	}
	return d
}

func (e *Engine) newName(role string) string {
	if e.names != nil {
		return e.options.Namer.Name(e.names, role)
	}
	return e.options.Namer.New(role, e.dialect.maxName())
}

// Issue implements engine.Engine.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	d, ok := p.Private.(*draft)
	if !ok {
		return nil, misconfigured(issuingAccount+": the plan is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	m := making{e: e, draft: d, role: p.Role.(*role), deadline: p.Deadline, expires: p.ExpiresAt, password: p.Data["password"]} //nolint:forcetypeassert // Plan has seen it
	err := m.do(ctx)
	if err == nil {
		return d.recipe.encode(), nil
	}
	return nil, e.unmake(ctx, d.recipe, err)
}

// unmake takes back what statements before a failure made. Where nobody knows what
// was executed, or it cannot be taken back, the error says so.
func (e *Engine) unmake(ctx context.Context, r recipe, cause error) error {
	known := issueError(cause)
	if known.Kind == engine.NameTaken && r.Event == "" || known.Kind == engine.Uncertain || !begun(cause) {
		return known
	}
	ctx, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	if known.Kind == engine.NameTaken {
		if err := e.dropEvents(ctx, []recipe{r}); err != nil {
			return uncertain(known.Reason, cause)
		}
		return known
	}
	v := &victim{recipe: r}
	e.end(ctx, []*victim{v})
	if v.err != nil || v.outcome.Residue != "" {
		return uncertain(known.Reason+"; and what was made of it could not be taken back yet", cause)
	}
	return known
}

func issueError(err error) *engine.Error {
	var known *engine.Error
	var f *fault.Error
	switch {
	case code(err) == codeCannotUser:
		return failure(engine.NameTaken, issuingAccount+": an account of the planned name exists", err)
	case errors.As(err, &known):
		return known
	case errors.As(err, &f):
		return misconfigured(issuingAccount+": "+f.Message, nil)
	}
	return plain(err)
}

// making is the making of one account.
type making struct {
	e        *Engine
	draft    *draft
	role     *role
	deadline time.Time
	expires  time.Time
	password statement.Secret
}

func (m making) do(ctx context.Context) error {
	if !m.role.declarative() {
		return m.e.pool.With(ctx, engine.Issuing, func(c *conn) error { return m.byStatements(ctx, c) })
	}
	if m.e.dialect == mariaDB {
		return m.e.pool.With(ctx, engine.Issuing, func(c *conn) error { return m.granted(ctx, c) })
	}
	for tried := 1; ; tried++ {
		if err := m.e.readyGroup(ctx, m.draft.recipe.Role, m.role); err != nil {
			return notIssued(err)
		}
		retired := false
		err := m.e.pool.With(ctx, engine.Issuing, func(c *conn) error { return m.member(ctx, c, &retired) })
		if !retired || tried == groupTries {
			return err
		}
		m.e.forgetGroup(m.draft.recipe.Group) // another node saw its last member go
	}
}

// notIssued is an error from before the account: nothing of it is left.
func notIssued(err error) error {
	known := issueError(err)
	if known.Kind == engine.Uncertain {
		return failure(engine.Busy, known.Reason, err)
	}
	return known
}

// send sends statements, with a fence before each.
func (m making) send(ctx context.Context, c *conn, more []fence, statements ...string) error {
	late := beforeDeadline(c, m.deadline)
	sql := strings.Join(statements, ";\n"+stopUnless(late.condition)+";\n")
	fences := append(more, late, m.e.sameServer()) // a lock is waited for before the clock is looked at
	_, err := c.guarded(failpoint.OnSending(ctx, failpoint.F3, failpoint.F5), issuingAccount, fences, sql, m.draft.hash(), m.password)
	return err
}

// member makes an account whose rights are those of the group. MySQL does that by
// one statement, wholly or not at all.
func (m making) member(ctx context.Context, c *conn, retired *bool) error {
	r, l := m.draft.recipe, lockOf(m.draft.recipe.Group)
	fences := []fence{l.taken(lockWait), m.e.whole(r.Group, func() error {
		*retired = true
		return busy(issuingAccount+": the role that holds its rights was dropped meanwhile", nil)
	})}
	statements := m.event(c, account{name: r.Username, host: r.Host})
	err := m.send(ctx, c, fences, append(statements, "CREATE USER "+accountSpec(r.Username, r.Host)+" "+identified(login{m.e.dialect.plugin(), m.draft.hash()})+
		" DEFAULT ROLE "+accountSpec(r.Group, groupHost)+" COMMENT "+statement.QuoteMySQLText(m.e.mark(r.Username, r.LeaseID))+";\n"+l.release())...)
	if err != nil {
		c.spent = true // it may have the lock
	}
	return err
}

// granted makes an account with rights of its own: locked at first, so that one
// that is not finished is of no use.
func (m making) granted(ctx context.Context, c *conn) error {
	r := m.draft.recipe
	spec := accountSpec(r.Username, r.Host)
	statements := []string{"CREATE USER " + spec + " " + m.e.marking(login{m.e.dialect.plugin(), m.draft.hash()}, r.Username) + " ACCOUNT LOCK"}
	for _, g := range m.role.grants {
		statements = append(statements, "GRANT "+g.sql(true)+" TO "+spec)
	}
	statements = append(statements, m.event(c, account{name: r.Username, host: r.Host})...)
	return m.send(ctx, c, nil, append(statements, "ALTER USER "+spec+" ACCOUNT UNLOCK")...)
}

// marking is the clause that sets one way to log in, and the mark of MariaDB.
func (e *Engine) marking(l login, name string) string {
	return identified(l, login{nativePlugin, statement.Secret(e.mark(name, ""))})
}

// byStatements runs the operator's templates, marks what they made and unlocks it.
// The session is not used again, whatever they set.
func (m making) byStatements(ctx context.Context, c *conn) error {
	r := m.draft.recipe
	sql, err := m.render(c)
	if err != nil {
		return err
	}
	c.spent = true
	free := fence{
		condition: "NOT EXISTS (SELECT 1 FROM " + m.e.dialect.table() + " WHERE User = " + statement.QuoteMySQLText(r.Username) + ")",
		failed: func(attempt string) error {
			return failure(engine.NameTaken, attempt+": an account of the planned name exists", nil)
		},
	}
	if err := m.send(ctx, c, []fence{free}, sql...); err != nil {
		return ownFailure(err)
	}
	failpoint.Hit(failpoint.F4)
	err = ownFailure(m.finish(ctx, c))
	if engine.KindOf(err) == engine.Unreachable { // now, but the statements before were not
		return rawError{mapped: uncertain(plain(err).Reason, err), raw: err, begun: true}
	}
	return err
}

// ownFailure keeps an error of an operator's statement from being taken for a name
// that is taken: that was looked at before.
func ownFailure(err error) error {
	if code(err) != codeCannotUser {
		return err
	}
	return rawError{mapped: plain(err), begun: true}
}

// finish marks and unlocks what the statements made, with its end.
func (m making) finish(ctx context.Context, c *conn) error {
	r := m.draft.recipe
	made, err := m.e.made(ctx, c, r.Username)
	if err != nil {
		return err
	}
	statements := m.event(c, made...)
	for _, a := range made {
		unlock := "ALTER USER " + a.spec() + " ACCOUNT UNLOCK"
		if m.e.dialect == mySQL {
			unlock += " COMMENT " + statement.QuoteMySQLText(m.e.mark(r.Username, r.LeaseID))
		} else {
			ways, err := m.e.logins(ctx, c, a)
			if err != nil {
				return err
			}
			unlock = "ALTER USER " + a.spec() + " " + identified(append(ways, login{nativePlugin, statement.Secret(m.e.mark(r.Username, ""))})...) + " ACCOUNT UNLOCK"
		}
		statements = append(statements, unlock)
	}
	return m.send(ctx, c, nil, statements...)
}

// made are the accounts of a name that statements must have made.
func (e *Engine) made(ctx context.Context, c *conn, name string) ([]account, error) {
	found, err := e.accounts(ctx, c, issuingAccount, name)
	if err == nil && len(found[name]) == 0 {
		err = engine.Invalid("creation_statements make no account named {{name}}")
	}
	if err != nil {
		return nil, rawError{mapped: issueError(err), raw: err, begun: true}
	}
	return found[name], nil
}

// logins are the ways to log in of an account of MariaDB.
func (e *Engine) logins(ctx context.Context, c *conn, a account) ([]login, error) {
	answer, err := c.guarded(ctx, "read an account", nil, "SELECT Priv FROM mysql.global_priv WHERE User = "+statement.QuoteMySQLText(a.name)+" AND Host = "+statement.QuoteMySQLText(a.host))
	if err != nil {
		return nil, err
	}
	ways, err := logins(answer.one())
	if err != nil {
		return nil, rawError{mapped: refused("read an account: the source describes "+a.name+" in a way that is not known", nil), begun: true}
	}
	return ways, nil
}

// render gives the operator's statements their values. An account is made locked,
// whatever else they say.
func (m making) render(c *conn) ([]string, error) {
	password := m.draft.hash()
	if m.role.PasswordForm == passwordPlain {
		password = m.password
	}
	rendered, err := m.role.creation.Render(map[string]string{
		"name":        m.draft.recipe.Username,
		"password":    password.Reveal(),
		"auth_plugin": m.e.dialect.plugin(),
		"expiration":  c.sourceTime(m.expires).UTC().Format("2006-01-02 15:04:05"),
		"role":        m.draft.recipe.Role,
		"lease_id":    m.draft.recipe.LeaseID,
	})
	if err != nil {
		return nil, misconfigured(issuingAccount+": "+err.Error(), nil)
	}
	sql := make([]string, len(rendered))
	for i, s := range rendered {
		sql[i] = s.Reveal()
		if m.role.lockable(i) {
			sql[i] += " ACCOUNT LOCK"
		}
	}
	return sql, nil
}

// lockable tells whether a statement makes an account and leaves it to us whether
// that can be used yet. Behind a comment the servers take no more options.
func (r *role) lockable(statement int) bool {
	return r.creation.Begins(statement, "create", "user") && !r.creation.Contains(statement, "account") &&
		!r.creation.Contains(statement, "comment") && !r.creation.Contains(statement, "attribute")
}

// madeLocked tells whether an account that is not finished can be told by being
// locked.
func (r *role) madeLocked() bool {
	statements := make([]int, r.creation.Len())
	for i := range statements {
		statements[i] = i
	}
	return slices.ContainsFunc(statements, r.lockable)
}
