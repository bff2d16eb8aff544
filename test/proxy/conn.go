package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one connection through the proxy. ends[d] is where the bytes of
// direction d come from: ends[request] is the client, ends[answer] the server.
type conn struct {
	proxy  *Proxy
	ends   [2]*net.TCPConn
	queues [2]queue
	lossy  bool // bytes or an end have vanished; under proxy.mu
	broken chan struct{}
	once   sync.Once
}

// chunk is what one read gave; nil bytes are the sender's end.
type chunk struct {
	bytes []byte
	at    time.Time
}

func newConn(p *Proxy, client *net.TCPConn) *conn {
	c := &conn{proxy: p, broken: make(chan struct{})}
	c.ends[request] = client
	for d := range c.queues {
		c.queues[d].filled = make(chan struct{}, 1)
	}
	return c
}

// run serves the connection to its end.
func (c *conn) run() {
	defer func() {
		c.proxy.mu.Lock()
		delete(c.proxy.conns, c)
		c.proxy.mu.Unlock()
		for _, end := range c.ends {
			if end != nil {
				_ = end.Close()
			}
		}
	}()
	if !c.dial() {
		return
	}
	var both sync.WaitGroup
	for _, d := range []direction{request, answer} {
		both.Go(func() { c.read(d) })
		both.Go(func() { c.deliver(d) })
	}
	both.Wait()
}

// dial connects to the target, but not through a black hole.
func (c *conn) dial() bool {
	if f, _ := c.proxy.current(); f.lose[request] {
		c.lost()
		<-c.broken
		return false
	}
	server, err := net.Dial("tcp", c.proxy.target) //nolint:noctx // loopback: at once or never
	if err != nil {
		c.breakOff()
		return false
	}
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.ends[answer] = server.(*net.TCPConn)
	select {
	case <-c.broken: // by CutAll, before there was a second end to close
		return false
	default:
		return true
	}
}

// read takes bytes off the sender at once and without bound, so that they
// outlive it: a reset would wipe what the kernel still holds.
func (c *conn) read(d direction) {
	queue := &c.queues[d]
	for {
		buf := make([]byte, 32<<10)
		n, err := c.ends[d].Read(buf)
		if n > 0 {
			queue.push(chunk{bytes: buf[:n], at: time.Now()})
		}
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				queue.push(chunk{at: time.Now()})
			}
			return
		}
	}
}

// deliver hands on what was read as the fault of the moment demands.
func (c *conn) deliver(d direction) {
	to, queue := c.ends[1-d], &c.queues[d]
	var counting <-chan struct{} // the fault that counted belongs to
	var counted int
	for {
		next, ok := queue.first(c.broken)
		if !ok {
			return
		}
		f, changed, ok := c.admit(next)
		if !ok {
			return
		}
		queue.drop()
		if counting != changed {
			counting, counted = changed, 0
		}
		switch {
		case f.lose[d]:
			c.lost()
		case next.bytes == nil:
			_ = to.CloseWrite()
		case f.cut[d] && counted+len(next.bytes) >= f.limit:
			_, _ = to.Write(next.bytes[:f.limit-counted])
			c.breakOff()
			return
		default:
			counted += len(next.bytes)
			if _, err := to.Write(next.bytes); err != nil && !f.halfOpen {
				c.breakOff()
				return
			}
		}
		if next.bytes == nil {
			return
		}
	}
}

// admit waits until the chunk may go, and says under which fault it goes.
func (c *conn) admit(next chunk) (fault, <-chan struct{}, bool) {
	for {
		f, changed := c.proxy.current()
		var due <-chan time.Time
		switch wait := time.Until(next.at.Add(f.delay)); {
		case f.hold, f.halfOpen && next.bytes == nil:
		case wait > 0:
			due = time.After(wait)
		default:
			return f, changed, true
		}
		select {
		case <-due:
			return f, changed, true
		case <-changed:
		case <-c.broken:
			return fault{}, nil, false
		}
	}
}

// lost marks a connection that can never be whole again.
func (c *conn) lost() {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.lossy = true
	if c.proxy.fault.lose == [2]bool{} { // the fault ended at this moment
		c.breakOff()
	}
}

// breakOff ends the connection at both ends. A deadline wakes reads and
// writes, and run closes the sockets.
func (c *conn) breakOff() {
	c.once.Do(func() {
		close(c.broken)
		for _, end := range c.ends {
			if end != nil {
				_ = end.SetDeadline(time.Now())
			}
		}
	})
}

// queue is unbounded and has one reader.
type queue struct {
	mu     sync.Mutex
	chunks []chunk
	filled chan struct{} // holds a token when chunks may be there
}

func (q *queue) push(next chunk) {
	q.mu.Lock()
	q.chunks = append(q.chunks, next)
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// first waits for the first chunk, which stays, until stop is closed.
func (q *queue) first(stop <-chan struct{}) (chunk, bool) {
	for {
		q.mu.Lock()
		if len(q.chunks) > 0 {
			next := q.chunks[0]
			q.mu.Unlock()
			return next, true
		}
		q.mu.Unlock()
		select {
		case <-q.filled:
		case <-stop:
			return chunk{}, false
		}
	}
}

// drop removes the first chunk.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks = q.chunks[1:]
}

// size is the number of bytes that wait.
func (q *queue) size() (bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.chunks {
		bytes += len(c.bytes)
	}
	return bytes
}
