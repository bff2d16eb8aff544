package ssh

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Revoke implements engine.Engine. The lease is marked before it is called, and that is all there is to
// do: a one-time password is refused from then on, and the serial of a certificate is in the list. Hosts
// know it when they have fetched that, unless the certificate has ended before, or nobody was given it.
func (e *Engine) Revoke(_ context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r, err := readRecipe(raw)
	if err != nil {
		return engine.Outcome{}, err
	}
	now, end := time.Now(), time.Unix(r.Ends, 0)
	if r.Serial == 0 || !r.Issued || !now.Before(end) {
		return engine.Outcome{}, nil
	}
	fetched := now.Add(e.config.lead())
	if end.Before(fetched) {
		fetched = end
	}
	fetched = fetched.UTC().Truncate(time.Microsecond)
	return engine.Outcome{EffectiveAt: &fetched}, nil
}

// Lookup implements engine.Engine. Nobody can be asked: a credential that was made can be used until its
// end. One that the lease does not say was made is in nobody's hands and never will be, since the answer
// comes after that is written down; it is absent, so that its lease ends and its serial is listed.
func (e *Engine) Lookup(_ context.Context, raw engine.Recipe) (engine.Presence, error) {
	r, err := readRecipe(raw)
	if err != nil {
		return engine.Presence{}, err
	}
	if r.Issued && time.Now().Before(time.Unix(r.Ends, 0)) {
		return engine.Presence{State: engine.Usable, Recipe: r.encode()}, nil
	}
	return engine.Presence{State: engine.Absent}, nil
}
