package azure

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	issuing = "issue a credential"
	// endGrace is how much later than the lease the password ends: Azure's clock is not ours.
	endGrace = time.Minute
)

// errHidden says that Azure does not know everywhere yet that something was made.
var errHidden = errors.New("it is not shown yet")

// Plan implements engine.Engine. The password is missing in its data: Microsoft makes it.
func (e *Engine) Plan(_ context.Context, q engine.PlanRequest) (*engine.Plan, error) {
	role, ok := q.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(q.Params) > 0 && string(q.Params) != "{}" {
		return nil, refused("plan a credential: a request for Azure takes no fields of its own")
	}
	name := e.newName(q.RoleName)
	r := recipe{
		Source: e.SourceID(), Username: name, LeaseID: q.LeaseID, Ends: q.ExpiresAt.Add(endGrace).UTC().Truncate(time.Second),
		Existing: role.ApplicationObjectID != "", Application: role.ApplicationObjectID,
		Groups: slices.Clone(role.AzureGroups), Purge: role.PermanentlyDelete,
	}
	for _, a := range role.AzureRoles {
		scope := e.scopeOf(a)
		if scope == "" {
			return nil, refused("plan a credential: a role without a scope is for the subscription, and the engine has no subscription_id")
		}
		r.Assignments = append(r.Assignments, scope+authorization+"roleAssignments/"+newGUID())
	}
	e.demand(role)
	return &engine.Plan{
		LeaseID: q.LeaseID, Username: name, Role: role, ExpiresAt: q.ExpiresAt, Recipe: r.encode(),
		Data: map[string]statement.Secret{"tenant_id": statement.Secret(e.config.TenantID)},
	}, nil
}

func (e *Engine) newName(roleName string) string {
	if e.names != nil {
		return e.options.Namer.Name(e.names, roleName)
	}
	return e.options.Namer.New(roleName, maxNameBytes)
}

// newGUID is a random one (RFC 9562 version 4), as Azure wants for the name of an assignment.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Issue implements engine.Engine. The password comes last, so that what was cut off before is of no use
// to anybody.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	role, ok := p.Role.(*role)
	if !ok {
		return nil, misconfigured(issuing+": the role is not one of this engine", nil)
	}
	r, err := e.readRecipe(p.Recipe)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(p.Deadline) {
		return nil, refused(issuing + ": the deadline has passed")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	select {
	case e.issuing <- struct{}{}:
		defer func() { <-e.issuing }()
	case <-ctx.Done():
		return nil, busy(issuing+": wait for a connection: all are in use", ctx.Err())
	}
	var secret statement.Secret
	if r.Existing {
		secret, err = e.makePassword(ctx, &r)
	} else {
		secret, err = e.makeApplication(ctx, role, &r)
	}
	if err != nil {
		return nil, err
	}
	p.Data["client_id"], p.Data["client_secret"] = statement.Secret(r.ClientID), secret
	e.awaitLogin(ctx, login{r.ClientID, secret})
	return r.encode(), nil
}

// makeApplication makes an application with all that it may, and its password.
func (e *Engine) makeApplication(ctx context.Context, role *role, r *recipe) (statement.Secret, error) {
	definitions, err := e.meanings(ctx, role, r)
	if err != nil {
		return "", asked(issuing, err)
	}
	there, err := e.client.applicationsNamed(ctx, r.Username)
	switch {
	case err != nil:
		return "", asked(issuing, err)
	case len(there) > 0:
		return "", failure(engine.NameTaken, issuing+": an application of the planned name exists", nil)
	}
	made, err := e.client.createApplication(ctx, r.Username, tags(e.options.Namer, r.Username), "Made by ScaiVault for lease "+r.LeaseID+" of engine "+e.options.EngineName+". It is deleted with the lease.")
	if err != nil {
		return "", mapped(issuing, err)
	}
	r.Application, r.ClientID = made.ID, made.AppID
	failpoint.Hit(failpoint.F4)
	secret, err := e.equip(ctx, r, definitions)
	if err != nil {
		return "", e.unmake(ctx, *r, err)
	}
	return secret, nil
}

// meanings finds what the role's names mean; r gets the ids of the groups.
func (e *Engine) meanings(ctx context.Context, role *role, r *recipe) (definitions []string, err error) {
	for _, a := range role.AzureRoles {
		id, err := e.definitionID(ctx, a)
		if err != nil {
			return nil, err
		}
		definitions = append(definitions, id)
	}
	r.Groups, err = e.groupIDs(ctx, r.Groups)
	return definitions, err
}

func (e *Engine) groupIDs(ctx context.Context, groups []string) (ids []string, err error) {
	for _, group := range groups {
		id, err := e.groupID(ctx, group)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// equip gives an application that was just made its principal, roles and groups, and its password.
func (e *Engine) equip(ctx context.Context, r *recipe, definitions []string) (secret statement.Secret, err error) {
	if r.Principal, err = e.client.createPrincipal(ctx, r.ClientID, tags(e.options.Namer, r.Username)); err != nil {
		return "", err
	}
	for i, path := range r.Assignments {
		if err := e.client.assign(ctx, path, definitions[i], r.Principal); err != nil {
			e.known.forget() // a role that was deleted, and made again, has another id
			return "", err
		}
	}
	for _, group := range r.Groups {
		if err := e.client.addMember(ctx, group, r.Principal); err != nil {
			e.known.forget()
			return "", err
		}
	}
	made, err := e.client.addPassword(failpoint.OnSending(ctx, failpoint.F5), r.Application, r.Username, &r.Ends)
	r.Key = made.Key
	return made.Text, err
}

// unmake deletes an application that could not be equipped. It may not be shown yet, so it is waited for.
// What is still on its way to one that is deleted comes to nothing: nothing is left then.
func (e *Engine) unmake(ctx context.Context, r recipe, cause error) error {
	ctx, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	known := mapped(issuing, cause)
	var made []application
	err := eventually(ctx, func() (err error) {
		if made, err = e.find(ctx, r); err == nil && len(made) == 0 {
			return errHidden
		}
		return err
	}, func(err error) bool { return errors.Is(err, errHidden) })
	if err == nil {
		_, err = e.dismantleFound(ctx, r, made)
	}
	if err != nil {
		return uncertain(known.Reason, errors.Join(cause, err))
	}
	switch {
	case known.Kind == engine.Uncertain:
		return unreachable(known.Reason+"; it was taken back", cause)
	case early(cause):
		return busy(known.Reason+": what was just made was not known everywhere in time; it was taken back. A longer operation_timeout helps", cause)
	}
	return known
}

// early tells whether something was refused as it is while Azure does not know everything everywhere yet.
func early(err error) bool {
	var a *answer
	return errors.As(err, &a) && (a.status == 404 || a.code == "PrincipalNotFound" || a.code == "NoBackingApplicationObject")
}

// makePassword gives an application that exists one more password.
func (e *Engine) makePassword(ctx context.Context, r *recipe) (statement.Secret, error) {
	a, err := e.client.application(ctx, r.Application)
	if notFound(err) {
		return "", refused(issuing + ": there is no application " + r.Application)
	} else if err != nil {
		return "", asked(issuing, err)
	}
	if err := e.mayUse(a); err != nil {
		return "", err
	}
	if _, ok, foreign := e.passwordOf(a, r.Username); ok || foreign {
		return "", failure(engine.NameTaken, issuing+": a password of the planned name exists", nil)
	}
	r.ClientID = a.AppID
	made, err := e.client.addPassword(failpoint.OnSending(ctx, failpoint.F3, failpoint.F5), r.Application, passwordMark(e.options.Namer, r.Username), &r.Ends)
	if err != nil {
		return "", mapped(issuing, err)
	}
	failpoint.Hit(failpoint.F4)
	r.Key = made.Key
	return made.Text, nil
}

// mayUse refuses the engine's own application: its passwords are the root's.
func (e *Engine) mayUse(a application) error {
	r, err := e.client.present()
	if err == nil && a.AppID == r.clientID {
		return refused("application_object_id is the application of the engine itself: its holders would be root")
	}
	return err
}

// awaitLogin waits until Microsoft Entra ID takes the new credential: it is of use then. Where that takes
// longer than the time that is left, the credential is handed out all the same; it will be taken later.
func (e *Engine) awaitLogin(ctx context.Context, l login) {
	ctx, cancel := context.WithTimeout(ctx, e.config.OperationTimeout.Std()/2)
	defer cancel()
	err := eventually(ctx, func() error {
		_, err := e.client.logIn(ctx, l, e.client.cloud.graphScope)
		return err
	}, unknownYet)
	if err != nil {
		e.log.Warn("a new credential is not taken everywhere yet", "reason", err)
	}
}
