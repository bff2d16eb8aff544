package azure

import (
	"context"

	"github.com/scaivault/scaivault/engine"
)

// List implements engine.Lister. All applications of the tenant are read: those that exist without us, and
// have a password of ours, bear no mark of their own.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	all, err := e.client.applications(ctx, "")
	if err != nil {
		return nil, asked("list the credentials", err)
	}
	var accounts []engine.Account
	for _, a := range all {
		if e.ours(a) {
			accounts = append(accounts, engine.Account{Username: a.DisplayName, Recipe: recipe{
				Source: e.SourceID(), Username: a.DisplayName, Application: a.ID, ClientID: a.AppID,
			}.encode()})
			continue
		}
		for _, p := range a.Passwords {
			if name, ok := e.nameOf(p); ok {
				accounts = append(accounts, engine.Account{Username: name, Recipe: recipe{
					Source: e.SourceID(), Username: name, Existing: true, Application: a.ID, ClientID: a.AppID, Key: p.Key,
				}.encode()})
			}
		}
	}
	return accounts, nil
}
