package ssh

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/scaivault/scaivault/engine"
)

// caKey is one key of the CA.
type caKey struct {
	signer ssh.Signer
	since  time.Time // when it was published
}

func (k caKey) public() ssh.PublicKey { return k.signer.PublicKey() }

func (k caKey) is(other ssh.Signer) bool {
	return bytes.Equal(k.public().Marshal(), other.PublicKey().Marshal())
}

// lead is how long a key is published before it signs: hosts fetch keys when they fetch the list.
func (c *config) lead() time.Duration { return c.KRLMaxAge.Std() + engine.ListAge }

// signsFrom is when a key has been published for long enough to sign, by the terms under which it was
// published.
func (e *Engine) signsFrom(k caKey) time.Time {
	for _, t := range slices.Backward(e.terms) {
		if !k.since.Before(t.From) {
			return k.since.Add(t.Lead.Std())
		}
	}
	return k.since
}

// trustedUntil is when hosts need no longer trust the keys that next has followed: when it signs, and the
// last certificate of them has ended, which may be one of former terms that were longer.
func (e *Engine) trustedUntil(next caKey) time.Time {
	signs := e.signsFrom(next)
	until := signs
	for i, t := range e.terms {
		last := signs
		if i+1 < len(e.terms) && e.terms[i+1].From.Before(signs) {
			last = e.terms[i+1].From
		}
		if end := last.Add(t.MaxTTL.Std() + backdating); t.From.Before(signs) && end.After(until) {
			until = end
		}
	}
	return until
}

// longestTrust is after how long no terms have a key published that another has followed.
func (e *Engine) longestTrust() time.Duration {
	var lead, life time.Duration
	for _, t := range e.terms {
		lead, life = max(lead, t.Lead.Std()), max(life, t.MaxTTL.Std())
	}
	return lead + life + backdating
}

// readKeys reads the root and the former roots that hosts must still trust. A former one that cannot be
// read is nothing to stop for: it signs no more.
func (e *Engine) readKeys(ctx context.Context) ([]caKey, error) {
	root, err := readRoot(e.options.Root)
	if err != nil {
		return nil, err
	}
	if err := prove(root); err != nil {
		return nil, misconfigured("open the CA: its key does not sign", err)
	}
	keys := []caKey{{root, time.Now()}}
	if e.options.Roots == nil {
		return keys, nil
	}
	versions, err := e.options.Roots(ctx, time.Now().Add(-e.longestTrust()))
	if err != nil {
		return nil, &engine.Error{Kind: engine.Unreachable, Reason: "read the former keys of the CA: they cannot be read now", Err: err}
	}
	for _, v := range versions {
		signer, err := readRoot(v.Fields)
		switch {
		case err == nil && keys[len(keys)-1].is(signer):
			keys[len(keys)-1].since = v.Since
		case err == nil:
			keys = append(keys, caKey{signer, v.Since})
		}
	}
	return keys, nil
}

// publish makes a key the newest.
func (e *Engine) publish(signer ssh.Signer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.keys[0].is(signer) {
		e.keys = slices.Insert(slices.Clone(e.keys), 0, caKey{signer, time.Now()})
	}
}

// trusted are the keys that hosts must trust now, the newest first.
func (e *Engine) trusted(now time.Time) []caKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := min(1, len(e.keys))
	for n > 0 && n < len(e.keys) && now.Before(e.trustedUntil(e.keys[n-1])) {
		n++
	}
	return e.keys[:n]
}

// signing is the key that signs now: the newest that has been published for as long as hosts take to
// fetch it; the oldest where none has.
func (e *Engine) signing(now time.Time) caKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range e.keys {
		if !now.Before(e.signsFrom(k)) {
			return k
		}
	}
	return e.keys[len(e.keys)-1]
}

// PublicKeys implements engine.KeyPublisher: the file that sshd reads as TrustedUserCAKeys.
func (e *Engine) PublicKeys() []byte {
	var b strings.Builder
	for _, k := range e.trusted(time.Now()) {
		b.WriteString(line(k.public(), e.options.EngineName) + "\n")
	}
	return []byte(b.String())
}

// describeKeys tells which keys there are, and since when.
func (e *Engine) describeKeys(h *engine.Health, now time.Time) {
	trusted, signing := e.trusted(now), e.signing(now)
	h.Details["ca_key"] = ssh.FingerprintSHA256(signing.public())
	h.Details["ca_key_type"] = signing.public().Type()
	h.Details["ca_key_since"] = signing.since.UTC().Format(time.RFC3339)
	h.Details["trusted_keys"] = strconv.Itoa(len(trusted))
	if newest := trusted[0]; !newest.is(signing.signer) {
		h.Details["next_ca_key"] = ssh.FingerprintSHA256(newest.public())
		h.Details["next_ca_key_signs_from"] = e.signsFrom(newest).UTC().Format(time.RFC3339)
	}
	if err := prove(signing.signer); err != nil {
		h.Status, h.Error = "misconfigured", "the key of the CA does not sign"
	}
}

// prove signs a certificate and checks it.
func prove(ca ssh.Signer) error {
	q := &request{key: ca.PublicKey(), kind: ssh.UserCert, principals: []string{"nobody"}, keyID: "proof", serial: newSerial(),
		end: time.Now().Add(time.Minute)}
	signed, err := certificate(q, ca)
	if err != nil {
		return err
	}
	back, err := ssh.ParsePublicKey(signed.Marshal())
	if err != nil {
		return fmt.Errorf("read back what was signed: %w", err)
	}
	return q.verify(back, ca.PublicKey())
}
