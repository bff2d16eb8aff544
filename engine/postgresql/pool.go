package postgresql

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// lane is what a connection is wanted for.
type lane int

const (
	issuing  lane = iota // making and moving credentials
	revoking             // killing them, and looking after the source
)

// place is where a connection leads, and as whom.
type place struct {
	database string
	maker    string // the role that it acts as; root itself where empty
}

// pool bounds the connections to a source. Issuing never holds all of them, so
// that revocation finds one however many callers want credentials.
type pool struct {
	patience time.Duration // for a connection to be made, or to show that it lives
	all      chan struct{} // one token per connection in use
	issuing  chan struct{} // one token per connection used for issuing

	logins sync.RWMutex // held by who logs in; alone, while the root's password changes

	mu        sync.Mutex
	connector *connector
	idle      []*conn // the last used at the end
	limit     int
	closed    bool

	// abandoned are backends whose connection we gave up while they were busy.
	// They may still execute what they were sent.
	abandoned map[uint32]time.Time
}

func newPool(c *connector, limit int) *pool {
	return &pool{
		connector: c,
		patience:  c.patience,
		limit:     limit,
		all:       make(chan struct{}, limit),
		issuing:   make(chan struct{}, limit-1),
		abandoned: map[uint32]time.Time{},
	}
}

var errClosed = errors.New("the engine is closed")

// with runs f with a connection to the place. A connection on which f, or
// the source, left anything unfinished is not used again. The error of taking
// the connection says that nothing was sent.
func (p *pool) with(ctx context.Context, l lane, at place, f func(*conn) error) error {
	if l == issuing {
		if err := take(ctx, p.issuing); err != nil {
			return err
		}
		defer func() { <-p.issuing }()
	}
	if err := take(ctx, p.all); err != nil {
		return err
	}
	defer func() { <-p.all }()

	c, err := p.get(ctx, at)
	if err != nil {
		return err
	}
	err = f(c)
	p.put(c)
	return err
}

func take(ctx context.Context, tokens chan struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return busy("wait for a connection: all are in use", ctx.Err())
	}
}

// get finds an idle connection that works, or makes one.
func (p *pool) get(ctx context.Context, at place) (*conn, error) {
	for {
		c, spare, err := p.pick(at)
		if err != nil {
			return nil, unreachable("use the source", err)
		}
		if spare != nil {
			spare.close()
		}
		if c == nil {
			return p.connect(ctx, at)
		}
		if time.Since(c.usedAt) < maxIdle {
			return c, nil
		}
		// The source may have been restarted since: find out before anything
		// is sent whose fate would then be unknown.
		probe, cancel := context.WithTimeout(ctx, p.patience)
		err = c.compareClocks(probe)
		cancel()
		if err == nil {
			return c, nil
		}
		c.close()
	}
}

// pick takes the idle connection to the place that was used last, and one to
// close where the idle ones would exceed the limit together with a new one.
func (p *pool) pick(at place) (c, spare *conn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errClosed
	}
	for i := len(p.idle) - 1; i >= 0; i-- {
		if p.idle[i].place == at {
			c = p.idle[i]
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return c, nil, nil
		}
	}
	if len(p.idle) > 0 && len(p.idle)+len(p.all) > p.limit {
		spare, p.idle = p.idle[0], p.idle[1:]
	}
	return nil, spare, nil
}

func (p *pool) put(c *conn) {
	const idleStatus = 'I' // no transaction is open
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case c.pg.IsClosed():
		p.abandon(c)
	case p.closed || c.pg.IsBusy() || c.pg.TxStatus() != idleStatus:
		p.abandon(c)
		go c.close()
	case c.as != p.connector: // made with a password that is the former one now
		go c.close()
	default:
		p.idle = append(p.idle, c)
	}
}

// abandon remembers a backend for Settle, for as long as any operation may take
// and then some.
func (p *pool) abandon(c *conn) {
	now := time.Now()
	for pid, at := range p.abandoned {
		if now.Sub(at) > 4*engine.MaxOperationTimeout {
			delete(p.abandoned, pid)
		}
	}
	p.abandoned[c.pg.PID()] = now
}

// givenUp are the backends abandoned so far.
func (p *pool) givenUp() map[uint32]time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := make(map[uint32]time.Time, len(p.abandoned))
	for pid, at := range p.abandoned {
		taken[pid] = at
	}
	return taken
}

// forget drops backends that were seen gone.
func (p *pool) forget(gone map[uint32]time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid, at := range gone {
		if p.abandoned[pid] == at {
			delete(p.abandoned, pid)
		}
	}
}

// change makes later connections in another way once f, which changes the
// password at the source, has succeeded. Nobody logs in meanwhile: it would be
// with a password that may be the former one. A changed password ends no open
// connection: those in use end when they come back, the others now.
func (p *pool) change(c *connector, f func() error) error {
	p.logins.Lock()
	defer p.logins.Unlock()
	if err := f(); err != nil {
		return err
	}
	p.mu.Lock()
	idle := p.idle
	p.idle, p.connector = nil, c
	p.mu.Unlock()
	for _, c := range idle {
		go c.close()
	}
	return nil
}

func (p *pool) connect(ctx context.Context, at place) (*conn, error) {
	p.logins.RLock()
	defer p.logins.RUnlock()
	p.mu.Lock()
	connector := p.connector
	p.mu.Unlock()
	return connector.connect(ctx, at)
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
