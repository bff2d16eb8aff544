package mongodb_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// rig keeps back the message that holds a word, as a network would, and delivers it later. The engine
// that sent it believes that it is on its way.
type rig struct {
	word    string
	kept    chan struct{} // closed when it is kept
	release chan struct{} // closed to deliver it
	gone    chan struct{} // closed when it was answered
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
	return &holding{Conn: conn, rig: r}, nil
}

// holding is a connection on which the message may come.
type holding struct {
	net.Conn
	rig  *rig
	mine atomic.Bool
}

func (h *holding) Write(b []byte) (int, error) {
	if !bytes.Contains(b, []byte(h.rig.word)) || h.rig.taken.Swap(true) {
		return h.Conn.Write(b)
	}
	h.mine.Store(true)
	message := bytes.Clone(b)
	close(h.rig.kept)
	go func() {
		<-h.rig.release
		_ = h.SetDeadline(time.Time{}) // the sender's has passed
		_, _ = h.Conn.Write(message)
		_, _ = io.CopyN(io.Discard, h.Conn, 1)
		_ = h.Conn.Close()
		close(h.rig.gone)
	}()
	return len(b), nil
}

// Read of what was kept back waits in vain, and does not take the late answer.
func (h *holding) Read(b []byte) (int, error) {
	if h.mine.Load() {
		<-h.rig.gone
		return 0, io.EOF
	}
	return h.Conn.Read(b)
}

// Close leaves the connection open while the message is on its way: the network has it, not the sender.
func (h *holding) Close() error {
	if h.mine.Load() {
		return nil
	}
	return h.Conn.Close()
}

// TestSettle: a creation that is still on its way cannot be executed once Settle has answered, whichever
// node settles; and both go on to make users.
func TestSettle(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	for _, who := range []string{"node-1", "node-2"} {
		r := newRig("createUser")
		late := s.options(nil)
		late.Dial = r.dial
		sender, settler := open(t, late), s.open(t, nil)
		if who == "node-1" {
			settler = sender
		}
		p := plan(t, sender, readApp)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := sender.Issue(ctx, p)
			failed <- err
		}()
		<-r.kept
		planned := plan(t, sender, readApp) // behind the same fence, and not sent yet
		cancel()
		if err := settler.Settle(t.Context(), "node-1", []engine.Recipe{p.Recipe}); err != nil {
			t.Fatalf("settle: %v", err)
		}
		close(r.release)
		<-r.gone
		if err := <-failed; engine.KindOf(err) != engine.Uncertain {
			t.Errorf("issue without an answer: %v", err)
		}
		if found, err := settler.Lookup(t.Context(), p.Recipe); err != nil || found.State != engine.Absent {
			t.Errorf("%s: a creation was executed after it was settled: %+v, %v", who, found, err)
		}
		if settler == sender { // which has drawn another fence
			s.works(t, issue(t, sender, readApp))
		}
		if _, err := sender.Issue(t.Context(), planned); engine.KindOf(err) != engine.Busy {
			t.Errorf("%s: an issuance that the settlement cut off: %v", who, err)
		}
		for _, e := range []engine.Engine{sender, settler} {
			c := issue(t, e, readApp)
			s.works(t, c)
			revoke(t, e, c.recipe)
		}
	}
}

// TestFence: without the role that keeps late creations out, nothing is made; and the credential's own
// roles are not it alone.
func TestFence(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	e := s.open(t, nil)
	c := issue(t, e, readApp)
	answer := s.server.Do(t, appDB, bson.D{{Key: "usersInfo", Value: c.name}})
	roles, _ := answer.Lookup("users", "0", "roles").ArrayOK()
	if values, _ := roles.Values(); len(values) != 2 {
		t.Fatalf("the roles of a credential: %s", roles)
	}
	p := plan(t, e, readApp)
	if mechanisms, _ := answer.Lookup("users", "0", "mechanisms").ArrayOK(); mechanisms.Index(0).StringValue() != "SCRAM-SHA-256" || strings.Contains(mechanisms.String(), "SHA-1") {
		t.Errorf("a credential may log in by %s", mechanisms)
	}
	fence := roles.Index(1).Document().Lookup("role").StringValue()
	s.server.Do(t, appDB, bson.D{{Key: "dropRole", Value: fence}})
	if _, err := e.Issue(t.Context(), p); engine.KindOf(err) != engine.Busy {
		t.Errorf("issue behind a fence that was dropped: %v", err)
	}
	s.works(t, c)
	s.works(t, issue(t, e, readApp))
}
