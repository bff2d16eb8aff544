package gcp

import (
	"context"
	"crypto/x509"
	"maps"
	"slices"

	"github.com/scaivault/scaivault/engine"
)

// List implements engine.Lister: the accounts of ours in the engine's project, and the keys of ours
// on its other accounts. Keys on accounts of other projects are not found here.
func (e *Engine) List(ctx context.Context) ([]engine.Account, error) {
	ctx, cancel := e.operation(ctx)
	defer cancel()
	var listed []engine.Account
	err := e.eachAccount(ctx, func(a serviceAccount) error {
		of := accountOf(a.Email)
		if of == nil {
			return nil // one of Google's own
		}
		if e.ours(a) {
			r := recipe{Source: e.source, Username: nameIn(a.Email), Kind: keyCredential, Email: a.Email, Own: true, AccountID: a.UniqueID, Resources: e.bound()}
			listed = append(listed, engine.Account{Username: r.Username, Recipe: r.encode()})
			return nil
		}
		return e.eachUploaded(ctx, listing, of, func(k accountKey, cert *x509.Certificate) {
			if name := cert.Subject.CommonName; e.marked(cert) && e.options.Namer.Ours(name) {
				r := recipe{Source: e.source, Username: name, Kind: keyCredential, Email: a.Email, Ends: k.ValidBefore, PublicKey: fingerprint(cert.PublicKey), KeyID: k.id()}
				listed = append(listed, engine.Account{Username: name, Recipe: r.encode()})
			}
		})
	})
	if err != nil {
		return nil, plain(err)
	}
	return listed, nil
}

// bound are the resources in whose policies an account of ours may be, as far as they were met since
// the engine was opened.
func (e *Engine) bound() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	names := []string{"projects/" + e.config.Project}
	for _, name := range slices.Sorted(maps.Keys(e.needs)) {
		if n := e.needs[name]; name != names[0] && slices.Contains(n.permissions, n.of.permission+setPolicy) {
			names = append(names, name)
		}
	}
	return names
}
