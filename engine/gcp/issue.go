package gcp

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	issuing  = "issue a credential"
	revoking = "revoke a credential"
	listing  = "list the credentials"
	looking  = "look a credential up"
)

// maxName bounds the names of credentials on an account that exists. They are in certificates.
const maxName = 60

// Plan implements engine.Engine.
func (e *Engine) Plan(_ context.Context, q engine.PlanRequest) (*engine.Plan, error) {
	parsed, ok := q.Role.(*role)
	if !ok {
		return nil, misconfigured("plan a credential: the role is not one of this engine", nil)
	}
	if len(q.Params) > 0 && string(q.Params) != "{}" {
		return nil, refused("plan a credential: a request for GCP takes no fields of its own")
	}
	r := recipe{
		Source: e.source, LeaseID: q.LeaseID, Kind: parsed.CredentialType, Email: parsed.Account,
		Ends: q.ExpiresAt.UTC().Truncate(time.Second), Resources: parsed.resources(),
	}
	if parsed.Account != "" && parsed.Account == e.rootEmail() {
		return nil, refused("plan a credential: %s is the root's own account", parsed.Account)
	}
	if parsed.Account == "" {
		r.Own, r.Username = true, e.newAccountID(q.RoleName)
		r.Email = e.ownAccount(r.Username).email
	} else {
		r.Username = e.options.Namer.New(q.RoleName, maxName)
	}
	p := &engine.Plan{
		LeaseID: q.LeaseID, Username: r.Username, Role: parsed, ExpiresAt: q.ExpiresAt,
		Data: map[string]statement.Secret{"service_account_email": statement.Secret(r.Email)},
	}
	if parsed.CredentialType == keyCredential && parsed.KeyOrigin != googleKey {
		pair := newKey()
		r.PublicKey, p.Private = fingerprint(pair.Public()), pair
	}
	p.Recipe = r.encode()
	return p, nil
}

// Issue implements engine.Engine. An account of the credential's own is made first, then its
// bindings, and the key or token last: what is half made cannot be used.
func (e *Engine) Issue(ctx context.Context, p *engine.Plan) (engine.Recipe, error) {
	wish, ok := p.Role.(*role)
	if !ok {
		return nil, misconfigured(issuing+": the role is not one of this engine", nil)
	}
	r, err := e.readRecipe(p.Recipe)
	if err != nil {
		return nil, err
	}
	if !time.Now().Before(p.Deadline) {
		return nil, refused(issuing + ": the deadline has passed")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	ctx, cancel = context.WithDeadline(ctx, p.Deadline)
	defer cancel()
	e.remember(wish)
	if r.Own {
		err = e.issueOwn(ctx, wish, &r, p)
	} else {
		err = e.issueOf(ctx, wish, &r, p)
	}
	if err != nil {
		return nil, plain(err)
	}
	return r.encode(), nil
}

// issueOwn makes an account with its bindings, and its credential. What it made before it was refused
// it takes back.
func (e *Engine) issueOwn(ctx context.Context, wish *role, r *recipe, p *engine.Plan) error {
	made, err := e.createAccount(ctx, r.Username, r.LeaseID)
	if err != nil {
		return err
	}
	r.AccountID = made.UniqueID
	failpoint.Hit(failpoint.F4)
	err = e.furnish(ctx, wish, r, p)
	if err == nil || engine.KindOf(err) == engine.Uncertain {
		return err
	}
	undo, cancel := e.operation(context.WithoutCancel(ctx))
	defer cancel()
	residue, undone := e.dismantle(undo, *r)
	if undone != nil || residue != "" {
		return failure(engine.Uncertain, plain(err).Reason, errors.Join(err, undone))
	}
	return err
}

func (e *Engine) furnish(ctx context.Context, wish *role, r *recipe, p *engine.Plan) error {
	for _, b := range wish.Bindings {
		if err := e.bind(ctx, b, *r); err != nil {
			return err
		}
	}
	return e.credential(ctx, wish, r, p, unknownAccount)
}

// unknownAccount tells what Google answers while an account that was made just now is not known
// everywhere: it is not there, or nobody may use it.
func unknownAccount(a *apiError) bool {
	return a.status == http.StatusNotFound || a.status == http.StatusForbidden
}

// unknownMember tells what it answers where such an account comes into a policy.
func unknownMember(a *apiError) bool {
	return a.status == http.StatusBadRequest && strings.Contains(a.message, "does not exist")
}

// issueOf makes a credential of an account that exists.
func (e *Engine) issueOf(ctx context.Context, wish *role, r *recipe, p *engine.Plan) error {
	if wish.CredentialType == keyCredential {
		if err := e.roomForKey(ctx, r.account()); err != nil {
			return err
		}
		there, found, err := e.findAccount(ctx, issuing, r.account())
		if err != nil {
			return err
		}
		if !found || there.Disabled {
			return refused("%s: the service account %s does not exist, or is disabled", issuing, r.Email)
		}
		r.AccountID = there.UniqueID
	}
	failpoint.Hit(failpoint.F4)
	return e.credential(ctx, wish, r, p, nil)
}

// roomForKey refuses to run into Google's limit.
func (e *Engine) roomForKey(ctx context.Context, a *account) error {
	all, err := e.managedKeys(ctx, issuing, a, engine.Issuing)
	if gone(err) {
		return refused("%s: the service account %s does not exist", issuing, a.email)
	}
	if err != nil || len(all) < maxKeys {
		return err
	}
	return refused("%s: the service account %s has %d keys, which is all that Google allows: revoke some, delete those that nobody uses (gcloud iam service-accounts keys list --iam-account %s), let max_leases bound the role, or use bindings or access_token, which have no such limit", issuing, a.email, len(all), a.email)
}

// credential makes the key or the token, and completes recipe and data by it.
func (e *Engine) credential(ctx context.Context, wish *role, r *recipe, p *engine.Plan, missing func(*apiError) bool) error {
	ctx = failpoint.OnSending(ctx, failpoint.F5)
	if wish.CredentialType == tokenCredential {
		return e.makeToken(ctx, wish, r, p, missing)
	}
	pair, ok := p.Private.(*rsa.PrivateKey)
	if !ok {
		made, err := e.makeKey(ctx, r.account(), missing)
		if err != nil {
			return err
		}
		r.KeyID = made.id()
		p.Data["private_key_data"] = inBase64(statement.Secret(made.PrivateKeyData))
		return nil
	}
	certificate, err := e.certify(pair, r.Username, r.Ends)
	if err != nil {
		return failure(engine.Refused, issuing+": the certificate cannot be made", err)
	}
	made, err := e.upload(ctx, issuing, r.account(), certificate, engine.Issuing, missing)
	if a := answerOf(err); a != nil && (a.throttled() || a.code == "FAILED_PRECONDITION") && !r.Own {
		if full := e.roomForKey(ctx, r.account()); full != nil { // others were faster
			return full
		}
	}
	if err != nil {
		return err
	}
	r.KeyID = made.id()
	key, err := file(r.account(), r.AccountID, r.KeyID, pair)
	if err != nil {
		return failure(engine.Uncertain, issuing+": the key cannot be written", err)
	}
	p.Data["private_key_data"] = inBase64(key)
	return nil
}

// makeToken lets Google make a token that ends with the lease.
func (e *Engine) makeToken(ctx context.Context, wish *role, r *recipe, p *engine.Plan, missing func(*apiError) bool) error {
	life := time.Until(p.ExpiresAt).Truncate(time.Second)
	if life <= 0 {
		return refused(issuing + ": its end has passed")
	}
	var made struct {
		AccessToken statement.Secret `json:"accessToken"`
		ExpireTime  time.Time        `json:"expireTime"`
	}
	c := post(issuing, e.config.Endpoints.Credentials+"/v1/projects/-/serviceAccounts/"+r.Email+":generateAccessToken",
		map[string]any{"scope": wish.TokenScopes, "lifetime": fmt.Sprintf("%ds", int(life.Seconds()))}, &made)
	c.lane, c.missing, c.repeatable = engine.Issuing, missing, true // nobody has a token whose answer was lost
	if err := e.do(ctx, c); err != nil {
		return err
	}
	ends := made.ExpireTime.UTC()
	r.TokenEnds = &ends
	p.Data["access_token"] = made.AccessToken
	return nil
}
