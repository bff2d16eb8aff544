package mysql

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// maxIdle is how long a connection may rest before it is tried out, and its clock
// compared, ahead of use.
const maxIdle = time.Second

// lane is what a connection is wanted for.
type lane int

const (
	issuing  lane = iota // making credentials
	revoking             // killing them, and looking after the source
)

// pool bounds the connections to the source. Issuing never holds all of them, so
// that revocation finds one however many callers want credentials.
type pool struct {
	connect  func(ctx context.Context) (*conn, error)
	patience time.Duration // for a connection to show that it lives
	all      chan struct{} // one token per connection in use
	issuing  chan struct{} // one token per connection used for issuing

	mu     sync.Mutex
	idle   []*conn // the last used at the end
	closed bool

	// abandoned are the sessions of connections that we gave up. The source may
	// still execute what it was sent on them.
	abandoned map[string]time.Time
}

func newPool(limit int, patience time.Duration, connect func(ctx context.Context) (*conn, error)) *pool {
	return &pool{
		connect: connect, patience: patience,
		all: make(chan struct{}, limit), issuing: make(chan struct{}, limit-1),
		abandoned: map[string]time.Time{},
	}
}

var errClosed = errors.New("the engine is closed")

// take finds a connection that works, or makes one. The error says that nothing
// was sent; used tells a connection that had rested. Whoever takes a connection
// puts it back.
func (p *pool) take(ctx context.Context, l lane) (c *conn, used bool, err error) {
	if l == issuing {
		if err := wait(ctx, p.issuing); err != nil {
			return nil, false, err
		}
	}
	if err = wait(ctx, p.all); err == nil {
		if c, used, err = p.get(ctx); err == nil {
			return c, used, nil
		}
		<-p.all
	}
	if l == issuing {
		<-p.issuing
	}
	return nil, false, err
}

func wait(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return busy("wait for a connection: all are in use", ctx.Err())
	}
}

func (p *pool) get(ctx context.Context) (c *conn, used bool, err error) {
	for {
		if c, err = p.pick(); err != nil {
			return nil, false, unreachable("use the source", err)
		}
		if c == nil {
			c, err = p.connect(ctx)
			return c, false, err
		}
		if time.Since(c.usedAt) < maxIdle {
			return c, true, nil
		}
		// The source may have been restarted, or the connection ended there,
		// since: find out before anything is sent whose fate would then be
		// unknown.
		probe, cancel := context.WithTimeout(ctx, p.patience)
		err = c.compareClocks(probe)
		cancel()
		if err == nil {
			return c, true, nil
		}
		c.close()
	}
}

func (p *pool) pick() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	n := len(p.idle)
	if n == 0 {
		return nil, nil
	}
	c := p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, nil
}

func (p *pool) put(c *conn, l lane) {
	p.mu.Lock()
	switch {
	case c.broken(): // and those beside it probably are
		p.abandon(c)
		for _, other := range p.idle {
			go other.close()
		}
		p.idle = nil
	case p.closed || c.spent:
		p.abandon(c)
		go c.close()
	default:
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	<-p.all
	if l == issuing {
		<-p.issuing
	}
}

// abandon remembers a connection for Settle, for as long as any operation may
// take and then some.
func (p *pool) abandon(c *conn) {
	now := time.Now()
	for id, at := range p.abandoned {
		if now.Sub(at) > 4*engine.MaxOperationTimeout {
			delete(p.abandoned, id)
		}
	}
	p.abandoned[c.id] = now
}

// givenUp are the connections abandoned so far.
func (p *pool) givenUp() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := make(map[string]time.Time, len(p.abandoned))
	for id, at := range p.abandoned {
		taken[id] = at
	}
	return taken
}

// forget drops connections that were seen gone.
func (p *pool) forget(gone map[string]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range gone {
		delete(p.abandoned, id)
	}
}

// close ends the idle connections; those in use end when they come back.
func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
}

// with runs f with a connection. Where f fails because a connection that had
// rested is found dead, and nothing was changed, it is run once more.
func (p *pool) with(ctx context.Context, l lane, f func(*conn) error) error {
	for {
		c, used, err := p.take(ctx, l)
		if err != nil {
			return err
		}
		err = f(c)
		dead := c.broken()
		p.put(c, l)
		if err == nil || !used || !dead || engine.KindOf(err) != engine.Unreachable || ctx.Err() != nil {
			return err
		}
	}
}
