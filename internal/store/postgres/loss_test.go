package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
	"github.com/scaivault/scaivault/test/pgtest"
)

// A store whose database is gone answers service_unavailable, and goes on by itself on its return:
// nothing of what failed is there.
func TestDatabaseGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 15)
	s := openNode(t, server.SuperURL(server.CreateDB(t)), t.TempDir())
	write(t, s, insert(newLease(s)))
	for name, stop := range map[string]func(t pgtest.TB){"stopped": server.Stop, "crashed": server.Crash} {
		stop(t)
		began := time.Now()
		lost := newLease(s)
		if err := s.Write(t.Context(), insert(lost)); fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("write, %s: %v", name, err)
		}
		if err := s.Read(t.Context(), func(store.Reader) error { return nil }); fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("read, %s: %v", name, err)
		}
		if err := s.Ping(t.Context()); fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("ping, %s: %v", name, err)
		}
		if d := time.Since(began); d > 2*(groupTime+settleTime) {
			t.Errorf("%s: it took %v", name, d)
		}
		server.Start(t)
		back := newLease(s)
		write(t, s, insert(back))
		must(t, s.Read(t.Context(), func(r store.Reader) error {
			if _, err := r.Lease(tenant, lost.ID); fault.CodeOf(err) != fault.LeaseNotFound {
				t.Errorf("%s: a write that failed: %v", name, err)
			}
			_, err := r.Lease(tenant, back.ID)
			return err
		}))
	}
	if n := verify(t, s); n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	for late := true; late; late = ask[bool](t, s, "SELECT at < "+clock+" - 2000000 FROM beats") {
		if t.Context().Err() != nil {
			t.Fatal("no sign of life after the return")
		}
	}
}

// A database that stands still is an error after a bounded time, also for who waits behind others.
func TestDatabaseStandsStill(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t, 15)
	s := openNode(t, server.SuperURL(server.CreateDB(t)), t.TempDir())
	write(t, s, insert(newLease(s)))
	server.Freeze(t)
	began := time.Now()
	var wg sync.WaitGroup
	asks := []func() error{
		func() error { return s.Write(context.Background(), insert(newLease(s))) },
		func() error { return s.Write(context.Background(), insert(newLease(s))) },
		func() error { return s.Read(context.Background(), func(store.Reader) error { return nil }) },
	}
	for _, ask := range asks {
		wg.Go(func() {
			if err := ask(); fault.CodeOf(err) != fault.ServiceUnavailable {
				t.Errorf("while it stood still: %v", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(began); d > 2*(groupTime+settleTime) {
		t.Errorf("it took %v", d)
	}
	server.Thaw(t)
	write(t, s, insert(newLease(s)))
	if n := verify(t, s); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

// A commit whose answer is lost is looked up: it happened or not, and is told as that; nothing is
// done twice.
func TestCommitWithoutAnswer(t *testing.T) {
	t.Parallel()
	for name, reached := range map[string]bool{"after the commit": true, "before the commit": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := url.Parse(newDatabase(t))
			must(t, err)
			proxy := newCutter(t, text.Host)
			text.Host = proxy.address
			s := openNode(t, text.String(), t.TempDir())
			freeze(t, s) // so that the connection that is cut is the committer's
			change := func(object *store.Object, last func()) func(tx store.Tx) error {
				l := newLease(s)
				return func(tx store.Tx) error {
					defer last()
					return errors.Join(insert(l)(tx), tx.PutObject(object, store.AnyVersion))
				}
			}
			write(t, s, change(object(store.KindRole, "other"), func() {})) // prepares all statements
			runs := 0
			write(t, s, change(object(store.KindRole, "one"), func() {
				if runs++; runs == 1 {
					proxy.cut(reached) // what comes next is all that was written, and the commit
				}
			}))
			if want := map[bool]int{true: 1, false: 2}[reached]; runs != want {
				t.Errorf("the function ran %d times, want %d", runs, want)
			}
			if o := s.Config().Object(tenant, store.KindRole, "one"); o == nil || o.Version != 1 {
				t.Errorf("object: %+v", o)
			}
			must(t, s.Read(t.Context(), func(r store.Reader) error {
				counts, err := r.LeaseCounts("")
				if len(counts) != 1 || counts[0].N != 2 || counts[0].Status != api.LeaseIssuing {
					t.Errorf("counts: %+v", counts)
				}
				return err
			}))
			if n := verify(t, s); n != 2 {
				t.Errorf("%d entries, want 2", n)
			}
		})
	}
}

// cutter is a TCP proxy that once lets a message through, or not, and cuts the connection instead
// of answering.
type cutter struct {
	address string
	target  string
	armed   atomic.Int32 // 0: no; 1: the next message is lost; 2: its answer; 3: the answer that comes
}

func newCutter(t *testing.T, target string) *cutter {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	c := &cutter{address: l.Addr().String(), target: target}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

// cut loses the next message, or, once it has reached the server, its answer.
func (c *cutter) cut(reached bool) {
	c.armed.Store(1)
	if reached {
		c.armed.Store(2)
	}
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	var d net.Dialer
	server, err := d.DialContext(context.Background(), "tcp", c.target)
	if err != nil {
		return
	}
	defer server.Close()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		defer client.Close()
		_, _ = io.Copy(writerFunc(func(p []byte) (int, error) {
			if c.armed.CompareAndSwap(3, 0) {
				return 0, io.ErrClosedPipe
			}
			return client.Write(p)
		}), server)
	}()
	_, _ = io.Copy(writerFunc(func(p []byte) (int, error) {
		if c.armed.CompareAndSwap(1, 0) {
			return 0, io.ErrClosedPipe
		}
		c.armed.CompareAndSwap(2, 3)
		return server.Write(p)
	}), client)
	server.Close()
	<-answered
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
