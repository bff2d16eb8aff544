package custom

import (
	"context"

	"github.com/scaivault/scaivault/engine"
)

// listing is an engine whose program can list its accounts.
type listing struct{ *Engine }

// List implements engine.Lister. Names that are not this installation's are left out (law L11).
func (l listing) List(ctx context.Context) ([]engine.Account, error) {
	var found listed
	q := &request{Function: functionList}
	if err := l.call(ctx, q, &found); err != nil {
		return nil, err
	}
	var accounts []engine.Account
	for _, a := range found.Accounts {
		if !l.options.Namer.Ours(a.Name) {
			continue
		}
		r := recipe{Source: l.source, Username: a.Name}
		if given(a.Ref) && l.checkRef(q, a.Ref) == nil { // else it is found by its name
			r.Ref = a.Ref
		}
		accounts = append(accounts, engine.Account{Username: a.Name, Recipe: r.encode()})
	}
	return accounts, nil
}
