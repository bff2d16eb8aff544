package postgresql

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/statement"
)

// groupState is the present group of one role, as far as this engine has seen.
type groupState struct {
	name string

	mu     sync.Mutex // held while the group is made or refreshed
	seenAt time.Time  // when its rights were last complete; zero before
}

// groupName is the name of the group role that holds the rights of a role:
// another set of rights is another group, so that credentials issued before a
// change keep what they were given.
func (e *Engine) groupName(roleName string, r *role) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", roleName)
	for _, g := range r.grants {
		fmt.Fprintf(h, "%s\n", g)
	}
	members := slices.Sorted(slices.Values(r.MemberOf))
	fmt.Fprintf(h, "%q %q", members, slices.Sorted(slices.Values(e.config.Databases)))
	id := e.options.EngineID
	const most = maxNameBytes - len("sv___") - 10 - 8
	short := strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			return c
		}
		return '_'
	}, roleName)
	return fmt.Sprintf("%s%s_%s_%s", groupPrefix, id[max(0, len(id)-10):], short[:min(len(short), most)], hex.EncodeToString(h.Sum(nil))[:8])
}

const groupPrefix = "sv_"

func (e *Engine) groupMark(name string) string {
	return e.options.Namer.Mark(markPrefix + name + ":group")
}

// PrepareRole implements engine.RolePreparer. What the role lacks at the source
// is a *fault.Error of code invalid_config that names the statement to run.
func (e *Engine) PrepareRole(ctx context.Context, roleName string, er engine.Role) ([]string, error) {
	r, ok := er.(*role)
	if !ok {
		return nil, misconfigured("prepare a role: it is not one of this engine", nil)
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	if err := e.mayMake(r); err != nil {
		return nil, err
	}
	if !r.grouped() {
		return e.rehearse(ctx, roleName, r)
	}
	state := &groupState{name: e.groupName(roleName, r)}
	warnings, err := e.makeGroup(ctx, state.name, r, true)
	if err != nil {
		return nil, shown(err)
	}
	state.seenAt = time.Now()
	e.mu.Lock()
	former := e.groups[roleName]
	e.groups[roleName] = state
	e.mu.Unlock()
	if former != nil && former.name != state.name {
		e.retireGroups(ctx, []string{former.name})
	}
	return warnings, nil
}

// mayMake checks what root needs for a form of role, before the source would
// refuse it in words of its own.
func (e *Engine) mayMake(r *role) error {
	root := statement.QuoteIdent(e.root.username)
	if e.traits.superuser || e.traits.createRole || r.grouped() && (e.traits.functions || len(e.makers()) > 0) {
		return nil
	}
	if e.traits.functions || len(e.makers()) > 0 {
		return invalid("creation_statements need a root with CREATEROLE, and this one makes roles only through functions or makers: use privileges, or run ALTER ROLE %s CREATEROLE", root)
	}
	return invalid("root cannot make roles: run ALTER ROLE %s CREATEROLE, or install the functions that setup-sql prints", root)
}

// shown lets a *fault.Error through as it is.
func shown(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return plain(err)
}

// rehearse runs the creation statements and takes them back, so that a
// statement that cannot work is refused when the role is saved.
func (e *Engine) rehearse(ctx context.Context, roleName string, r *role) ([]string, error) {
	name := e.newName(roleName)
	rec := recipe{Username: name, Role: roleName, LeaseID: "lease_rehearsal"}
	password := statement.Password(nil)
	verifier := password
	if r.PasswordForm == passwordScram {
		verifier = statement.Secret(statement.ScramSHA256(password, 1, nil))
	}
	sql, err := creation(r, rec, verifier, time.Now().Add(time.Minute))
	if err != nil {
		return nil, err
	}
	err = e.insist(ctx, func() error {
		return e.pool.with(ctx, issuing, e.main(), func(c *conn) error {
			defer c.run(ctx, "ROLLBACK; DISCARD ALL") //nolint:errcheck // a connection on which it fails is not used again
			if _, err := c.guarded(ctx, "try the creation statements", []fence{e.sameServer()}, message("BEGIN", lockGrants), verifier); err != nil {
				return err
			}
			for _, s := range sql {
				if err := e.rehearseOne(ctx, c, s, name, verifier, password); err != nil {
					return err
				}
			}
			answer, err := c.run(ctx, "SELECT count(*) FROM pg_roles WHERE rolname = "+statement.QuoteLiteral(name))
			if err == nil && answer.one() != "1" {
				return invalid("creation_statements make no role named {{name}}")
			}
			return err
		})
	})
	if err != nil {
		return nil, shown(err)
	}
	return e.statementWarnings(r), nil
}

func (e *Engine) rehearseOne(ctx context.Context, c *conn, sql, name string, secrets ...statement.Secret) error {
	_, err := c.run(ctx, sql)
	told := ""
	for _, n := range c.notices {
		if n.Code == codePrivilegeNotGiven {
			told = n.Message
		}
	}
	if err == nil && told == "" {
		return nil
	}
	if err != nil {
		if code(err) == "" || retried(err) || code(err) == codeLockNotAvailable || code(err) == codeQueryCanceled {
			return sentError("try the creation statements", err, secrets...)
		}
		told = sentError("try the creation statements", err, secrets...).(*engine.Error).Reason //nolint:forcetypeassert // it always is
	}
	if statement, ok := e.grantToRoot(sql, name); ok {
		return invalid("root cannot give what creation_statements grant (%s): run as the owner of the objects: %s", told, statement)
	}
	return invalid("%s", told)
}

// grantToRoot turns a GRANT to the new account into the one that root lacks.
func (e *Engine) grantToRoot(sql, name string) (string, bool) {
	trimmed := strings.TrimSpace(sql)
	if len(trimmed) < 6 || !strings.EqualFold(trimmed[:6], "GRANT ") {
		return "", false
	}
	at := strings.LastIndex(trimmed, statement.QuoteIdent(name))
	if at < 0 {
		at = strings.LastIndex(trimmed, name)
	}
	if at < 0 {
		return "", false
	}
	option := "WITH GRANT OPTION"
	if !strings.Contains(strings.ToUpper(trimmed), " ON ") {
		option = "WITH ADMIN OPTION"
	}
	return trimmed[:at] + statement.QuoteIdent(e.root.username) + " " + option, true
}

func (e *Engine) statementWarnings(r *role) []string {
	var warnings []string
	if r.PasswordForm == passwordPlain {
		warnings = append(warnings, "password_form plain: the password is sent in the statement and may appear in the source's log")
	}
	if r.creation.Has("grant") && r.creation.Has("on") {
		warnings = append(warnings, "the statements grant rights to each account directly, which grows the access lists of the objects: PostgreSQL refuses at about 2,400 accounts, and each is slower than the one before. The form privileges has neither limit")
	}
	return warnings
}

// readyGroup sees to it that the group exists and that its ON ALL rights are
// fresh, before a member is made. Of several callers one does the work; others
// go on where there is a group already.
func (e *Engine) readyGroup(ctx context.Context, roleName string, r *role) error {
	state := e.groupOf(roleName, r)
	state.mu.Lock()
	fresh := e.fresh(state, r)
	state.mu.Unlock()
	if fresh {
		return nil
	}
	state.mu.Lock()
	defer state.mu.Unlock()
	if e.fresh(state, r) {
		return nil
	}
	err := e.insist(ctx, func() error {
		_, err := e.makeGroup(ctx, state.name, r, false)
		return err
	})
	var f *fault.Error
	switch {
	case err == nil:
		state.seenAt = time.Now()
	case errors.As(err, &f):
		return misconfigured("issue a credential: "+f.Message, err)
	case code(err) == codeLockNotAvailable && !state.seenAt.IsZero():
		e.log.Warn("the rights of a group could not be refreshed: somebody holds a lock", "group", state.name)
	default:
		return err
	}
	return nil
}

func (e *Engine) fresh(state *groupState, r *role) bool {
	if state.seenAt.IsZero() {
		return false
	}
	open := slices.ContainsFunc(r.grants, func(g grant) bool { return g.all })
	return !open || time.Since(state.seenAt) < r.PrivilegesRefresh.Std()
}

// groupOf is the state of a role's present group.
func (e *Engine) groupOf(roleName string, r *role) *groupState {
	name := e.groupName(roleName, r)
	e.mu.Lock()
	defer e.mu.Unlock()
	state := e.groups[roleName]
	if state == nil || state.name != name {
		state = &groupState{name: name}
		e.groups[roleName] = state
	}
	return state
}

// forgetGroup makes the next issue look whether the group exists: another node
// or an administrator may have dropped it.
func (e *Engine) forgetGroup(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for role, state := range e.groups {
		if state.name == name {
			delete(e.groups, role)
		}
	}
}

// makeGroup makes the group where it is missing and gives it its rights in
// every database. Strict, it fails for every right that root cannot give; else
// objects that came later and that root may not grant are passed over.
func (e *Engine) makeGroup(ctx context.Context, name string, r *role, strict bool) (warnings []string, err error) {
	if len(e.makers()) > 0 {
		if err := e.makeMakersGroup(ctx, name); err != nil {
			return nil, err
		}
	}
	for i, database := range append([]string{e.main().database}, e.config.Databases...) {
		err := e.pool.with(ctx, issuing, place{database: database}, func(c *conn) error {
			w := groupWork{e: e, c: c, name: name, role: r, strict: strict}
			if i == 0 {
				w.create = true
			}
			err := w.run(ctx)
			warnings = append(warnings, w.warnings...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return warnings, nil
}
