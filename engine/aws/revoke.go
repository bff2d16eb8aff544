package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

const revoking = "revoke a credential"

// Revoke implements engine.Engine. It never says that something is dead that AWS may still take: a
// key that was deleted works for some seconds more where AWS has not heard of it, a session to its
// end.
func (e *Engine) Revoke(ctx context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Outcome{}, err
	}
	c, err := e.reach()
	if err != nil {
		return engine.Outcome{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var outcome engine.Outcome
	if r.Type == iamUser {
		outcome, err = e.endUser(ctx, c, r)
	} else {
		outcome, err = e.endSession(ctx, c, r)
	}
	if err != nil {
		return outcome, ending(err)
	}
	failpoint.Hit(failpoint.R3)
	return outcome, nil
}

func (e *Engine) endUser(ctx context.Context, c clients, r recipe) (engine.Outcome, error) {
	u, err := findUser(ctx, c, r.Username)
	switch {
	case err != nil:
		return engine.Outcome{}, err
	case u == nil && r.AccessKeyID == "": // it never had a key, or it was never there
		return engine.Outcome{}, nil
	case u == nil: // perhaps since a moment ago: the answer may have been lost
		return engine.Outcome{EffectiveAt: e.everywhere()}, nil
	case !e.ours(u, r):
		e.log.Warn("a user that bears the name of a credential is not ours: left alone", "username", r.Username)
		return engine.Outcome{}, nil
	}
	residue, err := e.removeUser(ctx, c, r.Username)
	return engine.Outcome{Residue: residue, EffectiveAt: e.everywhere()}, err // from when it is done: it may take long
}

// everywhere is when AWS will have heard of a change that was made now.
func (e *Engine) everywhere() *time.Time {
	return new(time.Now().Add(e.config.ConsistencyDelay.Std()))
}

// removeUser ends a user. Its keys go first, then all that it may, then the user: what is cut off
// half-way can do nothing any more. What is gone already is no obstacle, and what the user has got
// beside what ScaiVault gave it is named, when that keeps it from being deleted.
func (e *Engine) removeUser(ctx context.Context, c clients, name string) (residue string, err error) {
	steps := []func(context.Context, clients, string) error{
		deactivateKeys, deleteKeys, deleteLogin, leaveGroups, detachPolicies, deletePolicies,
	}
	for _, step := range steps {
		if err := step(ctx, c, name); err != nil && !gone(err) {
			return "", sent(revoking, err)
		}
	}
	_, err = c.iam.DeleteUser(failpoint.OnSending(ctx, failpoint.R2), &iam.DeleteUserInput{UserName: &name})
	switch {
	case err == nil || gone(err):
		return "", nil
	case code(err) != codeDeleteConflict:
		return "", sent(revoking, err)
	}
	// An MFA device, a certificate, a key of a service: nothing of it may do anything.
	if err := putUserPolicy(ctx, c, name, endPolicy, denyAll); err != nil && !gone(err) {
		return "", sent(revoking, err)
	}
	return "the IAM user " + name + " has something that ScaiVault did not give it, and is denied everything: remove its MFA devices, certificates and service credentials, then run: aws iam delete-user --user-name " + name, nil
}

// eachKey does something to every key of a user: the page shows at most some hundred, a user has two.
func eachKey(ctx context.Context, c clients, name string, do func(id *string) error) error {
	pages := iam.NewListAccessKeysPaginator(c.iam, &iam.ListAccessKeysInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, key := range page.AccessKeyMetadata {
			if err := do(key.AccessKeyId); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

func deactivateKeys(ctx context.Context, c clients, name string) error {
	err := eachKey(ctx, c, name, func(id *string) error {
		_, err := c.iam.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: &name, AccessKeyId: id, Status: types.StatusTypeInactive})
		return err
	})
	failpoint.Hit(failpoint.Disabled)
	return err
}

func deleteKeys(ctx context.Context, c clients, name string) error {
	return eachKey(ctx, c, name, func(id *string) error {
		_, err := c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: &name, AccessKeyId: id})
		return err
	})
}

// deleteLogin removes the password for the console that a credential with rights on IAM may have
// given itself.
func deleteLogin(ctx context.Context, c clients, name string) error {
	_, err := c.iam.DeleteLoginProfile(ctx, &iam.DeleteLoginProfileInput{UserName: &name})
	return err
}

func leaveGroups(ctx context.Context, c clients, name string) error {
	pages := iam.NewListGroupsForUserPaginator(c.iam, &iam.ListGroupsForUserInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, group := range page.Groups {
			if _, err := c.iam.RemoveUserFromGroup(ctx, &iam.RemoveUserFromGroupInput{UserName: &name, GroupName: group.GroupName}); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}

func detachPolicies(ctx context.Context, c clients, name string) error {
	pages := iam.NewListAttachedUserPoliciesPaginator(c.iam, &iam.ListAttachedUserPoliciesInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, policy := range page.AttachedPolicies {
			if _, err := c.iam.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: &name, PolicyArn: policy.PolicyArn}); err != nil && !gone(err) {
				return err
			}
		}
	}
	failpoint.Hit(failpoint.Emptied)
	return nil
}

func deletePolicies(ctx context.Context, c clients, name string) error {
	pages := iam.NewListUserPoliciesPaginator(c.iam, &iam.ListUserPoliciesInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, policy := range page.PolicyNames {
			if _, err := c.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: &name, PolicyName: &policy}); err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}
