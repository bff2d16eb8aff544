package redis

import (
	"context"
	"errors"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const issuingUser = "issue a credential"

// fenceTries bounds how often a fence that fell before its time is raised again:
// somebody flushed the keys, or the node needed their memory.
const fenceTries = 3

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	parsed, ok := r.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(r.Params) > 0 && string(r.Params) != "{}" {
		return nil, refused("plan a credential: a request for Redis takes no fields of its own")
	}
	name := e.newName(r.RoleName)
	password := statement.Password(nil)
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: name, Role: parsed, ExpiresAt: r.ExpiresAt,
		Recipe: recipe{Source: e.source, Username: name, LeaseID: r.LeaseID}.encode(),
		Data:   map[string]statement.Secret{"username": statement.Secret(name), "password": password},
	}, nil
}

func (e *Engine) newName(roleName string) string {
	if e.config.names != nil {
		return e.options.Namer.Name(e.config.names, roleName)
	}
	return e.options.Namer.New(roleName, maxNameBytes)
}

// Issue implements engine.Engine. The user is made on every node that can be
// reached; one that cannot gets it when it is back. On each it is made whole, by
// one command: Redis changes a copy and puts that in the user's place only if
// every rule was good.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	r, ok := p.Role.(*role)
	if !ok {
		return nil, misconfigured(issuingUser+": the role is not one of this engine", nil)
	}
	if !time.Now().Before(p.Deadline) {
		return nil, refused(issuingUser + ": the deadline has passed")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return nil, plain(err)
	}
	if len(members) > 1 {
		if err := e.nameFree(ctx, members, p.Username); err != nil {
			return nil, plain(err)
		}
	}
	user := append([]any{"ACL", "SETUSER", p.Username, "reset", "resetchannels"}, r.arguments()...)
	user = append(user, hashRule(p.Data["password"]), "#"+markOf(e.options.Namer, p.Username), "on")
	outcomes := onEach(members, func(m member) error {
		err := m.makeUser(ctx, p, user)
		if err == nil {
			failpoint.Hit(failpoint.F4)
			err = lateSave(m.persist(ctx))
		}
		return err
	})
	if err := e.madeOn(outcomes); err != nil {
		return nil, e.unmake(ctx, p.Username, outcomes, err)
	}
	return p.Recipe, nil
}

// nameFree looks on every node before anything is made on any.
func (e *Engine) nameFree(ctx context.Context, members []member, name string) error {
	outcomes := onEach(members, func(m member) error {
		return m.pool.With(ctx, engine.Issuing, func(c *conn) error {
			answer, err := c.do(ctx, "ACL", "GETUSER", name)
			if err != nil {
				return asked(issuingUser, err)
			}
			return free(name, reply{value: answer})
		})
	})
	for _, o := range outcomes {
		if o.err != nil && !o.absent() {
			return o.err
		}
	}
	return e.madeOn(outcomes)
}

// free refuses a name that a node has a user of.
func free(name string, r reply) error {
	if r.err != nil {
		return sentError(issuingUser, r.err)
	}
	if _, taken := readUser(name, r.value); taken {
		return failure(engine.NameTaken, issuingUser+": a user of the planned name exists", nil)
	}
	return nil
}

// makeUser makes the user on one node, behind a fence where that can be.
func (m member) makeUser(ctx context.Context, p *engine.Plan, user command) error {
	for tried := 1; ; tried++ {
		var done bool
		err := m.pool.With(ctx, engine.Issuing, func(c *conn) (err error) {
			fenced, there, err := m.raise(ctx, c, p.Username, p.Deadline)
			if err == nil {
				err = free(p.Username, there)
			}
			if err != nil {
				return err
			}
			done, err = c.makeUser(failpoint.OnSending(ctx, failpoint.F3, failpoint.F5), fenced, user)
			return err
		})
		if err != nil || done {
			return err
		}
		if tried == fenceTries || !time.Now().Before(p.Deadline) {
			return refused(issuingUser + ": the deadline had passed when the source came to it")
		}
	}
}

func (c *conn) makeUser(ctx context.Context, fenced bool, user command) (done bool, err error) {
	if !fenced {
		_, err := c.do(ctx, user...)
		return true, mapped(issuingUser, err)
	}
	replies, done, err := c.transact(ctx, user)
	if err != nil || !done {
		return done, mapped(issuingUser, err)
	}
	return true, mapped(issuingUser, replies[0].err)
}

// lateSave is the failure to save a user that was made: nothing is refused by it,
// the user is there.
func lateSave(err error) error {
	var known *engine.Error
	if errors.As(err, &known) && known.Kind == engine.Unreachable {
		return uncertain(known.Reason, err)
	}
	return err
}

// madeOn tells whether enough nodes did it: one that takes writes; of a cluster,
// more than half of its masters. Any that answered and refused is an error. What
// could not be reached is repaired later, but for a node of which nobody knows
// whether it did it.
func (e *Engine) madeOn(outcomes []outcomeOf) error {
	var absent error
	masters, made := 0, 0
	for _, o := range outcomes {
		if !o.replica {
			masters++
		}
		switch {
		case o.err == nil && !o.replica:
			made++
		case o.err == nil:
		case !o.absent():
			return o.err
		default:
			absent = o.err
			e.missed(o.address)
			if o.member.err == nil && engine.KindOf(o.err) == engine.Uncertain {
				return o.err
			}
		}
	}
	if made == 0 || len(outcomes) > 1 && e.isCluster() && 2*made <= masters {
		if absent == nil {
			absent = busy(issuingUser+": no node that answers is a master", nil)
		}
		return absent
	}
	return nil
}

func (e *Engine) isCluster() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.cluster
}

// missed notes that a node must be repaired, and that the survey is old.
func (e *Engine) missed(address string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.behind[address] = true
	e.surveyed.old = true
}

// unmake takes back what some nodes made before another refused. Where nobody
// knows what was made, or it cannot be taken back, the error says so.
func (e *Engine) unmake(ctx context.Context, name string, outcomes []outcomeOf, cause error) error {
	known := plain(cause)
	for _, o := range outcomes {
		if o.member.err == nil && engine.KindOf(o.err) == engine.Uncertain {
			return plain(o.err)
		}
	}
	ctx, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	var members []member
	for _, o := range outcomes {
		if o.err == nil || engine.KindOf(o.err) != engine.NameTaken && !away(o.err) {
			members = append(members, o.member)
		}
	}
	undone := onEach(members, func(m member) error {
		err := m.pool.With(ctx, engine.Revoking, func(c *conn) error {
			_, err := c.do(ctx, "ACL", "DELUSER", name)
			return mapped("undo a credential", err)
		})
		if err != nil {
			return err
		}
		return m.persist(ctx)
	})
	for i, o := range undone {
		if o.err != nil && made(members[i], outcomes) {
			return uncertain(known.Reason, cause)
		}
	}
	return known
}

// made tells whether a member did what was asked: one that refused has nothing
// to take back.
func made(m member, outcomes []outcomeOf) bool {
	for _, o := range outcomes {
		if o.node == m.node {
			return o.err == nil
		}
	}
	return false
}
