package proxy

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"
)

// Late dials connections over TCP on which a message that holds text arrives after a pause, also when its
// sender has given up and closed the connection by then: as behind a network that lost a packet.
func Late(text string, pause time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &late{TCPConn: conn.(*net.TCPConn), text: []byte(text), pause: pause}, nil
	}
}

type late struct {
	*net.TCPConn // as drivers want to know
	text         []byte
	pause        time.Duration
	under        sync.WaitGroup // what is on its way

	mu   sync.Mutex
	held []byte // the message, and what was sent behind it
}

func (c *late) Write(message []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.held != nil:
		c.held = append(c.held, message...)
	case bytes.Contains(message, c.text):
		c.held = bytes.Clone(message)
		c.under.Add(1)
		time.AfterFunc(c.pause, c.deliver)
	default:
		return c.TCPConn.Write(message)
	}
	return len(message), nil
}

func (c *late) deliver() {
	defer c.under.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.SetWriteDeadline(time.Time{}) == nil {
		_, _ = c.TCPConn.Write(c.held) // a test sees that it arrived
	}
	c.held = nil
}

// Close ends reading at once, and the connection behind what is on its way.
func (c *late) Close() error {
	go func() {
		c.under.Wait()
		c.TCPConn.Close()
	}()
	return c.SetReadDeadline(time.Now())
}
