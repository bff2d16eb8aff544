// Package proxy stands between a client and a server in tests and spoils what
// passes, the way networks do.
//
// A fault holds for open and for new connections until the next one is set.
// Byte counts start at that moment, anew for each connection.
package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"
)

// TB is the part of testing.TB that the proxy needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// fault is what is wrong at the moment; the zero value is nothing.
type fault struct {
	refuse   bool          // new connections are refused
	hold     bool          // bytes and ends wait for the next fault
	halfOpen bool          // ends are not passed on
	delay    time.Duration // bytes and ends arrive later
	lose     [2]bool       // bytes and ends vanish, per direction
	cut      [2]bool       // the connection breaks after limit bytes, per direction
	limit    int
}

// direction of bytes in a connection.
type direction int

const (
	request direction = iota // client to server
	answer                   // server to client
)

// Proxy forwards connections to one target. Its methods may be called from
// several goroutines.
type Proxy struct {
	t            TB
	target, addr string
	running      sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while refusing
	fault    fault
	changed  chan struct{} // closed when the fault changes
	conns    map[*conn]struct{}
	accepted int
}

// New starts a proxy to target (host:port) that passes everything.
func New(t TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{t: t, target: target, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
	if err := p.open(); err != nil {
		t.Fatalf("start a proxy to %s: %v", target, err)
	}
	t.Cleanup(p.close)
	return p
}

// Addr is host and port to connect to; it stays the same over Refuse.
func (p *Proxy) Addr() string { return p.addr }

// Through is a URL of the target with the proxy's address in its place.
func (p *Proxy) Through(t TB, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatalf("parse the target's url: %v", err)
	}
	u.Host = p.addr
	return u.String()
}

// Pass delivers everything, also what Hold kept. It breaks the connections
// that have lost bytes.
func (p *Proxy) Pass() { p.set(fault{}) }

// Delay delivers everything d later, in both directions.
func (p *Proxy) Delay(d time.Duration) { p.set(fault{delay: d}) }

// BlackHole accepts connections and lets everything vanish.
func (p *Proxy) BlackHole() { p.set(fault{lose: [2]bool{true, true}}) }

// LoseAnswers delivers requests and lets the answers vanish: the server has
// done what the client will never hear of.
func (p *Proxy) LoseAnswers() { p.set(fault{lose: [2]bool{answer: true}}) }

// Refuse refuses new connections; open ones go on.
func (p *Proxy) Refuse() { p.set(fault{refuse: true}) }

// Hold keeps everything and delivers it at the next fault, even when the
// sender has gone meanwhile.
func (p *Proxy) Hold() { p.set(fault{hold: true}) }

// HalfOpen delivers bytes, but tells neither end that the other has gone,
// until the next fault.
func (p *Proxy) HalfOpen() { p.set(fault{halfOpen: true}) }

// CutAfterRequest breaks a connection once n bytes went to the server.
func (p *Proxy) CutAfterRequest(n int) {
	p.set(fault{cut: [2]bool{request: true}, limit: n})
}

// CutAfterAnswer breaks a connection once n bytes went to the client.
func (p *Proxy) CutAfterAnswer(n int) {
	p.set(fault{cut: [2]bool{answer: true}, limit: n})
}

// CutAll breaks every open connection now.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.breakOff()
	}
}

// Accepted counts all connections since the start.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Open counts the connections that have not ended at both ends.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Held counts the bytes of both directions that Hold or Delay keeps.
// A sender's reset wipes what the proxy has not read yet, so a test waits for
// its bytes here before it lets the sender go.
func (p *Proxy) Held() (bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		bytes += c.queues[request].size() + c.queues[answer].size()
	}
	return bytes
}

func (p *Proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	for c := range p.conns {
		if c.lossy && f.lose == [2]bool{} {
			c.breakOff()
		}
	}
	if f.refuse && p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	if !f.refuse && p.listener == nil {
		if err := p.listen(p.addr); err != nil {
			p.t.Fatalf("let the proxy listen again on %s: %v", p.addr, err)
		}
	}
}

// open takes a port below Linux's ephemeral range (32768 and up): there, a
// client that dials the closed port can be given the same one as its own and
// meet itself.
func (p *Proxy) open() (err error) {
	const first, last, tries = 20000, 32767, 50
	p.mu.Lock()
	defer p.mu.Unlock()
	for range tries {
		p.addr = fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		if err = p.listen(p.addr); err == nil {
			return nil
		}
	}
	return err
}

// listen needs p.mu.
func (p *Proxy) listen(addr string) error {
	l, err := net.Listen("tcp", addr) //nolint:noctx // at once or never
	if err != nil {
		return err
	}
	p.listener = l
	p.running.Go(func() { p.accept(l) })
	return nil
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		c := newConn(p, client.(*net.TCPConn))
		p.mu.Lock()
		p.accepted++
		p.conns[c] = struct{}{}
		p.mu.Unlock()
		p.running.Go(c.run)
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	if p.listener != nil {
		_ = p.listener.Close()
	}
	for c := range p.conns {
		c.breakOff()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// current returns the fault and what tells its end.
func (p *Proxy) current() (fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}
