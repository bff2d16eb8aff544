package server

import (
	"bytes"
	"io"
	"net"
	"testing"
)

// pieces is a connection that gives its bytes a few at a time.
type pieces struct {
	net.Conn
	rest io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.rest.Read(b[:min(p.size, len(b))]) }

func problemOf(t *testing.T, sent []byte, size int) string {
	t.Helper()
	w := &wire{Conn: &pieces{rest: bytes.NewReader(sent), size: size}}
	got, err := io.ReadAll(w)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("the bytes were changed: %q, %v", got, err)
	}
	if p := w.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// TestWire sends several requests over one connection.
func TestWire(t *testing.T) {
	t.Parallel()
	const get, body = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\na\nb\n"
	for sent, bad := range map[string]bool{
		get:                                     false,
		get + body + get:                        false,
		body + body + get:                       false,
		"":                                      false,
		get + "GET / HTTP/1.1\nHost: x\r\n\r\n": true,
		body + "GET / HTTP/1.1\r\nX: y\r\n z\r\n\r\n":                                                    true,
		"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nCONTENT-LENGTH: 1\r\n\r\n":                     true,
		"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na":                             true,
		"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na":                                                 true,
		"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n":                                true,
		"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n":                                                              true,
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\n":                                  false,
		"GET / HTTP/1.1\r\nX: " + string(bytes.Repeat([]byte("y"), 4096)) + "\r\n\r\nGET / HTTP/1.1\n\n": true,
	} {
		for _, size := range []int{1, 3, 4096} {
			if got := problemOf(t, []byte(sent), size); (got != "") != bad {
				t.Errorf("%.60q in pieces of %d: problem %q, want one: %v", sent, size, got, bad)
			}
		}
	}
}

// FuzzWire: what is found does not depend on how the bytes arrive.
func FuzzWire(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 1)
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcdGET / HTTP/1.1\n\n"), 3)
	f.Fuzz(func(t *testing.T, sent []byte, size int) {
		if size < 1 {
			size = 1
		}
		if whole, parts := problemOf(t, sent, 1<<20), problemOf(t, sent, size); whole != parts {
			t.Errorf("whole: %q; in pieces of %d: %q", whole, size, parts)
		}
	})
}
