package crash_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// router is the one address that the engine has for its source. It leads each
// node to the node's own proxy: PostgreSQL's first message names the client, and
// ours names the node there.
type router struct {
	listener net.Listener
	source   string // for who names nothing: requests to cancel

	mu     sync.Mutex
	routes map[string]string // address by node id
}

func newRouter(t *testing.T, source string) *router {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start the router: %v", err)
	}
	r := &router{listener: l, source: source, routes: map[string]string{}}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(conn.(*net.TCPConn))
		}
	}()
	return r
}

func (r *router) addr() string { return r.listener.Addr().String() }

func (r *router) lead(node, addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes[node] = addr
}

func (r *router) serve(from *net.TCPConn) {
	defer from.Close()
	first, err := startup(from)
	if err != nil {
		return
	}
	to, err := net.Dial("tcp", r.route(first))
	if err != nil {
		return
	}
	defer to.Close()
	if _, err := to.Write(first); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { pass(to.(*net.TCPConn), from) })
	both.Go(func() { pass(from, to.(*net.TCPConn)) })
	both.Wait()
}

// pass hands on bytes and the end. A side that can be written no more has gone.
func pass(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = from.Close()
		_ = to.Close()
	}
	_ = to.CloseWrite()
}

func (r *router) route(first []byte) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for node, addr := range r.routes {
		if bytes.Contains(first, []byte("/"+node+"/")) {
			return addr
		}
	}
	return r.source
}

// startup reads the first message: its length, four bytes of them, and the rest.
func startup(from io.Reader) ([]byte, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head)
	if length < 8 || length > 10000 {
		return nil, errors.New("this is not PostgreSQL's first message")
	}
	message := make([]byte, length)
	copy(message, head)
	_, err := io.ReadFull(from, message[len(head):])
	return message, err
}
