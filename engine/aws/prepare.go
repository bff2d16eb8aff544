package aws

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
)

const preparing = "try the role"

// PrepareRole implements engine.RolePreparer: it asks AWS whether what the role names is there. What
// root may not ask is a warning: AWS says it when the first credential is made.
func (e *Engine) PrepareRole(ctx context.Context, _ string, er engine.Role) ([]string, error) {
	r, ok := er.(*role)
	if !ok {
		return nil, failure(engine.Misconfigured, preparing+": the role is not one of this engine", nil)
	}
	if why := e.impossible(r); why != "" {
		return nil, failure(engine.Misconfigured, preparing+": "+why, nil)
	}
	c, err := e.reach()
	if err != nil {
		return nil, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var warnings []string
	check := func(field, name string, ask func() error) error {
		err := ask()
		switch {
		case err == nil:
			return nil
		case gone(err):
			return failure(engine.Misconfigured, field+": there is no "+name, nil)
		case denied(err):
			warnings = append(warnings, field+": root may not look "+name+" up ("+operation(err)+"): whether it is there shows when a credential is made")
			return nil
		}
		return asked(preparing, err)
	}
	policies := r.PolicyARNs
	if r.BoundaryARN != "" {
		policies = append([]string{r.BoundaryARN}, policies...)
	}
	for _, arn := range policies {
		if err := check("policy_arns and permissions_boundary_arn", arn, func() error {
			_, err := c.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: &arn})
			return err
		}); err != nil {
			return nil, err
		}
	}
	for _, group := range r.IAMGroups {
		one := int32(1)
		if err := check("iam_groups", group, func() error {
			_, err := c.iam.GetGroup(ctx, &iam.GetGroupInput{GroupName: &group, MaxItems: &one})
			return err
		}); err != nil {
			return nil, err
		}
	}
	for _, arn := range r.RoleARNs {
		if !e.here(arn) && r.EndSessions {
			return nil, failure(engine.Misconfigured, "end_sessions: "+arn+" is another account's, where root can change no role", nil)
		}
		if !e.here(arn) {
			warnings = append(warnings, "role_arns: "+arn+" is another account's: whether it is there shows when a credential is made")
			continue
		}
		if err := check("role_arns", arn, func() error { return roleExists(ctx, c, arn) }); err != nil {
			return nil, err
		}
	}
	return append(warnings, e.cautions(r)...), nil
}

// here tells whether an ARN is of the engine's account.
func (e *Engine) here(arn string) bool {
	return strings.Contains(arn, "::"+e.account+":")
}

// roleExists looks a role up by its name, which alone is unique in an account.
func roleExists(ctx context.Context, c clients, arn string) error {
	name := roleName(arn)
	_, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	return err
}

// cautions are what nobody asked and everybody should know.
func (e *Engine) cautions(r *role) []string {
	switch {
	case r.CredentialType == sessionToken:
		return []string{"credentials of this role may do all that root may, but for IAM: give root few rights, or use federation_token"}
	case r.CredentialType == assumedRole && e.temporary():
		return []string{"root's own keys are temporary: AWS lets sessions of this role last 1h at most"}
	}
	return nil
}

// impossible says why AWS makes no credentials of a role with the keys that root has; empty if it does.
func (e *Engine) impossible(r *role) string {
	if (r.CredentialType == federationToken || r.CredentialType == sessionToken) && e.temporary() {
		return "AWS makes no " + r.CredentialType + " for temporary keys, which the engine's root has: use assumed_role, or give the engine a root secret with an IAM user's keys and no role_arn"
	}
	return ""
}
