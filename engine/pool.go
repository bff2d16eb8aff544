package engine

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxIdle is how long a connection may rest before it is tried out ahead of use.
const maxIdle = time.Second

// Lane is what a connection is wanted for.
type Lane int

const (
	Issuing  Lane = iota // making credentials
	Revoking             // killing them, and looking after the source
)

// Conn is a connection that a Pool keeps.
type Conn interface {
	Session() string                 // what the source calls it
	UsedAt() time.Time               // when it was used last
	Probe(ctx context.Context) error // shows that it lives
	Broken() bool                    // the connection has ended
	Spent() bool                     // it works, and must not be used again
	Close()
}

// Pool bounds the connections to one server. Issuing never holds all of them, so
// that revocation finds one however many callers want credentials.
type Pool[C Conn] struct {
	connect  func(ctx context.Context) (C, error)
	patience time.Duration // for a connection to show that it lives
	all      chan struct{} // one token per connection in use
	issuing  chan struct{} // one token per connection used for issuing

	mu     sync.Mutex
	idle   []C // the last used at the end
	closed bool

	// abandoned are the sessions of connections that we gave up. The source may
	// still execute what it was sent on them.
	abandoned map[string]time.Time
}

// NewPool makes a pool of at most limit connections, at least 2. patience bounds how long a connection may
// take to show that it lives.
func NewPool[C Conn](limit int, patience time.Duration, connect func(ctx context.Context) (C, error)) *Pool[C] {
	return &Pool[C]{
		connect: connect, patience: patience,
		all: make(chan struct{}, limit), issuing: make(chan struct{}, limit-1),
		abandoned: map[string]time.Time{},
	}
}

var errPoolClosed = errors.New("the engine is closed")

// take finds a connection that works, or makes one. The error says that nothing
// was sent; used tells a connection that had rested. Whoever takes a connection
// puts it back.
func (p *Pool[C]) take(ctx context.Context, l Lane) (c C, used bool, err error) {
	if l == Issuing {
		if err := wait(ctx, p.issuing); err != nil {
			return c, false, err
		}
	}
	if err = wait(ctx, p.all); err == nil {
		if c, used, err = p.get(ctx); err == nil {
			return c, used, nil
		}
		<-p.all
	}
	if l == Issuing {
		<-p.issuing
	}
	return c, false, err
}

func wait(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Error{Kind: Busy, Reason: "wait for a connection: all are in use", Err: ctx.Err()}
	}
}

func (p *Pool[C]) get(ctx context.Context) (c C, used bool, err error) {
	for {
		c, found, err := p.pick()
		if err != nil {
			return c, false, &Error{Kind: Unreachable, Reason: "use the source", Err: err}
		}
		if !found {
			c, err = p.connect(ctx)
			return c, false, err
		}
		if time.Since(c.UsedAt()) < maxIdle {
			return c, true, nil
		}
		// The source may have been restarted, or the connection ended there,
		// since: find out before anything is sent whose fate would then be
		// unknown.
		probe, cancel := context.WithTimeout(ctx, p.patience)
		err = c.Probe(probe)
		cancel()
		if err == nil {
			return c, true, nil
		}
		c.Close()
	}
}

func (p *Pool[C]) pick() (c C, found bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return c, false, errPoolClosed
	}
	n := len(p.idle)
	if n == 0 {
		return c, false, nil
	}
	c = p.idle[n-1]
	p.idle = p.idle[:n-1]
	return c, true, nil
}

func (p *Pool[C]) put(c C, l Lane) {
	p.mu.Lock()
	switch {
	case c.Broken(): // and those beside it probably are
		p.abandon(c)
		for _, other := range p.idle {
			go other.Close()
		}
		p.idle = nil
	case p.closed || c.Spent():
		p.abandon(c)
		go c.Close()
	default:
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	<-p.all
	if l == Issuing {
		<-p.issuing
	}
}

// abandon remembers a connection for Settle, for as long as any operation may
// take and then some.
func (p *Pool[C]) abandon(c C) {
	now := time.Now()
	for id, at := range p.abandoned {
		if now.Sub(at) > 4*MaxOperationTimeout {
			delete(p.abandoned, id)
		}
	}
	p.abandoned[c.Session()] = now
}

// GivenUp are the connections abandoned so far.
func (p *Pool[C]) GivenUp() map[string]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := make(map[string]time.Time, len(p.abandoned))
	for id, at := range p.abandoned {
		taken[id] = at
	}
	return taken
}

// Forget drops connections that were seen gone.
func (p *Pool[C]) Forget(gone map[string]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range gone {
		delete(p.abandoned, id)
	}
}

// Close ends the idle connections; those in use end when they come back.
func (p *Pool[C]) Close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
}

// With runs f with a connection. Where f fails because a connection that had
// rested is found dead, and nothing was changed, it is run once more.
func (p *Pool[C]) With(ctx context.Context, l Lane, f func(C) error) error {
	for {
		c, used, err := p.take(ctx, l)
		if err != nil {
			return err
		}
		err = f(c)
		dead := c.Broken()
		p.put(c, l)
		if err == nil || !used || !dead || KindOf(err) != Unreachable || ctx.Err() != nil {
			return err
		}
	}
}
