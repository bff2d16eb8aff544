package azure

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Lookup implements engine.Engine. A credential that has its password has all the rest: that comes last.
func (e *Engine) Lookup(ctx context.Context, raw engine.Recipe) (engine.Presence, error) {
	const attempt = "look a credential up"
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	lookup := e.lookupApplication
	if r.Existing {
		lookup = e.lookupPassword
	}
	found, err := lookup(ctx, r)
	if err != nil {
		return engine.Presence{}, asked(attempt, err)
	}
	return found, nil
}

func (e *Engine) lookupApplication(ctx context.Context, r recipe) (engine.Presence, error) {
	made, err := e.find(ctx, r)
	if err != nil {
		return engine.Presence{}, err
	}
	for _, a := range made {
		p, ok := lasting(a.Passwords)
		if !ok {
			continue
		}
		r.Application, r.ClientID, r.Key = a.ID, a.AppID, p.Key
		if r.Principal, err = e.client.principal(ctx, a.AppID); err != nil {
			return engine.Presence{}, err
		}
		if r.Principal == "" {
			continue // half made, or half ended: nobody logs in
		}
		if r.Groups, err = e.groupIDs(ctx, r.Groups); err != nil {
			return engine.Presence{}, err
		}
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	}
	if len(made) > 0 {
		return engine.Presence{State: engine.Unusable}, nil
	}
	there, err := e.client.applicationsNamed(ctx, r.Username)
	if err == nil && len(there) > 0 {
		return engine.Presence{State: engine.Foreign}, nil
	}
	return engine.Presence{State: engine.Absent}, err
}

// lasting is a password that has not ended.
func lasting(all []password) (password, bool) {
	for _, p := range all {
		if p.Ends == nil || time.Now().Before(*p.Ends) {
			return p, true
		}
	}
	return password{}, false
}

func (e *Engine) lookupPassword(ctx context.Context, r recipe) (engine.Presence, error) {
	a, err := e.client.application(ctx, r.Application)
	if notFound(err) {
		return engine.Presence{State: engine.Absent}, nil
	} else if err != nil {
		return engine.Presence{}, err
	}
	p, there, foreign := e.passwordOf(a, r.Username)
	switch {
	case there:
		r.ClientID, r.Key = a.AppID, p.Key
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	case foreign:
		return engine.Presence{State: engine.Foreign}, nil
	}
	return engine.Presence{State: engine.Absent}, nil
}
