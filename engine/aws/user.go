package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

// makeUser makes an IAM user. Its key comes last: what a crash leaves before can do nothing, and is
// told by that.
func (e *Engine) makeUser(ctx context.Context, c clients, p *engine.Plan, parsed *role, r recipe) (recipe, error) {
	made, err := c.iam.CreateUser(failpoint.OnSending(ctx, failpoint.F3), &iam.CreateUserInput{
		UserName: &r.Username, Path: &parsed.UserPath, PermissionsBoundary: optional(parsed.BoundaryARN), Tags: e.tags(parsed, r),
	})
	if code(err) == codeExists {
		return r, failure(engine.NameTaken, issuing+": a user of the planned name exists", nil)
	} else if err != nil {
		return r, sent(issuing, err)
	}
	if made.User == nil || made.User.UserId == nil {
		return r, failure(engine.Uncertain, issuing+": what answers is not IAM", nil)
	}
	r.UserID = *made.User.UserId
	failpoint.Hit(failpoint.F4)
	key, err := e.equip(ctx, c, parsed, r.Username, p.ExpiresAt)
	if err == nil {
		p.Data["access_key_id"], p.Data["secret_access_key"] = key.ID, key.Secret
		r.AccessKeyID = key.ID.Reveal()
		if parsed.WaitUntilUsable {
			err = e.awaitUsable(ctx, key)
		}
	}
	if err != nil {
		return r, e.unmake(ctx, c, r, err)
	}
	return r, nil
}

// equip gives a user what its role says, but first what ends it.
func (e *Engine) equip(ctx context.Context, c clients, parsed *role, name string, end time.Time) (keys, error) {
	if err := putUserPolicy(ctx, c, name, endPolicy, endDocument(end)); err != nil {
		return keys{}, sent(issuing, err)
	}
	if parsed.PolicyDocument != "" {
		if err := putUserPolicy(ctx, c, name, rolePolicy, string(parsed.PolicyDocument)); err != nil {
			return keys{}, sent(issuing, err)
		}
	}
	for _, arn := range parsed.PolicyARNs {
		if _, err := c.iam.AttachUserPolicy(ctx, &iam.AttachUserPolicyInput{UserName: &name, PolicyArn: &arn}); err != nil {
			return keys{}, named(arn, sent(issuing, err))
		}
	}
	for _, group := range parsed.IAMGroups {
		if _, err := c.iam.AddUserToGroup(ctx, &iam.AddUserToGroupInput{UserName: &name, GroupName: &group}); err != nil {
			return keys{}, named(group, sent(issuing, err))
		}
	}
	made, err := c.iam.CreateAccessKey(failpoint.OnSending(ctx, failpoint.F5), &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		return keys{}, sent(issuing, err)
	}
	return readKey(issuing, made.AccessKey)
}

func readKey(attempt string, k *types.AccessKey) (keys, error) {
	if k == nil || k.AccessKeyId == nil || k.SecretAccessKey == nil {
		return keys{}, failure(engine.Uncertain, attempt+": what answers is not IAM", nil)
	}
	return keys{ID: statement.Secret(*k.AccessKeyId), Secret: statement.Secret(*k.SecretAccessKey)}, nil
}

// named says of a refusal what it is about.
func named(what string, err *engine.Error) *engine.Error {
	if err.Kind == engine.Refused || err.Kind == engine.Misconfigured {
		err.Reason += " (" + what + ")"
	}
	return err
}

func putUserPolicy(ctx context.Context, c clients, user, policy, text string) error {
	_, err := c.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &user, PolicyName: &policy, PolicyDocument: &text})
	return err
}

func (e *Engine) tags(parsed *role, r recipe) []types.Tag {
	all := []types.Tag{tag(markTag, markOf(e.options.Namer, r.Username)), tag(engineTag, e.options.EngineID)}
	if r.LeaseID != "" {
		all = append(all, tag(leaseTag, r.LeaseID))
	}
	for key, value := range parsed.IAMTags {
		all = append(all, tag(key, value))
	}
	return all
}

func tag(key, value string) types.Tag { return types.Tag{Key: &key, Value: &value} }

// unmake takes back what was made of a user before something failed. Where nobody knows what was
// made, or it cannot be taken back, the error says so: it is looked up later.
func (e *Engine) unmake(ctx context.Context, c clients, r recipe, cause error) error {
	if engine.KindOf(cause) == engine.Uncertain {
		return cause
	}
	ctx, cancel := e.operation(withFence(context.WithoutCancel(ctx), time.Now().Add(signatureLife)))
	defer cancel()
	residue, err := e.removeUser(ctx, c, r.Username)
	if err != nil || residue != "" {
		return failure(engine.Uncertain, issuing+": it failed half-way, and what was made could not be taken back yet", cause)
	}
	return cause
}

// Two answers in a row, since different machines of AWS give them.
const (
	usableAnswers = 2
	usablePause   = 500 * time.Millisecond
)

// awaitUsable waits until AWS takes a new key, which may take it some ten seconds.
func (e *Engine) awaitUsable(ctx context.Context, k keys) error {
	theirs := e.connector.as(static(k))
	for taken := 0; ; {
		_, err := e.identify(ctx, theirs)
		switch {
		case err == nil:
			if taken++; taken == usableAnswers {
				return nil
			}
		case engine.KindOf(err) == engine.Misconfigured:
			taken = 0
		default:
			return failure(engine.Busy, issuing+": the new key could not be tried", err)
		}
		if !engine.Wait(ctx, usablePause) {
			return failure(engine.Busy, issuing+": AWS does not take the new key yet: raise operation_timeout, or leave wait_until_usable out of the role", err)
		}
	}
}
