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
	root := statement.QuoteIdent(e.root.Username)
	if e.traits.superuser || e.traits.createRole || r.grouped() && (e.traits.functions || len(e.makers()) > 0) {
		return nil
	}
	if e.traits.functions || len(e.makers()) > 0 {
		return engine.Invalid("creation_statements need a root with CREATEROLE, and this one makes roles only through functions or makers: use privileges, or run ALTER ROLE %s CREATEROLE", root)
	}
	return engine.Invalid("root cannot make roles: run ALTER ROLE %s CREATEROLE, or install the functions that setup-sql prints", root)
}

// shown lets a *fault.Error through as it is.
func shown(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return plain(err)
}

// readyGroup sees to it that the group exists and that its ON ALL rights are
// fresh, before a member is made. Of several callers one does the work, the others
// wait for it.
func (e *Engine) readyGroup(ctx context.Context, roleName string, r *role) error {
	state := e.groupOf(roleName, r)
	state.mu.Lock()
	defer state.mu.Unlock()
	if state.fresh(r) {
		return nil
	}
	_, err := e.makeGroup(ctx, state.name, r, false)
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

// fresh tells whether the rights need not be looked at before an issue. They
// grow old also where they name no later objects: an administrator, or another
// node that died while it retired the group, may have taken some.
func (state *groupState) fresh(r *role) bool {
	return !state.seenAt.IsZero() && time.Since(state.seenAt) < r.PrivilegesRefresh.Std()
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
		err := e.insist(ctx, func() error {
			return e.pool.with(ctx, issuing, place{database: database}, func(c *conn) error {
				w := groupWork{e: e, c: c, name: name, role: r, create: i == 0, strict: strict}
				err := w.run(ctx)
				warnings = append(warnings, w.warnings...)
				return err
			})
		}, codeDivisionByZero)
		if err != nil {
			return nil, err
		}
	}
	return warnings, nil
}
