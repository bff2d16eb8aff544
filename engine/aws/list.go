package aws

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/engine"
)

// List implements engine.Lister: the users below our path whose names are ours. The list of IAM has
// no tags; whoever revokes one of them looks at its mark first.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	c, err := e.reach()
	if err != nil {
		return nil, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	prefix := pathPrefix
	var accounts []engine.Account
	pages := iam.NewListUsersPaginator(c.iam, &iam.ListUsersInput{PathPrefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, asked("list the users", err)
		}
		for _, u := range page.Users {
			if u.UserName != nil && u.UserId != nil && e.options.Namer.Ours(*u.UserName) {
				r := recipe{Source: e.source, Type: iamUser, Username: *u.UserName, UserID: *u.UserId}
				accounts = append(accounts, engine.Account{Username: r.Username, Recipe: r.encode()})
			}
		}
	}
	return accounts, nil
}
