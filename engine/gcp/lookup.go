package gcp

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. Only what may be held by somebody is usable: a token, or a key
// that Google made, whose making was not confirmed is held by nobody, since its text was in one answer
// alone.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var found engine.Presence
	switch {
	case r.Own:
		found, err = e.lookUpOwn(ctx, r)
	case r.Kind == keyCredential:
		found, err = e.lookUpKey(ctx, r)
	case e.living(r):
		found = engine.Presence{State: engine.Usable, Recipe: r.encode()}
	}
	if err != nil {
		return engine.Presence{}, plain(err)
	}
	return found, nil
}

func (e *Engine) living(r recipe) bool {
	return r.TokenEnds != nil && time.Now().Before(*r.TokenEnds)
}

func (e *Engine) lookUpOwn(ctx context.Context, r recipe) (engine.Presence, error) {
	there, found, err := e.findAccount(ctx, looking, r.account())
	switch {
	case err != nil || !found:
		return engine.Presence{}, err
	case !e.madeFor(there, r):
		return engine.Presence{State: engine.Foreign}, nil
	case r.Kind == tokenCredential && e.living(r):
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	case r.Kind == tokenCredential:
		return engine.Presence{State: engine.Unusable}, nil
	}
	r.AccountID = there.UniqueID
	key, err := e.lookUpKey(ctx, r)
	if err == nil && key.State == engine.Absent {
		key.State = engine.Unusable
	}
	return key, err
}

func (e *Engine) lookUpKey(ctx context.Context, r recipe) (engine.Presence, error) {
	there, _, err := e.plannedKey(ctx, looking, r)
	if err != nil {
		return engine.Presence{}, err
	}
	switch {
	case there == nil:
		return engine.Presence{State: engine.Absent}, nil
	case there.Disabled:
		return engine.Presence{State: engine.Unusable}, nil
	}
	r.KeyID = there.id()
	if r.AccountID == "" {
		account, found, err := e.findAccount(ctx, looking, r.account())
		if err != nil || !found {
			return engine.Presence{}, err
		}
		r.AccountID = account.UniqueID
	}
	return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
}
