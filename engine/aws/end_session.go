package aws

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

const sessionPolicyPrefix = "scaivault-"

// endSession ends a session. AWS has no way to do it but to deny its rights: where the role says
// end_sessions, an inline policy on the assumed role denies everything to that one session, and is
// taken away when the session has ended by itself. Else, and where the policies of the role have no
// room for one more, the session lives to its own end.
func (e *Engine) endSession(ctx context.Context, c clients, r recipe) (engine.Outcome, error) {
	dead := engine.Outcome{}
	lives := time.Now().Before(r.Ends)
	if lives {
		dead.EffectiveAt = &r.Ends
	}
	if !r.EndSessions || !e.here(r.RoleARN) { // root's account may have another role of that name
		return dead, nil
	}
	// The policy is named after the lease, so that no two revocations meet.
	name, policy := roleName(r.RoleARN), sessionPolicyPrefix+r.LeaseID
	if !lives {
		_, err := c.iam.DeleteRolePolicy(failpoint.OnSending(ctx, failpoint.R2), &iam.DeleteRolePolicyInput{RoleName: &name, PolicyName: &policy})
		switch {
		case err == nil || gone(err):
		case denied(err): // then it could not make one either, as a rule; what it denies is over
			e.log.Warn("root may not look after the policies that end sessions", "role", r.RoleARN, "policy", policy, "error", err)
		default:
			return engine.Outcome{}, sent(revoking, err)
		}
		return dead, nil
	}
	err := e.denySession(ctx, c, r, name, policy)
	if mapped := sent(revoking, err); mapped == nil || away(mapped) || mapped.Kind == engine.Busy {
		return dead, plain(mapped)
	}
	e.log.Warn("a session could not be ended before its time", "username", r.Username, "role", r.RoleARN, "error", err)
	return dead, nil
}

// denySession denies everything to a session, by the role's id and the session's name.
func (e *Engine) denySession(ctx context.Context, c clients, r recipe, name, policy string) error {
	if r.SessionID == "" { // whoever issued it has not come back
		out, err := c.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		if err != nil {
			return err
		}
		if out.Role == nil || out.Role.RoleId == nil {
			return failure(engine.Unreachable, revoking+": what answers is not IAM", nil)
		}
		r.SessionID = *out.Role.RoleId + ":" + r.Username
	}
	text := sessionDocument(r.SessionID)
	_, err := c.iam.PutRolePolicy(failpoint.OnSending(ctx, failpoint.R2), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: &policy, PolicyDocument: &text})
	return err
}

// roleName is the last part of a role's ARN, which is unique in its account.
func roleName(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }
