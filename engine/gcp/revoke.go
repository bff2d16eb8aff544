package gcp

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

// Revoke implements engine.Engine. What was made is taken away in the reverse order. Tokens that
// somebody may have got before go on for a while: until then the credential is not dead.
func (e *Engine) Revoke(ctx context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Outcome{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var residue string
	switch {
	case r.Own:
		residue, err = e.dismantle(ctx, r)
	case r.Kind == keyCredential:
		err = e.endKey(ctx, r)
	}
	if err != nil {
		return engine.Outcome{}, plain(err)
	}
	failpoint.Hit(failpoint.R3)
	return engine.Outcome{Residue: residue, EffectiveAt: e.dead(r, time.Now())}, nil
}

// dead is when nothing works any more that somebody got with the credential; nil for now. The manager
// of leases waits for the first answer only.
//
//   - A token that was made with a key lives up to an hour, also when the key is gone.
//   - A deleted account ends its tokens, too, as soon as all of Google knows.
//   - A token of an account that stays ends by itself.
func (e *Engine) dead(r recipe, now time.Time) *time.Time {
	var at time.Time
	switch {
	case !r.made():
		return nil // it was given to nobody
	case r.Own:
		at = now.Add(e.config.Propagation.Std())
	case r.TokenEnds == nil:
		at = earlier(now, r.Ends).Add(tokenLife)
	default:
		at = *r.TokenEnds
	}
	if r.TokenEnds != nil {
		at = earlier(at, *r.TokenEnds)
	}
	if !at.After(now) {
		return nil
	}
	at = at.UTC()
	return &at
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// endKey deletes the key of a credential on an account that stays, unless it is seen to have another
// public key than the planned one. What is not seen may have been made just now: it is deleted by the
// id that Google gave.
func (e *Engine) endKey(ctx context.Context, r recipe) error {
	there, stranger, err := e.plannedKey(ctx, revoking, r)
	if err != nil || stranger {
		return err
	}
	id := r.KeyID
	if there != nil {
		id = there.id()
	}
	if id == "" {
		return nil
	}
	return e.deleteKey(failpoint.OnSending(ctx, failpoint.R2), revoking, r.account(), id)
}

// plannedKey is the key of a credential; nil where there is none. One that was made is known by its
// id, too, which Google gave for it; only one whose certificate is shown and has another public key is a
// stranger's.
func (e *Engine) plannedKey(ctx context.Context, attempt string, r recipe) (there *accountKey, stranger bool, err error) {
	switch {
	case r.KeyID == "" && r.PublicKey == "":
		return nil, false, nil
	case r.KeyID == "":
		there, err = e.findKey(ctx, attempt, r.account(), r.PublicKey)
		return there, false, err
	}
	k, found, err := e.key(ctx, attempt, r.account(), r.KeyID)
	if err != nil || !found {
		return nil, false, err
	}
	if cert := k.certificate(); r.PublicKey != "" && cert != nil && fingerprint(cert.PublicKey) != r.PublicKey {
		return nil, true, nil
	}
	return &k, false, nil
}

// dismantle takes an account of ours away: its key, its bindings, itself. One that was made and is not
// seen may only not be known yet: it is deleted all the same, by its number. A policy that may not be
// changed any more keeps the powerless name of a deleted account, which is the residue.
func (e *Engine) dismantle(ctx context.Context, r recipe) (residue string, err error) {
	there, found, err := e.findAccount(ctx, revoking, r.account())
	if err != nil {
		return "", err
	}
	if found && !e.madeFor(there, r) {
		return "", nil // a stranger's, that bears the name
	}
	if r.KeyID != "" {
		if err := e.deleteKey(ctx, revoking, r.account(), r.KeyID); err != nil {
			return "", err
		}
	}
	failpoint.Hit(failpoint.Disabled)
	var left []string
	for i := len(r.Resources) - 1; i >= 0; i-- {
		err := e.unbind(ctx, r.Resources[i], r)
		if engine.KindOf(err) == engine.Refused {
			left = append(left, leftBinding(r.Resources[i], r.Email)+" ("+plain(err).Reason+")")
		} else if err != nil {
			return "", err
		}
		failpoint.Hit(failpoint.Emptied)
	}
	if id := cmp.Or(r.AccountID, there.UniqueID); id != "" {
		if err := e.deleteAccount(failpoint.OnSending(ctx, failpoint.R2), r.account().project, id); err != nil {
			return "", err
		}
	}
	return strings.Join(left, "; "), nil
}

// leftBinding says what is left in a policy, and how to take it away.
func leftBinding(resource, email string) string {
	return "the policy of " + resource + " still names the deleted account " + email +
		", which gives nobody anything: give root the right to change it, or remove that member"
}
