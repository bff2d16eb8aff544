package server

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
)

// wire watches the bytes of a plain HTTP/1.1 connection for what net/http mends in silence, and a
// proxy in front of us may have mended in another way: bare line feeds, folded headers, and a
// request with two lengths, whose end the two would see in different places. A connection that
// showed one is answered 400 and closed.
//
// Behind our own TLS there is no proxy, so those connections are not watched.
type wire struct {
	net.Conn
	problem atomic.Pointer[string]

	done   bool   // nothing is scanned any more: a problem, or a chunked body, which ends the connection
	skip   uint64 // bytes of a body still to come
	line   []byte // the head's line so far, at most maxLine of it
	cr     bool   // the last byte was a carriage return
	first  bool   // a line of the head was seen
	length string // of the body
	te     bool
}

// maxLine is enough of a header to tell a length.
const maxLine = 128

// Read passes on what the connection gives, having looked at it.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	for rest := p[:n]; len(rest) > 0 && !w.done; {
		if w.skip > 0 {
			body := min(w.skip, uint64(len(rest)))
			w.skip -= body
			rest = rest[body:]
			continue
		}
		w.head(rest[0])
		rest = rest[1:]
	}
	return n, err
}

// CloseWrite lets net/http give the caller time to read the last answer.
func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

func (w *wire) head(b byte) {
	switch {
	case b == '\n' && !w.cr:
		w.refuse("a line ends without a carriage return")
	case b == '\n':
		w.cr = false
		w.endLine()
	case w.cr:
		w.refuse("a carriage return stands within a line")
	case b == '\r':
		w.cr = true
	case len(w.line) < maxLine:
		w.line = append(w.line, b)
	}
}

func (w *wire) endLine() {
	line := w.line
	w.line = w.line[:0]
	if len(line) == 0 {
		w.endHead()
		return
	}
	if !w.first {
		w.first = true // the request line
		return
	}
	if line[0] == ' ' || line[0] == '\t' {
		w.refuse("a header is folded over two lines")
		return
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case bytes.EqualFold(name, []byte("Content-Length")):
		if w.length != "" {
			w.refuse("the length of the body is given twice")
		}
		w.length = string(bytes.Trim(value, " \t"))
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		w.te = true
	}
}

func (w *wire) endHead() {
	switch {
	case !w.first:
		return // an empty line before the request, which net/http refuses
	case w.te && w.length != "":
		w.refuse("the length of the body is given and it is chunked, too")
	case w.te:
		w.done = true
	case w.length != "":
		n, err := strconv.ParseUint(w.length, 10, 63)
		if err != nil {
			w.refuse("the length of the body is no number")
			return
		}
		w.skip = n
	}
	w.first, w.length, w.te = false, "", false
}

func (w *wire) refuse(problem string) {
	w.done = true
	w.problem.Store(&problem)
}

type strictListener struct{ net.Listener }

func (l *strictListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wire{Conn: c}, nil
}

type wireKey struct{}

func withWire(ctx context.Context, c net.Conn) context.Context {
	if w, ok := c.(*wire); ok {
		return context.WithValue(ctx, wireKey{}, w)
	}
	return ctx
}

// wireProblem is what the connection of a request showed, "" for nothing.
func wireProblem(ctx context.Context) string {
	if w, ok := ctx.Value(wireKey{}).(*wire); ok {
		if p := w.problem.Load(); p != nil {
			return *p
		}
	}
	return ""
}

// connLimit bounds the connections, in all and of one address, so that one caller cannot take
// them from all others. One too many is closed at once.
type connLimit struct {
	net.Listener
	limits Limits
	mu     sync.Mutex
	total  int
	byAddr map[netip.Addr]int
}

func limitConns(l net.Listener, limits Limits) net.Listener {
	return &connLimit{Listener: l, limits: limits, byAddr: map[netip.Addr]int{}}
}

func (l *connLimit) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var addr netip.Addr
		if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			addr = a.Addr().Unmap()
		}
		if l.take(addr) {
			return &limitedConn{Conn: c, release: sync.OnceFunc(func() { l.give(addr) })}, nil
		}
		_ = c.Close() // refused; what closing says does not matter
	}
}

func (l *connLimit) take(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.Conns || l.byAddr[addr] >= l.limits.PerAddress {
		return false
	}
	l.total++
	l.byAddr[addr]++
	return true
}

func (l *connLimit) give(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.byAddr[addr]--; l.byAddr[addr] == 0 {
		delete(l.byAddr, addr)
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close gives the place back. Safe to call twice.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// CloseWrite passes on to TCP.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
