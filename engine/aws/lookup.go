package aws

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. A user without an active key is half made, or half ended. Sessions
// cannot be looked up: one that was asked for may be in somebody's hands until it would have ended.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	if r.Type != iamUser {
		if time.Now().Before(r.Ends) {
			return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
		}
		return engine.Presence{State: engine.Absent}, nil
	}
	c, err := e.reach()
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	u, err := findUser(ctx, c, r.Username)
	switch {
	case err != nil:
		return engine.Presence{}, err
	case u == nil:
		return engine.Presence{State: engine.Absent}, nil
	case !e.ours(u, r):
		return engine.Presence{State: engine.Foreign}, nil
	}
	key, err := activeKey(ctx, c, r.Username)
	switch {
	case gone(err):
		return engine.Presence{State: engine.Absent}, nil
	case err != nil:
		return engine.Presence{}, asked("look a credential up", err)
	case key == "":
		return engine.Presence{State: engine.Unusable}, nil
	}
	r.UserID, r.AccessKeyID = *u.UserId, key
	return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
}

// activeKey is the first key of a user that can be used; empty for none.
func activeKey(ctx context.Context, c clients, name string) (string, error) {
	pages := iam.NewListAccessKeysPaginator(c.iam, &iam.ListAccessKeysInput{UserName: &name})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", err
		}
		for _, key := range page.AccessKeyMetadata {
			if key.Status == types.StatusTypeActive && key.AccessKeyId != nil {
				return *key.AccessKeyId, nil
			}
		}
	}
	return "", nil
}
