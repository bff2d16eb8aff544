package mysql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// On MySQL the rights of a role are those of one role at the source, which each of
// its credentials has, active from the login on. It is called a group here.
const (
	groupPrefix = "sv_"
	groupHost   = "%"
)

// groupName is the name of the group of a role: another set of rights is another
// group, so that credentials issued before a change keep what they were given.
func (e *Engine) groupName(roleName string, r *role) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", roleName)
	for _, g := range r.grants {
		fmt.Fprintf(h, "%s\n", g)
	}
	id := e.options.EngineID
	most := mySQL.maxName() - len(groupPrefix+"__") - 10 - 8
	short := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			return c
		}
		return '_'
	}, roleName)
	return fmt.Sprintf("%s%s_%s_%s", groupPrefix, id[max(0, len(id)-10):], short[:min(len(short), most)], hex.EncodeToString(h.Sum(nil))[:8])
}

func (e *Engine) groupMark(name string) string {
	return e.options.Namer.Mark(markPrefix + name + ":group")
}

// readyGroup sees to it that the group of a role exists before a member is made.
// Of several callers one does the work, the others wait for it.
func (e *Engine) readyGroup(ctx context.Context, roleName string, r *role) error {
	name := e.groupName(roleName, r)
	ready := func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.groups[roleName] == name
	}
	if ready() {
		return nil
	}
	e.grouping.Lock()
	defer e.grouping.Unlock()
	if ready() {
		return nil
	}
	if err := e.makeGroup(ctx, name, r); err != nil {
		return err
	}
	e.mu.Lock()
	e.groups[roleName] = name
	e.mu.Unlock()
	return nil
}

// forgetGroup makes the next issue make the group where it is missing.
func (e *Engine) forgetGroup(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for role, known := range e.groups {
		if known == name {
			delete(e.groups, role)
		}
	}
}

// A group is made, given to a new account and retired under its lock, and bears its
// mark when it has all its rights: nobody gets half of one, and none is dropped from
// under a new account.

// lockWait is how many seconds the lock of a group is waited for.
const lockWait = 5

// whole holds while the group is there, with all its rights.
func (e *Engine) whole(name string, failed func() error) fence {
	return fence{
		condition: "EXISTS (SELECT 1 FROM mysql.user WHERE User = " + statement.QuoteMySQLText(name) + " AND Host = '" + groupHost +
			"' AND JSON_UNQUOTE(JSON_EXTRACT(User_attributes, '$.metadata.comment')) = " + statement.QuoteMySQLText(e.groupMark(name)) + ")",
		failed: func(string) error { return failed() },
	}
}

// makeGroup makes the group where it is missing and gives it its rights. It can be
// repeated. What root may not give is a *fault.Error that names the statement to run.
func (e *Engine) makeGroup(ctx context.Context, name string, r *role) error {
	const attempt = "make the group of a role"
	return e.pool.With(ctx, engine.Issuing, func(c *conn) error {
		return e.exclusively(ctx, c, attempt, lockOf(name), lockWait, func() error {
			found, err := e.accounts(ctx, c, attempt, name)
			if err != nil {
				return err
			}
			return e.completeGroup(ctx, c, name, r, found[name])
		})
	})
}

// completeGroup goes on from whatever is there of the group. A role of MySQL is an
// account that nobody can log in to; made as one it is marked as ours from the
// beginning.
func (e *Engine) completeGroup(ctx context.Context, c *conn, name string, r *role, found []account) error {
	const attempt = "make the group of a role"
	spec, begun := accountSpec(name, groupHost), e.options.Namer.Mark(markPrefix+name+":begun")
	i := slices.IndexFunc(found, func(a account) bool { return a.host == groupHost })
	switch {
	case i < 0:
		_, err := c.guarded(ctx, attempt, []fence{e.sameServer()}, "CREATE USER "+spec+" "+
			identified(login{e.dialect.plugin(), statement.Secret(e.dialect.noPassword())})+" PASSWORD EXPIRE ACCOUNT LOCK COMMENT "+statement.QuoteMySQLText(begun))
		if err != nil {
			return err
		}
	case found[i].mark != begun && found[i].mark != e.groupMark(name):
		return misconfigured(attempt+": there is an account "+spec+" that is not ours", nil)
	}
	if err := e.give(ctx, c, r.grants, spec); err != nil {
		return err
	}
	failpoint.Hit(failpoint.F4)
	_, err := c.guarded(ctx, attempt, []fence{e.sameServer()}, "ALTER USER "+spec+" COMMENT "+statement.QuoteMySQLText(e.groupMark(name)))
	return err
}

// give grants rights to an account, one after the other, so that the one that root
// cannot give is known.
func (e *Engine) give(ctx context.Context, c *conn, grants []grant, spec string) error {
	patterns := true
	if e.dialect == mySQL {
		answer, err := c.guarded(ctx, "give rights", nil, "SELECT @@GLOBAL.partial_revokes")
		if err != nil {
			return err
		}
		patterns = answer.one() == "0"
	}
	for _, g := range grants {
		_, err := c.guarded(ctx, "give rights", []fence{e.sameServer()}, "GRANT "+g.sql(patterns)+" TO "+spec)
		switch {
		case err == nil:
		case engine.KindOf(err) == engine.Misconfigured:
			root, rootErr := c.root(ctx)
			if rootErr != nil {
				return err
			}
			return engine.Invalid("root cannot give %s: run as an administrator there: GRANT %s TO %s WITH GRANT OPTION", g, g.sql(patterns), root)
		case engine.KindOf(err) == engine.Refused:
			return engine.Invalid("privileges: %s: %s", g, strings.TrimPrefix(plain(err).Reason, "give rights: "))
		default:
			return err
		}
	}
	return nil
}

// root is the account that the connection acts as, as statements name it.
func (c *conn) root(ctx context.Context) (string, error) {
	answer, err := c.run(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return "", asked("look at the root", err)
	}
	name, host := splitAccount(answer.one())
	return accountSpec(name, host), nil
}

// splitAccount takes name@host apart; a name may hold an @, a host none.
func splitAccount(text string) (name, host string) {
	at := max(0, strings.LastIndexByte(text, '@'))
	return text[:at], strings.TrimPrefix(text[at:], "@")
}

// retireGroups drops groups that lost a member, have none and are none that a role
// of this engine uses now. One dropped too early is made again by the next issue,
// so failures are only logged.
func (e *Engine) retireGroups(ctx context.Context, names []string) {
	e.mu.Lock()
	for _, current := range e.groups {
		names = slices.DeleteFunc(names, func(name string) bool { return name == current })
	}
	e.mu.Unlock()
	for _, name := range names {
		if err := e.retire(ctx, name); err != nil {
			e.log.Warn("a group that is not needed any more was kept", "group", name, "error", plain(err))
		}
	}
}

// retire drops a group unless somebody has it, or has its lock.
func (e *Engine) retire(ctx context.Context, name string) error {
	const attempt = "retire a group"
	err := e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		return e.exclusively(ctx, c, attempt, lockOf(name), 0, func() error {
			found, err := e.accounts(ctx, c, attempt, name)
			if err != nil || len(found[name]) != 1 || found[name][0].mark != e.groupMark(name) {
				return err
			}
			members, err := c.guarded(ctx, attempt, nil, "SELECT COUNT(*) FROM mysql.role_edges WHERE FROM_USER = "+statement.QuoteMySQLText(name))
			if err != nil || members.one() != "0" {
				return err
			}
			_, err = c.guarded(ctx, attempt, []fence{e.sameServer()}, "DROP USER "+found[name][0].spec())
			return err
		})
	})
	if engine.KindOf(err) == engine.Busy {
		return nil
	}
	return err
}
