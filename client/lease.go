package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/scaivault/scaivault/api"
)

// closeTimeout bounds the revocation of a lease whose work was cancelled.
const closeTimeout = 30 * time.Second

// Lease is a credential and the duty to give it back: Close revokes it. However a
// lease is printed or logged, it shows its id and never the credential. Safe for
// concurrent use.
type Lease struct {
	ID        string
	Engine    string
	Role      string
	TTL       time.Duration // the life it was given
	Renewable bool

	data   map[string]string
	client *Client
	closed chan struct{} // ends KeepAlive

	mu      sync.Mutex
	expires time.Time // by this machine's clock, which may differ from the server's
	last    time.Time // the end that no renewal can pass
	revoked bool
	closing sync.Once
}

// GenerateOptions may be left zero.
type GenerateOptions struct {
	TTL      time.Duration // the role's default when 0
	Metadata map[string]string
	Params   map[string]any // the engine's own fields of the request
}

// Generate asks for a credential. It is never repeated by itself: each success
// makes another one.
func (c *Client) Generate(ctx context.Context, engine, role string, o GenerateOptions) (*Lease, error) {
	asked := time.Now()
	credential, err := c.GenerateCredential(ctx, engine, role, api.CredsRequest{TTL: duration(o.TTL), Metadata: o.Metadata, Params: o.Params})
	if err != nil {
		return nil, err
	}
	life := time.Duration(credential.TTL) * time.Second
	return &Lease{
		ID: credential.LeaseID, Engine: credential.Engine, Role: credential.Role,
		data: credential.Data, TTL: life, Renewable: credential.Renewable,
		client: c, closed: make(chan struct{}),
		expires: asked.Add(life),
		last:    asked.Add(credential.MaxExpiresAt.Sub(credential.IssuedAt)),
	}, nil
}

// Data is the credential: "username", "password" or what else its engine gives.
func (l *Lease) Data() map[string]string { return maps.Clone(l.data) }

// Username of the credential, empty where the engine gives none.
func (l *Lease) Username() string { return l.data["username"] }

// Password of the credential, empty where the engine gives none.
func (l *Lease) Password() string { return l.data["password"] }

// Expires is the credential's end as last known, by this machine's clock.
func (l *Lease) Expires() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

// Format keeps the credential out of logs under every verb.
func (l *Lease) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "lease %s of %s/%s", l.ID, l.Engine, l.Role)
}

// Renew gives the credential the life that it was given at first, from now on,
// as far as the role's maximum allows.
func (l *Lease) Renew(ctx context.Context) error {
	asked := time.Now()
	lease, err := l.client.RenewLease(ctx, l.ID, api.RenewRequest{Increment: duration(l.TTL)})
	if err != nil {
		return err
	}
	life := time.Until(lease.ExpiresAt)
	if lease.RenewedAt != nil {
		life = lease.ExpiresAt.Sub(*lease.RenewedAt) // both of the server's clock
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expires = asked.Add(life)
	l.last = l.expires.Add(lease.MaxExpiresAt.Sub(lease.ExpiresAt))
	return nil
}

// KeepAlive renews the credential each time two thirds of its life are over. It
// answers
//   - nil when the lease was closed or the context ended: the credential is then
//     as alive as it was;
//   - an error matching [MaxTTLReached] or [NotRenewable] when no renewal can help
//     any more, while a third of the last life is left: time to take a fresh
//     credential and move over to it;
//   - the error of a renewal that was refused for good, such as [LeaseRevoked];
//   - an error matching [LeaseExpired] when no renewal got through before the end.
//
// What may pass, an unreachable server for instance, is tried again until then.
func (l *Lease) KeepAlive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-l.closed:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		expires, last := l.ends()
		if !slept(ctx, jittered(time.Until(expires)*2/3)) {
			return nil
		}
		if !l.Renewable {
			return l.ending(NotRenewable, "the role gives no renewals; take a fresh credential")
		}
		if !expires.Before(last) {
			return l.ending(MaxTTLReached, "its maximum life is nearly over; take a fresh credential")
		}
		if err := l.renewBefore(ctx, expires); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// renewBefore tries until a renewal succeeds, is refused for good, or comes too
// late; nil, too, when the context ends.
func (l *Lease) renewBefore(ctx context.Context, end time.Time) error {
	for attempt := 0; ; attempt++ {
		err := l.Renew(ctx)
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // the caller ended it, nothing failed
		}
		wait := backoff(attempt)
		var refused *Error
		if errors.As(err, &refused) {
			if !refused.Temporary() {
				return err
			}
			wait = max(wait, refused.RetryAfter)
		}
		if time.Now().Add(wait).After(end) {
			return fmt.Errorf("%w: %w", l.ending(LeaseExpired, "it could not be renewed before its end"), err)
		}
		if !slept(ctx, wait) {
			return nil
		}
	}
}

func (l *Lease) ends() (expires, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires, l.last
}

func (l *Lease) ending(code Code, why string) error {
	return &Error{Code: code, Message: fmt.Sprintf("keep lease %s alive: %s", l.ID, why)}
}

// Close revokes the credential and ends KeepAlive, also when the context is
// already done: it is what a deferred call after a cancelled work needs. Nil
// means that the credential is dead, or that the server has taken over to kill
// it as soon as its source can be reached. Safe to call twice; after an error it
// may be called again.
func (l *Lease) Close(ctx context.Context) error {
	l.closing.Do(func() { close(l.closed) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revoked {
		return nil
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
	}
	_, err := l.client.RevokeLease(ctx, l.ID, 0)
	if err != nil && !errors.Is(err, LeaseNotFound) { // its record is trimmed only long after its death
		return err
	}
	l.revoked = true
	return nil
}

// jittered takes up to a tenth away, so that leases of one moment are not all
// renewed in one moment.
func jittered(d time.Duration) time.Duration {
	if d <= 10 {
		return max(d, 0)
	}
	return d - rand.N(d/10) //nolint:gosec // a wait is no secret
}

// duration leaves 0 out of the document. What is no whole, positive number of
// seconds is the server's to refuse.
func duration(d time.Duration) *api.Duration {
	if d == 0 {
		return nil
	}
	wire := api.Duration(d)
	return &wire
}
