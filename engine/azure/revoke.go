package azure

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
)

const revoking = "revoke a credential"

// errStillShown says that Azure does not know everywhere yet that something was deleted.
var errStillShown = errors.New("it is still shown")

// Revoke implements engine.Engine. The password goes first: nobody logs in from then on. A token that was
// given out before lives to its own end, and the Outcome says until when.
func (e *Engine) Revoke(ctx context.Context, raw engine.Recipe) (engine.Outcome, error) {
	r, err := e.readRecipe(raw)
	if err != nil {
		return engine.Outcome{}, err
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	kill := e.dismantle
	if r.Existing {
		kill = e.endPassword
	}
	outcome, err := kill(ctx, r)
	if err != nil {
		return engine.Outcome{}, ending(err)
	}
	failpoint.Hit(failpoint.R3)
	return outcome, nil
}

// RevokeBatch implements engine.BatchRevoker: several at a time, as many as there are connections.
func (e *Engine) RevokeBatch(ctx context.Context, rs []engine.Recipe) []engine.Result {
	results := make([]engine.Result, len(rs))
	var wg sync.WaitGroup
	room := make(chan struct{}, cap(e.client.slots))
	for i, r := range rs {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			results[i].Outcome, results[i].Err = e.Revoke(ctx, r)
		})
	}
	wg.Wait()
	return results
}

// dismantle ends an application of ours, and all that goes with it. Each step can be repeated.
func (e *Engine) dismantle(ctx context.Context, r recipe) (engine.Outcome, error) {
	made, err := e.find(ctx, r)
	if err != nil {
		return engine.Outcome{}, err
	}
	return e.dismantleFound(ctx, r, made)
}

func (e *Engine) dismantleFound(ctx context.Context, r recipe, made []application) (engine.Outcome, error) {
	usable := r.Key != ""
	for _, a := range made {
		usable = usable || len(a.Passwords) > 0
		for _, p := range a.Passwords {
			if err := e.client.removePassword(ctx, a.ID, p.Key); err != nil {
				return engine.Outcome{}, err
			}
		}
	}
	if len(made) == 0 && guid(r.Application) && guid(r.Principal) && guid(r.Key) {
		if err := e.endUnseen(ctx, r); err != nil {
			return engine.Outcome{}, err
		}
	}
	failpoint.Hit(failpoint.Disabled)
	var residue []string
	for _, a := range made {
		left, err := e.remove(ctx, r, a)
		if err != nil {
			return engine.Outcome{}, err
		}
		residue = append(residue, left...)
	}
	if len(made) == 0 {
		if err := e.unassign(ctx, r.Assignments); err != nil {
			return engine.Outcome{}, err
		}
	}
	if r.Purge {
		if err := e.purge(ctx, r, made); err != nil {
			return engine.Outcome{}, err
		}
	}
	return engine.Outcome{Residue: strings.Join(residue, "; "), EffectiveAt: e.tokensEnd(r, usable)}, nil
}

// find looks for the applications of a credential: by id where that is known, and by name, since the
// answer that told the id may have been lost. Only those that are ours are told: the one whose id Microsoft
// told when it was made, whatever it is called since, and those that bear our mark.
func (e *Engine) find(ctx context.Context, r recipe) ([]application, error) {
	found, err := e.client.applicationsNamed(ctx, r.Username)
	if err != nil {
		return nil, err
	}
	if r.Application != "" && !slices.ContainsFunc(found, func(a application) bool { return a.ID == r.Application }) {
		a, err := e.client.application(ctx, r.Application)
		if err == nil {
			found = append(found, a)
		} else if !notFound(err) {
			return nil, err
		}
	}
	return slices.DeleteFunc(found, func(a application) bool {
		if a.ID == r.Application && r.LeaseID != "" { // not one that was read from the list
			return false
		}
		if foreign := !e.ours(a); foreign {
			e.log.Warn("an application that bears the name of a credential is not ours: left alone", "name", r.Username, "object_id", a.ID)
			return true
		}
		return a.DisplayName != r.Username
	}), nil
}

// endUnseen ends what Microsoft told the ids of, and nothing shows: it is gone, or was made a moment ago and
// is not known everywhere yet. What is told by id is told to where it is written. One that is shown, and is
// not ours any more, is left alone.
func (e *Engine) endUnseen(ctx context.Context, r recipe) error {
	if _, err := e.client.application(ctx, r.Application); !notFound(err) {
		return err
	}
	if err := e.client.removePassword(ctx, r.Application, r.Key); err != nil {
		return err
	}
	if err := e.client.delete(ctx, revoking+": delete the service principal", "/v1.0/servicePrincipals/"+url.PathEscape(r.Principal), grantApplications); err != nil {
		return err
	}
	return e.client.delete(ctx, revoking+": delete the application", "/v1.0/applications/"+url.PathEscape(r.Application), grantApplications)
}

// remove deletes an application of ours with all that its principal has.
func (e *Engine) remove(ctx context.Context, r recipe, a application) (residue []string, err error) {
	principal := r.Principal
	if principal == "" || a.ID != r.Application {
		if principal, err = e.client.principal(ctx, a.AppID); err != nil {
			return nil, err
		}
	}
	if err := e.unassign(ctx, r.Assignments); err != nil {
		return nil, err
	}
	if principal != "" {
		if residue, err = e.strip(ctx, r, principal); err != nil {
			return nil, err
		}
		if err := e.client.delete(ctx, revoking+": delete the service principal", "/v1.0/servicePrincipals/"+url.PathEscape(principal), grantApplications); err != nil {
			return nil, err
		}
	}
	if err := e.client.delete(failpoint.OnSending(ctx, failpoint.R2), revoking+": delete the application", "/v1.0/applications/"+url.PathEscape(a.ID), grantApplications); err != nil {
		return nil, err
	}
	return residue, e.gone(ctx, a.ID)
}

// gone waits until an application that was deleted is not shown any more.
func (e *Engine) gone(ctx context.Context, id string) error {
	err := eventually(ctx, func() error {
		_, err := e.client.application(ctx, id)
		if err == nil {
			return errStillShown
		}
		return err
	}, stillShown)
	switch {
	case notFound(err):
		return nil
	case stillShown(err):
		return busy(revoking+": its application was deleted and is still shown", err)
	}
	return err
}

func stillShown(err error) bool { return errors.Is(err, errStillShown) }

// unassign takes back the roles that were planned.
func (e *Engine) unassign(ctx context.Context, paths []string) error {
	for _, path := range paths {
		if err := e.client.unassign(ctx, path); err != nil {
			return err
		}
	}
	return nil
}

// strip takes from a principal the roles and memberships that it has besides those planned: somebody else
// may have given it some. What root may not take is a residue: it leads to nobody.
func (e *Engine) strip(ctx context.Context, r recipe, principal string) (residue []string, err error) {
	subscriptions := map[string]bool{}
	for _, path := range r.Assignments {
		subscriptions[subscriptionOf(path)] = true
	}
	if e.config.SubscriptionID != "" && len(r.Assignments) == 0 && r.LeaseID == "" { // read from the source: what it was given is not known
		subscriptions["/subscriptions/"+e.config.SubscriptionID] = true
	}
	delete(subscriptions, "")
	for _, subscription := range slices.Sorted(maps.Keys(subscriptions)) {
		left, err := e.client.assignmentsOf(ctx, subscription, principal, false)
		if err != nil && !notFound(err) && !forbidden(err) { // one that is gone has none; root may look at those scopes only where it gives roles
			return nil, err
		}
		for _, a := range left {
			if !strings.EqualFold(a.Properties.PrincipalID, principal) { // the filter was not heard: it is somebody else's
				continue
			}
			err := e.client.unassign(ctx, a.ID)
			if forbidden(err) {
				residue = append(residue, "a role that somebody else gave it, and root may not take: az role assignment delete --ids "+a.ID)
			} else if err != nil {
				return nil, err
			}
		}
	}
	groups, err := e.groupIDs(ctx, r.Groups)
	if err != nil {
		groups = slices.DeleteFunc(slices.Clone(r.Groups), func(g string) bool { return !guid(g) }) // one that was renamed loses the member when that is deleted
	}
	for _, group := range groups {
		if err := e.client.removeMember(ctx, group, principal); err != nil {
			return nil, err
		}
	}
	return residue, nil
}

// purge deletes what was deleted from the recycle bin, too. It comes there some time after.
func (e *Engine) purge(ctx context.Context, r recipe, made []application) error {
	binned, err := e.client.deletedNamed(ctx, r.Username)
	if err != nil {
		return err
	}
	ids := []string{r.Application, r.Principal}
	for _, a := range binned {
		if e.ours(a) {
			ids = append(ids, a.ID)
		}
	}
	for _, a := range made {
		if err := eventually(ctx, func() error { return e.client.purge(ctx, a.ID) }, notFound); err != nil {
			if notFound(err) {
				return busy(revoking+": its application was deleted and is not in the recycle bin yet", err)
			}
			return err
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		if id == "" || slices.ContainsFunc(made, func(a application) bool { return a.ID == id }) {
			continue
		}
		if err := e.client.purge(ctx, id); err != nil && !notFound(err) {
			return err
		}
	}
	return nil
}

// endPassword ends the one password of an application that is somebody's.
func (e *Engine) endPassword(ctx context.Context, r recipe) (engine.Outcome, error) {
	a, err := e.client.application(ctx, r.Application)
	if notFound(err) {
		return engine.Outcome{EffectiveAt: e.tokensEnd(r, r.Key != "")}, nil
	} else if err != nil {
		return engine.Outcome{}, err
	}
	p, there, _ := e.passwordOf(a, r.Username)
	if !there && r.Key == "" {
		return engine.Outcome{}, nil
	}
	if !there { // it is gone, or not known everywhere yet: the id is told to where it is written
		p.Key = r.Key
	}
	if err := e.client.removePassword(failpoint.OnSending(ctx, failpoint.R2), a.ID, p.Key); err != nil {
		return engine.Outcome{}, err
	}
	failpoint.Hit(failpoint.Disabled)
	err = eventually(ctx, func() error {
		a, err := e.client.application(ctx, r.Application)
		if err != nil {
			return err
		}
		if _, there, _ := e.passwordOf(a, r.Username); there {
			return errStillShown
		}
		return nil
	}, stillShown)
	switch {
	case stillShown(err):
		return engine.Outcome{}, busy(revoking+": its password was ended and is still shown", err)
	case err != nil && !notFound(err):
		return engine.Outcome{}, err
	}
	return engine.Outcome{EffectiveAt: e.tokensEnd(r, true)}, nil
}

// tokensEnd is when the last token that the credential can have been given ends; nil where it never was
// of use, or the moment is past. Its password was good for one until now, or until its own end.
func (e *Engine) tokensEnd(r recipe, usable bool) *time.Time {
	now := time.Now()
	last := now
	if !r.Ends.IsZero() && r.Ends.Before(last) {
		last = r.Ends
	}
	end := last.Add(e.config.TokenLifetime.Std()).Truncate(time.Second)
	if !usable || !end.After(now) {
		return nil
	}
	return &end
}
