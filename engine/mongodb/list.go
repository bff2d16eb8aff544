package mongodb

import (
	"context"
	"maps"
	"slices"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// List implements engine.Lister: the users of ours in all databases; where root may not see all, in
// those that are known to have some.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	const attempt = "list the users"
	ctx, cancel := e.operation(ctx)
	defer cancel()
	s, err := e.whole(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := e.recognise(ctx, s, attempt); err != nil {
		return nil, plain(err)
	}
	signed := bson.E{Key: "filter", Value: bson.D{{Key: "customData.scaivault.installation", Value: e.options.Installation}}}
	found, err := s.usersInfo(ctx, attempt, adminDB, bson.D{{Key: "usersInfo", Value: bson.D{{Key: "forAllDBs", Value: true}}}, signed})
	if code(err) == codeUnauthorized {
		found, err = nil, nil
		for _, database := range e.known() {
			some, failed := s.usersInfo(ctx, attempt, database, bson.D{{Key: "usersInfo", Value: 1}, signed})
			if failed != nil {
				err = failed
				break
			}
			found = append(found, some...)
		}
	}
	if err != nil {
		return nil, asked(attempt, err)
	}
	var accounts []engine.Account
	for _, a := range found {
		if e.ours(a) {
			accounts = append(accounts, engine.Account{Username: a.User.Name, Recipe: recipe{Source: e.source, Username: a.User.Name, Database: a.User.Database}.encode()})
		}
	}
	return accounts, nil
}

// known are the databases in which users were planned since the engine was opened.
func (e *Engine) known() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.databases))
}
