package aws

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
)

const checking = "check the source"

// Check implements engine.Engine.
func (e *Engine) Check(ctx context.Context) engine.Health {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	h := engine.Health{Status: "healthy", TLS: "none", Details: map[string]string{"root": "secret"}}
	if e.ambient != "" {
		h.Details["root"] = "host: " + e.ambient
	}
	if e.connector.verify {
		h.TLS = "verified"
	}
	start := time.Now()
	err := e.examine(ctx, start, &h)
	if err == nil && len(h.MissingGrants) == 0 {
		return h
	}
	h.Status, h.Error = "misconfigured", "root lacks a right without which credentials cannot be made or ended"
	if err != nil {
		h.Error = sent(checking, err).Reason
	}
	if away(err) || engine.KindOf(err) == engine.Busy {
		h.Status = "unreachable"
	}
	return h
}

func (e *Engine) examine(ctx context.Context, start time.Time, h *engine.Health) error {
	c, err := e.reach()
	if err != nil {
		return err
	}
	who, err := e.identify(ctx, c)
	h.Latency = time.Since(start)
	if err != nil {
		return err
	}
	h.Details["identity"] = who.arn
	if e.config.SourceID == "" && who.source() != e.source {
		return failure(engine.WrongServer, checking+": the root credentials are of another account now", nil)
	}
	if now, err := e.Now(ctx); err == nil && time.Since(now).Abs() > time.Second {
		h.ClockOffset = -time.Since(now).Truncate(time.Second)
	}
	if who.principal() == who.arn && who.user() == "" {
		h.Warnings = append(h.Warnings, "root is the account's own root user: whoever gets its key owns the account. The guide to this engine shows an IAM user with less")
		return nil
	}
	missing, tried, err := e.simulate(ctx, c, who)
	if err == nil && tried == 0 {
		missing, tried, err = e.probe(ctx, c)
	}
	if err == nil && len(missing) == tried { // it is meant for sessions only
		h.Warnings = append(h.Warnings, "root may not make IAM users: roles of credential_type iam_user do not work")
		return nil
	}
	h.MissingGrants = missing
	if err != nil {
		return err
	}
	// AWS knows the path of a user only while it is there: one that is gone is looked up by its name alone.
	name := e.newName("nobody")
	if _, err := findUser(ctx, c, name); denied(err) {
		h.MissingGrants = append(h.MissingGrants, "allow iam:GetUser on users without a path that are called as "+name+" is, or no revocation is seen to be done")
	}
	return nil
}

// userRights are what the making and ending of users needs.
func userRights() []string {
	return []string{
		"iam:CreateUser", "iam:TagUser", "iam:GetUser", "iam:DeleteUser", "iam:PutUserPolicy", "iam:DeleteUserPolicy", "iam:ListUserPolicies",
		"iam:AttachUserPolicy", "iam:DetachUserPolicy", "iam:ListAttachedUserPolicies", "iam:ListGroupsForUser", "iam:RemoveUserFromGroup",
		"iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "iam:ListAccessKeys", "iam:DeleteLoginProfile",
	}
}

// simulate lets IAM judge root's rights; tried is 0 where root may not ask that, or the source does not
// know it.
func (e *Engine) simulate(ctx context.Context, c clients, who identity) (missing []string, tried int, err error) {
	principal, err := e.principal(ctx, c, who)
	if principal == "" {
		return nil, 0, err
	}
	resource := "arn:" + e.config.partition() + ":iam::" + who.account + ":user" + pathPrefix + nobody
	out, err := c.iam.SimulatePrincipalPolicy(ctx, &iam.SimulatePrincipalPolicyInput{PolicySourceArn: &principal,
		ActionNames: userRights(), ResourceArns: []string{resource}})
	if err != nil {
		if mapped := sent(checking, err); away(mapped) && code(err) == "" {
			return nil, 0, mapped
		}
		return nil, 0, nil
	}
	for _, result := range out.EvaluationResults {
		if result.EvalActionName != nil && result.EvalDecision != types.PolicyEvaluationDecisionTypeAllowed {
			missing = append(missing, grant(*result.EvalActionName))
		}
	}
	return missing, len(out.EvaluationResults), nil
}

// principal is the ARN by which IAM knows who the identity is; empty where nobody tells. Of a session of
// a role it is the role's, whose path the session does not name.
func (e *Engine) principal(ctx context.Context, c clients, who identity) (string, error) {
	name := who.role()
	if name == "" {
		return who.principal(), nil
	}
	out, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if err != nil {
		if mapped := sent(checking, err); away(mapped) && code(err) == "" {
			return "", mapped
		}
		return "", nil
	}
	if out.Role == nil || out.Role.Arn == nil {
		return "", nil
	}
	return *out.Role.Arn, nil
}

// nobody is no user: names of ours end with a checksum that this has not.
const nobody = "v_nobody"

// probe tries what it can without changing anything: what concerns a user that is not there is
// answered by its absence, where root has the right.
func (e *Engine) probe(ctx context.Context, c clients) (missing []string, tried int, err error) {
	name, id, prefix := nobody, "AKIAIOSFODNN7EXAMPLE", pathPrefix
	one := int32(1)
	tries := []func() error{
		func() error {
			_, err := c.iam.ListUsers(ctx, &iam.ListUsersInput{PathPrefix: &prefix, MaxItems: &one})
			return err
		},
		func() error { _, err := c.iam.GetUser(ctx, &iam.GetUserInput{UserName: &name}); return err },
		func() error {
			_, err := c.iam.ListAccessKeys(ctx, &iam.ListAccessKeysInput{UserName: &name})
			return err
		},
		func() error {
			_, err := c.iam.ListUserPolicies(ctx, &iam.ListUserPoliciesInput{UserName: &name})
			return err
		},
		func() error {
			_, err := c.iam.ListAttachedUserPolicies(ctx, &iam.ListAttachedUserPoliciesInput{UserName: &name})
			return err
		},
		func() error {
			_, err := c.iam.ListGroupsForUser(ctx, &iam.ListGroupsForUserInput{UserName: &name})
			return err
		},
		func() error {
			_, err := c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: &id})
			return err
		},
		func() error { _, err := c.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: &name}); return err },
	}
	for _, try := range tries {
		switch err := try(); {
		case err == nil || gone(err):
		case denied(err):
			missing = append(missing, grant(operation(err)))
		default:
			return nil, 0, asked(checking, err)
		}
	}
	slices.Sort(missing)
	return missing, len(tries), nil
}

func grant(right string) string { return "allow " + right + " on users below " + pathPrefix }
