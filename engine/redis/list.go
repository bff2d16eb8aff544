package redis

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/scaivault/scaivault/engine"
)

// List implements engine.Lister: the users of ours on any node that can be
// asked.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	members, err := e.survey(ctx)
	if err != nil {
		return nil, plain(err)
	}
	var mu sync.Mutex
	names := map[string]bool{}
	err = firstError(onEach(members, func(m member) error {
		users, err := m.users(ctx)
		mu.Lock()
		defer mu.Unlock()
		for _, u := range users {
			if e.ours(u) {
				names[u.name] = true
			}
		}
		return err
	}))
	if err != nil {
		return nil, plain(err)
	}
	var accounts []engine.Account
	for _, name := range slices.Sorted(maps.Keys(names)) {
		accounts = append(accounts, engine.Account{Username: name, Recipe: recipe{Source: e.source, Username: name}.encode()})
	}
	return accounts, nil
}
