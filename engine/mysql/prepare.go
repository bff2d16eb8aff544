package mysql

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// rehearsalLife bounds the account of a rehearsal, and the time in which it is made.
const rehearsalLife = time.Minute

// PrepareRole implements engine.RolePreparer. What the role lacks at the source is a
// *fault.Error of code invalid_config. On MySQL its group is made; else an account of
// the role is made, locked, and ended.
func (e *Engine) PrepareRole(ctx context.Context, roleName string, er engine.Role) ([]string, error) {
	r, ok := er.(*role)
	if !ok {
		return nil, misconfigured("prepare a role: it is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var err error
	if r.declarative() && e.dialect == mySQL {
		err = e.prepareGroup(ctx, roleName, r)
	} else {
		err = e.rehearse(ctx, roleName, r)
	}
	if err != nil {
		return nil, shown(err)
	}
	var warnings []string
	if slices.ContainsFunc(r.grants, grant.outlives) {
		warnings = append(warnings, "credentials of this role may make accounts of their own, which live on when the credential is revoked: leave out CREATE USER and ALL ON *.*, and rights to change the schema mysql")
	}
	if r.PasswordForm == passwordPlain {
		warnings = append(warnings, "password_form plain: the password is sent in the statement and may appear in the source's logs")
	}
	return warnings, nil
}

// shown lets a *fault.Error through as it is.
func shown(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return plain(err)
}

// prepareGroup makes the group anew and sees the former one off.
func (e *Engine) prepareGroup(ctx context.Context, roleName string, r *role) error {
	e.mu.Lock()
	former := e.groups[roleName]
	delete(e.groups, roleName)
	e.mu.Unlock()
	if err := e.readyGroup(ctx, roleName, r); err != nil {
		return err
	}
	if former != "" {
		e.retireGroups(ctx, []string{former})
	}
	return nil
}

// rehearse makes an account of the role, which stays locked, and ends it.
func (e *Engine) rehearse(ctx context.Context, roleName string, r *role) error {
	d := e.draft(r, roleName, "lease_rehearsal")
	password := statement.Password(nil)
	d.hash = func() statement.Secret { return e.dialect.hash(password) }
	now := time.Now()
	m := making{e: e, draft: d, role: r, deadline: now.Add(rehearsalLife), expires: now.Add(rehearsalLife), password: password}
	err := e.pool.With(ctx, engine.Issuing, func(c *conn) error { return m.rehearse(ctx, c) })
	v := &victim{recipe: d.recipe}
	ctx, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	e.end(ctx, []*victim{v})
	if err == nil && v.err != nil {
		return v.err
	}
	return err
}

func (m making) rehearse(ctx context.Context, c *conn) error {
	if m.role.declarative() {
		r := m.draft.recipe
		spec := accountSpec(r.Username, r.Host)
		if err := m.send(ctx, c, nil, "CREATE USER "+spec+" "+m.e.marking(login{m.e.dialect.plugin(), m.draft.hash()}, r.Username)+" ACCOUNT LOCK"); err != nil {
			return err
		}
		return m.e.give(ctx, c, m.role.grants, spec)
	}
	sql, err := m.render(c)
	if err != nil {
		return err
	}
	c.spent = true
	for i, s := range sql {
		err := m.send(ctx, c, nil, s)
		if kind := engine.KindOf(err); kind == engine.Refused || kind == engine.Misconfigured {
			return engine.Invalid("creation_statements: statement %d of %d: %s", i+1, len(sql), reasonOf(err))
		}
		if err != nil {
			return err
		}
	}
	_, err = m.e.made(ctx, c, m.draft.recipe.Username)
	return err
}

// reasonOf is the reason without what was attempted.
func reasonOf(err error) string {
	reason := plain(err).Reason
	if n := len(issuingAccount + ": "); len(reason) > n {
		return reason[n:]
	}
	return reason
}
