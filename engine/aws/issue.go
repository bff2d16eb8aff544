package aws

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	planning = "plan a credential"
	issuing  = "issue a credential"
)

// params are the fields of a request for a credential that are this engine's.
type params struct {
	RoleARN     string `json:"role_arn"`
	SessionName string `json:"session_name"`
}

var sessionNameForm = regexp.MustCompile(`^[A-Za-z0-9_=,.@-]{1,31}$`)

// Plan implements engine.Engine. What AWS makes itself, the keys, is not known yet.
func (e *Engine) Plan(_ context.Context, p engine.PlanRequest) (*engine.Plan, error) {
	parsed, ok := p.Role.(*role)
	if !ok {
		return nil, failure(engine.Misconfigured, planning+": the role is not one of this engine", nil)
	}
	wish, err := readParams(p.Params, parsed)
	if err != nil {
		return nil, err
	}
	if why := e.impossible(parsed); why != "" {
		return nil, failure(engine.Refused, planning+": "+why, nil)
	}
	r := recipe{Source: e.source, Type: parsed.CredentialType, LeaseID: p.LeaseID}
	switch parsed.CredentialType {
	case iamUser:
		r.Username = e.newName(p.RoleName)
	case federationToken:
		r.Username, r.Ends = e.options.Namer.New(p.RoleName, maxFederatedName), p.ExpiresAt
	case sessionToken: // STS gives it no name
		r.Username, r.Ends = e.options.Namer.New(p.RoleName, maxNameBytes), p.ExpiresAt
	case assumedRole:
		r.RoleARN, r.EndSessions, r.Ends = wish.RoleARN, parsed.EndSessions, p.ExpiresAt
		r.Username = sessionName(wish.SessionName, p.RoleName, p.LeaseID)
		if e.temporary() && time.Until(p.ExpiresAt) > longestChained+time.Minute {
			return nil, failure(engine.Refused, planning+": AWS lets no session of a role that temporary keys ask for last longer than 1h; ask for a ttl of 1h, or give the engine a root secret with an IAM user's keys and no role_arn", nil)
		}
	}
	return &engine.Plan{LeaseID: p.LeaseID, Username: r.Username, Role: parsed, ExpiresAt: p.ExpiresAt,
		Recipe: r.encode(), Data: map[string]statement.Secret{}}, nil
}

func (e *Engine) newName(roleName string) string {
	if e.config.names != nil {
		return e.options.Namer.Name(e.config.names, roleName)
	}
	return e.options.Namer.New(roleName, maxNameBytes)
}

// sessionName is unique, since it ends with the lease's id: what AWS logs of a session names its lease.
func sessionName(wanted, roleName, leaseID string) string {
	if wanted == "" {
		wanted = roleName
	}
	return wanted[:min(len(wanted), maxNameBytes-1-len(leaseID))] + "-" + leaseID
}

// readParams reads the fields of a request strictly, and chooses the role to assume.
func readParams(raw json.RawMessage, r *role) (params, error) {
	var p params
	if len(raw) > 0 {
		if err := engine.Decode(raw, &p); err != nil {
			return p, failure(engine.Refused, planning+": "+err.Error(), nil)
		}
	}
	if r.CredentialType != assumedRole {
		if p != (params{}) {
			return p, failure(engine.Refused, planning+": role_arn and session_name are for roles of credential_type assumed_role", nil)
		}
		return p, nil
	}
	if p.SessionName != "" && !sessionNameForm.MatchString(p.SessionName) {
		return p, failure(engine.Refused, planning+": session_name is none: 1 to 31 letters, digits and _=,.@-", nil)
	}
	switch {
	case p.RoleARN == "" && len(r.RoleARNs) == 1:
		p.RoleARN = r.RoleARNs[0]
	case p.RoleARN == "":
		return p, failure(engine.Refused, planning+": the role has several role_arns: name one as role_arn", nil)
	case !slices.Contains(r.RoleARNs, p.RoleARN):
		return p, failure(engine.Refused, planning+": role_arn is none of the role's: "+strings.Join(r.RoleARNs, ", "), nil)
	}
	return p, nil
}

// Issue implements engine.Engine.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	parsed, ok := p.Role.(*role)
	if !ok {
		return nil, failure(engine.Misconfigured, issuing+": the role is not one of this engine", nil)
	}
	r, err := e.readRecipe(p.Recipe)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(p.Deadline) {
		return nil, failure(engine.Refused, issuing+": the deadline has passed", nil)
	}
	c, err := e.reach()
	if err != nil {
		return nil, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(withFence(ctx, p.Deadline), p.Deadline)
	defer cancel()
	select {
	case e.issuing <- struct{}{}: // one connection is kept for revocation
		defer func() { <-e.issuing }()
	case <-ctx.Done():
		return nil, failure(engine.Busy, issuing+": all connections to AWS are in use; see max_open_connections", ctx.Err())
	}
	if parsed.CredentialType == iamUser {
		r, err = e.makeUser(ctx, c, p, parsed, r)
	} else {
		r, err = e.makeSession(ctx, c, p, parsed, r)
	}
	if err != nil {
		return nil, err
	}
	return r.encode(), nil
}
