package proxy_test

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/proxy"
)

// patience bounds what must happen, silence what must not.
const (
	patience = 5 * time.Second
	silence  = 50 * time.Millisecond
)

func TestPassDeliversBothWaysAndBothEnds(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	say(t, client, "ping")
	hear(t, peer, "ping")
	say(t, peer, "pong")
	hear(t, client, "pong")
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	hearEnd(t, peer)
	say(t, peer, "last")
	hear(t, client, "last")
	if p.Accepted() != 1 || p.Open() != 1 {
		t.Errorf("accepted %d, open %d, want 1 and 1", p.Accepted(), p.Open())
	}
	peer.Close()
	hearEnd(t, client)
	eventually(t, func() bool { return p.Open() == 0 })
}

func TestDelayMakesBytesLate(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	p.Delay(2 * silence)
	start := time.Now()
	say(t, client, "slow")
	hear(t, peer, "slow")
	if took := time.Since(start); took < 2*silence {
		t.Errorf("the bytes took %v, want at least %v", took, 2*silence)
	}
}

func TestBlackHoleSwallowsAndPassBreaks(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	before := dial(t, p)
	peer := server.next(t)
	p.BlackHole()
	say(t, before, "lost")
	hearNothing(t, peer)
	during := dial(t, p)
	say(t, during, "lost")
	server.none(t)
	eventually(t, func() bool { return p.Accepted() == 2 })

	p.Pass()
	hearEnd(t, before)
	hearEnd(t, peer)
	hearEnd(t, during)
	after := dial(t, p)
	say(t, after, "through")
	hear(t, server.next(t), "through")
}

func TestLoseAnswersDeliversRequests(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	p.LoseAnswers()
	client := dial(t, p)
	peer := server.next(t)
	say(t, client, "do it")
	hear(t, peer, "do it")
	say(t, peer, "done")
	peer.Close()
	hearNothing(t, client)
}

func TestRefuseSparesOpenConnections(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	addr := p.Addr()
	p.Refuse()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Fatal("a refusing proxy accepts")
	}
	say(t, client, "still here")
	hear(t, peer, "still here")
	p.Pass()
	if p.Addr() != addr {
		t.Errorf("the address moved from %s to %s", addr, p.Addr())
	}
	dial(t, p)
	server.next(t)
}

func TestCutAfterRequestCountsFromNow(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	say(t, client, "uncounted")
	hear(t, peer, "uncounted")
	p.CutAfterRequest(5)
	say(t, client, "abc")
	hear(t, peer, "abc")
	say(t, peer, "answers do not count")
	hear(t, client, "answers do not count")
	say(t, client, "defg")
	hear(t, peer, "de")
	hearEnd(t, peer)
	hearEnd(t, client)
}

func TestCutAfterAnswer(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	p.CutAfterAnswer(0)
	client := dial(t, p)
	peer := server.next(t)
	say(t, client, "request")
	hear(t, peer, "request")
	say(t, peer, "answer")
	hearEnd(t, client)
}

func TestHoldDeliversAfterTheSenderHasGone(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	p.Hold()
	say(t, client, "late ")
	say(t, client, "work")
	if err := client.SetLinger(0); err != nil { // a reset, as of a client that gives up
		t.Fatal(err)
	}
	eventually(t, func() bool { return p.Held() == len("late work") })
	client.Close()
	hearNothing(t, peer)
	p.Pass()
	hear(t, peer, "late work")
	hearEnd(t, peer)
}

func TestHalfOpenKeepsTheEndFromTheOtherSide(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	p.HalfOpen()
	say(t, client, "bye")
	client.Close()
	hear(t, peer, "bye")
	say(t, peer, "anybody there?")
	hearNothing(t, peer)
	p.Pass()
	hearEnd(t, peer)
}

func TestCutAllBreaksWhatIsOpen(t *testing.T) {
	t.Parallel()
	p, server := setup(t)
	client := dial(t, p)
	peer := server.next(t)
	p.CutAll()
	hearEnd(t, client)
	hearEnd(t, peer)
	next := dial(t, p)
	say(t, next, "fine")
	hear(t, server.next(t), "fine")
}

func TestDeadTargetBreaksTheClient(t *testing.T) {
	t.Parallel()
	l := listen(t)
	l.Close()
	hearEnd(t, dial(t, proxy.New(t, l.Addr().String())))
}

func TestThroughKeepsTheRest(t *testing.T) {
	t.Parallel()
	p, _ := setup(t)
	got := p.Through(t, "postgres://u:p@127.0.0.1:5432/db?sslmode=disable")
	if want := "postgres://u:p@" + p.Addr() + "/db?sslmode=disable"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// target hands its accepted connections to the test.
type target struct{ conns chan *net.TCPConn }

func setup(t *testing.T) (*proxy.Proxy, target) {
	t.Helper()
	l := listen(t)
	s := target{conns: make(chan *net.TCPConn, 10)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns <- conn.(*net.TCPConn)
		}
	}()
	return proxy.New(t, l.Addr().String()), s
}

func (s target) next(t *testing.T) *net.TCPConn {
	t.Helper()
	select {
	case conn := <-s.conns:
		t.Cleanup(func() { conn.Close() })
		return conn
	case <-time.After(patience):
		t.Fatal("no connection reached the target")
		return nil
	}
}

func (s target) none(t *testing.T) {
	t.Helper()
	select {
	case <-s.conns:
		t.Fatal("a connection reached the target")
	case <-time.After(silence):
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, p *proxy.Proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

func say(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatalf("say %q: %v", text, err)
	}
}

func hear(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, len(want))
	if n, err := io.ReadFull(conn, buf); err != nil || string(buf) != want {
		t.Fatalf("heard %q, %v, want %q", buf[:n], err, want)
	}
}

func hearNothing(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(silence))
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	var timeout net.Error
	if n > 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("heard %q, %v, want silence", buf[:n], err)
	}
}

// hearEnd wants the end of the connection, in order or by a reset.
func hearEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(patience))
	n, err := conn.Read(make([]byte, 100))
	if n > 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("heard %d bytes, %v, want the end", n, err)
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about")
		}
	}
}
