package redis_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/redistest"
)

// holding is a connection that keeps back what it is told to keep, as a network
// would, and delivers it later.
type holding struct {
	net.Conn
	rig *rig
}

// rig keeps the message that holds the word until it is let go. The engine that
// sent it believes that it is on its way.
type rig struct {
	word    string
	kept    chan struct{} // closed when something is kept
	release chan struct{} // closed to deliver it
	gone    chan struct{} // closed when it was answered, or the node had ended the connection
	taken   atomic.Bool
}

func newRig(word string) *rig {
	return &rig{word: word, kept: make(chan struct{}), release: make(chan struct{}), gone: make(chan struct{})}
}

func (r *rig) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &holding{conn, r}, nil
}

func (h *holding) Write(b []byte) (int, error) {
	if !bytes.Contains(bytes.ToLower(b), []byte(h.rig.word)) || h.rig.taken.Swap(true) {
		return h.Conn.Write(b)
	}
	message := bytes.Clone(b)
	close(h.rig.kept)
	go func() {
		<-h.rig.release
		_ = h.Conn.SetDeadline(time.Time{}) // the sender's has passed
		_, _ = h.Conn.Write(message)        // the node may have ended the connection
		_, _ = io.Copy(io.Discard, io.LimitReader(h.Conn, 1))
		_ = h.Conn.Close()
		close(h.rig.gone)
	}()
	return len(b), nil
}

// Close leaves the connection open while a message is on its way: the network
// has it, not the sender.
func (h *holding) Close() error {
	if h.rig.taken.Load() {
		return nil
	}
	return h.Conn.Close()
}

// issue sends a creation that is kept, and returns after its deadline. A machine
// so busy that the deadline passes earlier gets more time.
func (r *rig) issue(t *testing.T, e engine.Engine) *engine.Plan {
	t.Helper()
	for life := time.Second; life < time.Minute; life *= 2 {
		p := plan(t, e, parseRole(t, readApp))
		p.Deadline = time.Now().Add(life)
		_, err := e.Issue(t.Context(), p)
		select {
		case <-r.kept:
			if engine.KindOf(err) != engine.Uncertain {
				t.Fatalf("issue without an answer: %v", err)
			}
			time.Sleep(time.Until(p.Deadline))
			return p
		default:
		}
	}
	t.Fatal("no creation was sent before its deadline")
	return nil
}

// TestFence: a creation that the server gets to after its deadline makes nothing,
// whether the network or the server itself was late.
func TestFence(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		s := newSource(t, redistest.Start(t, kind))
		r := newRig("exec")
		o := s.options(nil)
		o.Dial = r.dial
		e := open(t, o)
		p := r.issue(t, e)
		close(r.release)
		<-r.gone
		if p, err := e.Lookup(t.Context(), p.Recipe); err != nil || p.State != engine.Absent {
			t.Errorf("%s: a creation that came late was executed: %+v, %v", kind, p, err)
		}
	}
}

// TestSettle: where no fence is, a creation that is still on its way cannot be
// executed once Settle has answered; connections that are in use stay.
func TestSettle(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		for _, who := range []string{"node-1", "node-2"} {
			s := newSource(t, redistest.Start(t, kind))
			server := s.servers[0]
			server.Do(t, "ACL", "SETUSER", rootName, "-set")
			r := newRig("resetchannels") // with which the creation of a credential begins
			late := s.options(nil)
			late.Node = who
			e := s.open(t, nil)
			late.Dial = r.dial
			sender := open(t, late)
			p := r.issue(t, sender)
			settler := e
			if who == "node-1" {
				settler = sender
			}
			if err := settler.Settle(t.Context(), who, []engine.Recipe{p.Recipe}); err != nil {
				t.Fatalf("%s: settle: %v", kind, err)
			}
			close(r.release)
			<-r.gone
			if p, err := e.Lookup(t.Context(), p.Recipe); err != nil || p.State != engine.Absent {
				t.Errorf("%s, %s: a creation was executed after it was settled: %+v, %v", kind, who, p, err)
			}
		}
	}
}

// TestOutOfMemory: a server that refuses to write, and so takes no fence, still
// gives credentials and ends them.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	for _, kind := range redistest.Kinds() {
		s := newSource(t, redistest.Start(t, kind))
		e, server := s.open(t, nil), s.servers[0]
		server.Do(t, "CONFIG", "SET", "maxmemory", "1")
		c := issue(t, e)
		works(t, server, c)
		if h := e.Check(t.Context()); h.Status != "healthy" {
			t.Errorf("%s: health: %+v", kind, h)
		}
		revoke(t, e, c.recipe)
		dead(t, server, c)
	}
}
