package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// makeSession asks STS for a session. One whose answer is lost is nobody's, so nothing is left of it.
func (e *Engine) makeSession(ctx context.Context, c clients, p *engine.Plan, parsed *role, r recipe) (recipe, error) {
	ctx = failpoint.OnSending(ctx, failpoint.F3, failpoint.F5)
	seconds := life(p.ExpiresAt)
	var made *types.Credentials
	switch parsed.CredentialType {
	case assumedRole:
		out, err := c.sts.AssumeRole(ctx, &sts.AssumeRoleInput{
			RoleArn: &r.RoleARN, RoleSessionName: &r.Username, DurationSeconds: &seconds, ExternalId: optional(parsed.ExternalID),
			Policy: optional(string(parsed.PolicyDocument)), PolicyArns: descriptors(parsed.PolicyARNs),
		})
		if err != nil {
			return r, named(r.RoleARN, asked(issuing, err))
		}
		made = out.Credentials
		if out.AssumedRoleUser != nil && out.AssumedRoleUser.AssumedRoleId != nil {
			r.SessionID = *out.AssumedRoleUser.AssumedRoleId
		}
	case federationToken:
		out, err := c.sts.GetFederationToken(ctx, &sts.GetFederationTokenInput{
			Name: &r.Username, DurationSeconds: &seconds,
			Policy: optional(string(parsed.PolicyDocument)), PolicyArns: descriptors(parsed.PolicyARNs),
		})
		if err != nil {
			return r, asked(issuing, err)
		}
		made = out.Credentials
	case sessionToken:
		out, err := c.sts.GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: &seconds})
		if err != nil {
			return r, asked(issuing, err)
		}
		made = out.Credentials
	}
	if made == nil || made.AccessKeyId == nil || made.SecretAccessKey == nil || made.SessionToken == nil || made.Expiration == nil {
		return r, failure(engine.Unreachable, issuing+": what answers is not STS", nil)
	}
	p.Data["access_key_id"] = statement.Secret(*made.AccessKeyId)
	p.Data["secret_access_key"] = statement.Secret(*made.SecretAccessKey)
	p.Data["session_token"] = statement.Secret(*made.SessionToken)
	r.Ends = made.Expiration.UTC()
	failpoint.Hit(failpoint.F4)
	return r, nil
}

// life is how long a session must last to end at a moment, in seconds. STS makes none of less than
// fifteen minutes, from when it is asked.
func life(end time.Time) int32 {
	return int32(max(time.Until(end), shortestSession) / time.Second) // at most 36 hours
}

func descriptors(arns []string) []types.PolicyDescriptorType {
	all := make([]types.PolicyDescriptorType, len(arns))
	for i := range arns {
		all[i].Arn = &arns[i]
	}
	return all
}
