package mongodb

import (
	"context"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const issuingUser = "issue a credential"

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, r engine.PlanRequest) (*engine.Plan, error) {
	parsed, ok := r.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(r.Params) > 0 && string(r.Params) != "{}" {
		return nil, refused("plan a credential: a request for MongoDB takes no fields of its own")
	}
	name := e.newName(r.RoleName)
	f := e.fence(parsed.Database)
	return &engine.Plan{
		LeaseID: r.LeaseID, Username: name, Role: parsed, ExpiresAt: r.ExpiresAt,
		Recipe: recipe{Source: e.source, Username: name, Database: parsed.Database, Fence: f.Role, LeaseID: r.LeaseID}.encode(),
		Data: map[string]statement.Secret{
			"username": statement.Secret(name), "password": statement.Password(nil), "database": statement.Secret(parsed.Database),
		},
		Private: draft{f, e.bundle(r.RoleName, parsed)},
	}, nil
}

// draft is what a plan holds for its issue.
type draft struct {
	fence  *fence
	bundle grant // the role that has what the ScaiVault role grants; zero where the user gets that itself
}

func (e *Engine) newName(roleName string) string {
	if e.config.names != nil {
		return e.options.Namer.Name(e.config.names, roleName)
	}
	return e.options.Namer.New(roleName, maxNameBytes)
}

// Issue implements engine.Engine. One command makes the user whole, or not at all.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	r, ok := p.Role.(*role)
	d, planned := p.Private.(draft)
	if !ok || !planned {
		return nil, misconfigured(issuingUser+": the plan is not one of this engine", nil)
	}
	if !time.Now().Before(p.Deadline) {
		return nil, refused(issuingUser + ": the deadline has passed")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	select {
	case e.issuing <- struct{}{}:
		defer func() { <-e.issuing }()
	case <-ctx.Done():
		return nil, busy(issuingUser+": all connections are in use", ctx.Err())
	}
	s, err := e.whole(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.ready(ctx, s, r, d, p.Deadline); err != nil {
		return nil, plain(err)
	}
	failpoint.Hit(failpoint.F4)
	if err := e.makeUser(ctx, s, p, r, d); err != nil {
		return nil, err
	}
	return p.Recipe, nil
}

// ready proves that the source is the right one, that it answers in good time, and that it has what the
// user will be made with. An answer that takes half of the time that is left is too late to go on.
func (e *Engine) ready(ctx context.Context, s *server, r *role, d draft, deadline time.Time) error {
	begun := time.Now()
	wanted := []grant{d.fence.grant}
	if d.bundle.Role != "" {
		wanted = append(wanted, d.bundle)
	}
	there, err := e.recognise(ctx, s, issuingUser, wanted...)
	if err != nil {
		return err
	}
	if time.Since(begun) > deadline.Sub(begun)/2 {
		return unreachable(issuingUser+": the source answers too slowly to keep the deadline", nil)
	}
	if err := e.raise(ctx, s, d.fence, there[d.fence.grant]); err != nil {
		return err
	}
	if d.bundle.Role != "" && !there[d.bundle] {
		if err := s.makeRole(ctx, d.bundle, r.Privileges, r.Roles); err != nil {
			return asked(issuingUser+": make the role "+d.bundle.String(), err)
		}
	}
	return nil
}

func (e *Engine) makeUser(ctx context.Context, s *server, p *engine.Plan, r *role, d draft) error {
	granted := r.Roles
	if d.bundle.Role != "" {
		granted = []grant{d.bundle}
	}
	err := s.write(ctx, r.Database, bson.D{
		{Key: "createUser", Value: p.Username},
		{Key: "pwd", Value: p.Data["password"].Reveal()},
		{Key: "roles", Value: append(granted[:len(granted):len(granted)], d.fence.grant)},
		{Key: "mechanisms", Value: []string{"SCRAM-SHA-256"}},
		{Key: "customData", Value: e.mark(user{p.Username, r.Database}, p.LeaseID)},
	})
	switch {
	case err == nil:
		return nil
	case code(err) == codeUserExists:
		return failure(engine.NameTaken, issuingUser+": a user of the planned name exists", nil)
	case code(err) == codeRoleNotFound && strings.Contains(err.Error(), d.fence.Role):
		e.retire(d.fence.grant)
		return gone()
	}
	return sentError(issuingUser, err)
}
