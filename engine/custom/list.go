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
	if err := l.call(ctx, &request{Function: functionList}, &found); err != nil {
		return nil, err
	}
	var accounts []engine.Account
	for _, a := range found.Accounts {
		if !l.options.Namer.Ours(a.Name) || len(a.Ref) > maxRef {
			continue
		}
		r := recipe{Source: l.source, Username: a.Name}
		if given(a.Ref) {
			r.Ref = a.Ref
		}
		accounts = append(accounts, engine.Account{Username: a.Name, Recipe: r.encode()})
	}
	return accounts, nil
}
