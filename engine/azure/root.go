package azure

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const rotatingRoot = "rotate the root credentials"

// PlanRoot implements engine.RootRotator. Microsoft makes the password: one more for the root's own
// application, beside the present one. It is signed for this root secret, so that the next
// PlanRoot ends whatever a rotation of it has left: what a crash lost, and what nobody wants since somebody
// wrote another root by hand.
func (e *Engine) PlanRoot(ctx context.Context) (map[string]statement.Secret, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	candidate, err := e.planRoot(ctx)
	if err != nil {
		return nil, mapped(rotatingRoot, err)
	}
	return candidate, nil
}

func (e *Engine) planRoot(ctx context.Context) (map[string]statement.Secret, error) {
	current, err := e.client.present()
	if err != nil {
		return nil, err
	}
	own, err := e.ownApplication(ctx, current)
	if err != nil {
		return nil, err
	}
	key, err := current.keyIn(own)
	if err != nil {
		return nil, err
	}
	if err := e.endRoots(ctx, own, func(p password) bool { return e.madeForRoot(p) && p.Key != key }); err != nil {
		return nil, err
	}
	made, err := e.client.addPassword(ctx, own.ID, e.rootMark(key), nil)
	if err != nil {
		return nil, err
	}
	candidate := maps.Clone(e.options.Root)
	candidate["client_secret"] = made.Text
	candidate["key_id"], candidate["former_key_id"] = statement.Secret(made.Key), statement.Secret(key)
	return candidate, nil
}

// SetRoot implements engine.RootRotator. The candidate is a password of the root's application already; it
// is proved by a login, and only then the former one is ended, and any that was made in its stead.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := newRoot(candidate)
	if err != nil {
		return err
	}
	current, err := e.client.present()
	if err != nil {
		return err
	}
	if next.clientID != current.clientID || next.key == "" || next.former == "" {
		return refused(rotatingRoot + ": the candidate is not one that was planned")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	failpoint.Hit(failpoint.RootSet)
	err = eventually(ctx, func() error {
		issued, err := e.client.logIn(ctx, next.login, e.client.cloud.graphScope)
		if err == nil {
			next.tokens.keep(e.client.cloud.graphScope, issued)
		}
		return err
	}, unknownYet)
	if err != nil {
		return e.notTaken(ctx, current, next, err)
	}
	failpoint.Hit(failpoint.RootProved)
	e.client.become(next)
	own, err := e.ownApplication(ctx, next)
	if err == nil {
		err = e.endRoots(failpoint.OnSending(ctx, failpoint.RootSent), own, func(p password) bool {
			return p.Key == next.former || e.madeForRoot(p) && p.Key != next.key
		})
	}
	if err != nil {
		known := *mapped(rotatingRoot, err)
		if known.Kind == engine.Refused { // the candidate works: it must not be forgotten
			known.Kind = engine.Uncertain
		}
		return &known
	}
	return nil
}

// notTaken is the error of a candidate that cannot log in: refused for good only where the root that works
// sees that there is no such password.
func (e *Engine) notTaken(ctx context.Context, current, next root, err error) error {
	var r *refusedLogin
	if !errors.As(err, &r) {
		return mapped(rotatingRoot, err)
	}
	ctx, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	own, lookErr := e.ownApplication(ctx, current)
	if lookErr == nil && !slices.ContainsFunc(own.Passwords, func(p password) bool { return p.Key == next.key }) {
		return refused(rotatingRoot + ": the new password is not there any more")
	}
	return busy(rotatingRoot+": Microsoft Entra ID does not take the new password yet ("+r.text+"); the former one works on", err)
}

// ownApplication is the root's.
func (e *Engine) ownApplication(ctx context.Context, r root) (application, error) {
	found, err := e.client.applications(ctx, "appId eq "+quoted(r.clientID))
	if err != nil {
		return application{}, err
	}
	for _, a := range found {
		if a.AppID == r.clientID {
			return a, nil
		}
	}
	return application{}, misconfigured("look for the root's own application: it is registered in another tenant, or cannot be seen", nil)
}

// keyIn is the id of the root's present password: as the root secret tells, else by the first characters
// of the password, which Microsoft shows.
func (r root) keyIn(own application) (string, error) {
	var keys []string
	for _, p := range own.Passwords {
		if p.Key == r.key || r.key == "" && p.Hint != "" && strings.HasPrefix(r.secret.Reveal(), p.Hint) {
			keys = append(keys, p.Key)
		}
	}
	if len(keys) != 1 {
		return "", misconfigured(rotatingRoot+": which of the application's passwords is the present one cannot be told: write its id as key_id to the root secret", nil)
	}
	return keys[0], nil
}

const rootPrefix = "ScaiVault root after "

// rootMark is how a password is called that was made to replace another one of the root. It is signed for
// the root secret: an application may be the root of several, each with a password of its own, and a
// rotation of one must not end the others'.
func (e *Engine) rootMark(key string) string {
	return rootPrefix + key + " (" + signature(e.options.Namer, "root:"+e.options.Tenant+":"+e.config.RootCredentialsPath+":"+key) + ")"
}

// madeForRoot tells whether a rotation of this root secret made a password.
func (e *Engine) madeForRoot(p password) bool {
	rest, marked := strings.CutPrefix(p.DisplayName, rootPrefix)
	key, _, _ := strings.Cut(rest, " (")
	return marked && p.DisplayName == e.rootMark(key)
}

// endRoots ends passwords of the root's own application, and sees them gone.
func (e *Engine) endRoots(ctx context.Context, own application, which func(password) bool) error {
	for _, p := range own.Passwords {
		if which(p) {
			if err := e.client.removePassword(ctx, own.ID, p.Key); err != nil {
				return err
			}
		}
	}
	return nil
}
