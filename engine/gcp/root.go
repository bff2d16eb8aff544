package gcp

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"maps"

	"golang.org/x/oauth2"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/internal/statement"
)

const (
	rotating = "rotate the root credentials"
	// rootPrefix begins the name in the certificates of root keys that we made.
	rootPrefix = "scaivault-root-"
)

// rootName is in the certificates of the keys that rotations of one root secret made. An account may be
// the root of several engines, of several tenants, each with a secret and thus a key of its own: a rotation
// of one must not end the others'.
func (e *Engine) rootName() string {
	sum := sha256.Sum256([]byte(e.options.Tenant + ":" + e.config.RootCredentialsPath))
	return rootPrefix + hex.EncodeToString(sum[:8])
}

// PlanRoot implements engine.RootRotator. The pair is ours, so that the candidate is whole before
// Google knows of it; the account stays.
func (e *Engine) PlanRoot(context.Context) (map[string]statement.Secret, error) {
	current := e.tokens.of()
	if current.key == nil {
		return nil, refused(rotating + ": a workload identity federation has no key to rotate; its subject_token is the other issuer's")
	}
	text, err := file(accountOf(current.key.ClientEmail), current.key.ClientID, "", newKey())
	if err != nil {
		return nil, refused(rotating + ": the key cannot be written")
	}
	candidate := maps.Clone(e.options.Root)
	candidate["credentials"] = text
	return candidate, nil
}

// SetRoot implements engine.RootRotator. An account may have several keys, so the candidate is
// uploaded and proved by a new token before the former goes: whatever is cut off, at least one of the
// two works, and it can be repeated. Keys that rotations before left behind go with the former.
func (e *Engine) SetRoot(ctx context.Context, candidate map[string]statement.Secret) error {
	next, err := readRoot(e.config, candidate)
	if err != nil {
		return err
	}
	current := e.tokens.of()
	if current.key == nil || next.key == nil || next.key.ClientEmail != current.key.ClientEmail {
		return refused(rotating + ": the account keeps its name; only its key changes")
	}
	ctx, cancel := e.operation(ctx)
	defer cancel()
	token, err := next.token(ctx, e.other)
	if engine.KindOf(err) == engine.Misconfigured { // else it was uploaded before
		if err := e.uploadRoot(ctx, next); err != nil {
			return plain(err)
		}
		failpoint.Hit(failpoint.RootSet)
		if token, err = e.prove(ctx, next); err != nil {
			return failure(engine.Uncertain, rotating+": Google took the new key and does not accept it yet", err)
		}
	}
	if err != nil {
		return plain(err)
	}
	e.mu.Lock()
	if e.replaced == nil || current.key.PrivateKey != next.key.PrivateKey { // else it was proved before, and the former is there yet
		e.replaced = current
	}
	former := e.replaced
	e.mu.Unlock()
	e.tokens.use(next, token)
	failpoint.Hit(failpoint.RootProved)
	if err := e.retire(ctx, former, next); err != nil {
		known := *plain(err)
		if known.Kind == engine.Refused { // the candidate works, and the former may not: it must not be forgotten
			known.Kind = engine.Uncertain
		}
		return &known
	}
	e.mu.Lock()
	e.replaced = nil
	e.mu.Unlock()
	return nil
}

// uploadRoot gives the root's account the candidate's public key, if it has it not yet.
func (e *Engine) uploadRoot(ctx context.Context, next *root) error {
	of := accountOf(next.key.ClientEmail)
	found, err := e.findKey(ctx, rotating, of, fingerprint(next.pair.Public()))
	if err != nil || found != nil {
		return err
	}
	all, err := e.managedKeys(ctx, rotating, of, engine.Revoking)
	if err != nil {
		return err
	}
	if len(all) >= maxKeys {
		return refused("%s: the account %s has %d keys, which is all that Google allows: delete those that nobody uses", rotating, of.email, len(all))
	}
	certificate, err := e.certify(next.pair, e.rootName(), forever)
	if err != nil {
		return refused("%s: the certificate cannot be made", rotating)
	}
	_, err = e.upload(failpoint.OnSending(ctx, failpoint.RootSent), rotating, of, certificate, engine.Revoking, nil)
	return err
}

// prove gets a token for the candidate: after an upload it takes Google a while to know the key.
func (e *Engine) prove(ctx context.Context, next *root) (*oauth2.Token, error) {
	for tried := 0; ; tried++ {
		token, err := next.token(ctx, e.other)
		if err == nil || !engine.Wait(ctx, backoff(tried)) {
			return token, err
		}
	}
}

// retire deletes the former key, and what other rotations left of theirs.
func (e *Engine) retire(ctx context.Context, former, next *root) error {
	of := accountOf(next.key.ClientEmail)
	kept := fingerprint(next.pair.Public())
	old := fingerprint(former.pair.Public())
	var spent []string
	err := e.eachUploaded(ctx, rotating, of, func(k accountKey, cert *x509.Certificate) {
		public := fingerprint(cert.PublicKey)
		if public != kept && (public == old || cert.Subject.CommonName == e.rootName() && e.marked(cert)) {
			spent = append(spent, k.id())
		}
	})
	if err != nil {
		return err
	}
	if id := former.key.PrivateKeyID; id != "" && old != kept {
		spent = append(spent, id)
	}
	for _, id := range spent {
		if err := e.deleteKey(ctx, rotating, of, id); err != nil {
			return err
		}
	}
	return nil
}
