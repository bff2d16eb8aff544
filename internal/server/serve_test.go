package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/metrics"
)

// setup is a server with routes of the test's own.
func setup(limits Limits, log io.Writer, routes ...route) *Server {
	s := New(Config{Metrics: metrics.New(), Logger: slog.New(slog.NewTextHandler(log, nil)), Limits: limits})
	mux := http.NewServeMux()
	s.mount(mux, append(routes, s.systemRoutes()...))
	s.handler = &front{server: s, next: mux}
	s.http.Handler = s.handler
	return s
}

func ask(s *Server, path string) (int, api.ErrorDetail) {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	var body api.ErrorBody
	_ = json.Unmarshal(w.Body.Bytes(), &body) // not every answer is an envelope
	return w.Code, body.Error
}

func TestPanicTellsNothing(t *testing.T) {
	t.Parallel()
	const canary = "canary-of-the-panic"
	var log bytes.Buffer
	s := setup(Limits{}, &log, get("/panic", "Panic.", func(*call) (*none, error) { panic(canary) }).open())
	status, e := ask(s, "/v1/panic")
	if status != 500 || e.Code != "internal_error" || e.RequestID == "" {
		t.Errorf("answer: %d %+v", status, e)
	}
	if strings.Contains(log.String(), canary) || strings.Contains(e.Message, canary) {
		t.Errorf("the panic's value is told: %s", log.String())
	}
	if !strings.Contains(log.String(), "TestPanicTellsNothing") {
		t.Errorf("the log does not say where: %s", log.String())
	}
}

// Who asks without a token is not told what a document that cannot be made depends on; the log has it.
func TestPublicDocumentTellsNoReason(t *testing.T) {
	t.Parallel()
	var why error
	var log bytes.Buffer
	s := setup(Limits{}, &log, published("/document", "text/plain", "A document.", func(*call) ([]byte, string, error) { return nil, "", why }))
	for code, want := range map[fault.Code]int{fault.InvalidConfig: 503, fault.EngineError: 503, fault.ServiceUnavailable: 503} {
		why = fault.New(code, "bind a policy for infra/root").With("reason", "infra/root")
		log.Reset()
		if status, e := ask(s, "/v1/document"); status != want || strings.Contains(e.Message, "infra") || len(e.Details) > 0 || !strings.Contains(log.String(), "infra/root") {
			t.Errorf("%s: %d %+v, and the log has %q", code, status, e, log.String())
		}
	}
	why = fault.New(fault.EngineNotFound, "there is no engine")
	if status, e := ask(s, "/v1/document"); status != 404 || e.Message != "there is no engine" {
		t.Errorf("%d %+v", status, e)
	}
}

func TestInFlightLimitAndDrain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := setup(Limits{InFlight: 2}, io.Discard, get("/slow", "Wait.", func(*call) (*api.Health, error) {
			<-release
			return &api.Health{Status: "done"}, nil
		}).open())
		var answers [2]int
		var slow sync.WaitGroup
		for i := range answers {
			slow.Go(func() { answers[i], _ = ask(s, "/v1/slow") })
		}
		synctest.Wait()
		if status, e := ask(s, "/v1/slow"); status != 503 || e.Code != "service_unavailable" {
			t.Errorf("one too many: %d %s", status, e.Code)
		}
		if status, _ := ask(s, "/v1/health"); status != 200 {
			t.Errorf("health under load: %d", status)
		}

		drained := make(chan error, 1)
		go func() { drained <- s.Drain(context.Background()) }()
		synctest.Wait()
		if status, _ := ask(s, "/v1/health/ready"); status != 503 {
			t.Errorf("readiness while stopping: %d", status)
		}
		select {
		case err := <-drained:
			t.Fatalf("drained with requests in flight: %v", err)
		default:
		}
		close(release)
		if err := <-drained; err != nil {
			t.Error(err)
		}
		slow.Wait()
		if answers != [2]int{200, 200} {
			t.Errorf("requests in flight were answered %v", answers)
		}
		if status, _ := ask(s, "/v1/slow"); status != 503 {
			t.Errorf("a request after the drain: %d", status)
		}
		if err := s.Drain(context.Background()); err != nil {
			t.Errorf("drain twice: %v", err)
		}
	})
}

func TestTimeLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := func(extend time.Duration) func(c *call) (*none, error) {
			return func(c *call) (*none, error) {
				if extend > 0 {
					c.extend(extend)
				}
				<-c.ctx.Done()
				return nil, c.ctx.Err()
			}
		}
		s := setup(Limits{}, io.Discard, get("/hang", "Hang.", hang(0)).open(), get("/long", "Hang long.", hang(time.Hour)).open(),
			get("/wait", "Hang as told.", func(c *call) (*none, error) {
				c.wait(0)
				<-c.ctx.Done()
				return nil, c.ctx.Err()
			}).open().query(wait()))
		for path, want := range map[string]time.Duration{"/v1/hang": defaultTimeout, "/v1/long": time.Hour,
			"/v1/wait?wait=5m": 5*time.Minute + waitMargin, "/v1/wait?wait=0": defaultTimeout} {
			began := time.Now()
			if status, e := ask(s, path); status != 503 || e.Code != "service_unavailable" {
				t.Errorf("%s: %d %s", path, status, e.Code)
			}
			if took := time.Since(began); took != want {
				t.Errorf("%s ended after %v, want %v", path, took, want)
			}
		}
	})
}

// TestUndelivered ends the caller's connection before the answer, which the operation is told of.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	lost := make(chan string, 4)
	reached := make(chan struct{})
	s := setup(Limits{}, io.Discard,
		get("/gone", "Answer to nobody.", func(c *call) (*api.Health, error) {
			c.onUndelivered(func() { lost <- "gone" })
			close(reached)
			<-c.ctx.Done()
			return &api.Health{}, nil
		}).open(),
		get("/there", "Answer.", func(c *call) (*api.Health, error) {
			c.onUndelivered(func() { lost <- "there" })
			return &api.Health{}, nil
		}).open())
	web := httptest.NewServer(s.Handler())
	defer web.Close()
	resp, err := web.Client().Get(web.URL + "/v1/there")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /v1/gone HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-reached
	conn.Close()
	if got := <-lost; got != "gone" {
		t.Errorf("%q was told undelivered", got)
	}
	if len(lost) > 0 {
		t.Errorf("told more than once: %q", <-lost)
	}
}

// TestConnectionLimit holds as many connections as an address may have: the next one is closed,
// and one that was given back can be had again.
func TestConnectionLimit(t *testing.T) {
	t.Parallel()
	s := setup(Limits{PerAddress: 2}, io.Discard)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l, nil) }()
	dial := func() (net.Conn, bool) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n") // may be closed already
		n, _ := conn.Read(make([]byte, 1))
		return conn, n == 1
	}
	first, ok := dial()
	second, ok2 := dial()
	if !ok || !ok2 {
		t.Fatal("an address has less than its limit")
	}
	defer second.Close()
	if third, ok := dial(); ok {
		t.Error("an address has more than its limit")
	} else {
		third.Close()
	}
	first.Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		again, ok := dial()
		again.Close()
		if ok {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a place that was given back cannot be had again")
		}
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestVerbsAndGeneralPatterns: a more special pattern takes its methods only.
func TestVerbsAndGeneralPatterns(t *testing.T) {
	t.Parallel()
	say := func(what string) func(*call) (*api.Health, error) {
		return func(c *call) (*api.Health, error) { return &api.Health{Status: what + " " + c.path("path")}, nil }
	}
	s := setup(Limits{}, io.Discard,
		get("/things/{path...}", "Read.", say("read")).open(),
		get("/things/{path...}:history", "History.", say("history")).open(),
		act(http.MethodPost, "/things/batch", 200, "Batch.", say("batch")).open())
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/v1/things/a/b", "read a/b"},
		{"GET", "/v1/things/a/b:history", "history a/b"},
		{"GET", "/v1/things/a/b%3Ahistory", "history a/b"},
		{"GET", "/v1/things/batch", "read batch"},
		{"POST", "/v1/things/batch", "batch "},
		{"GET", "/v1/t/x/things/batch", "read batch"},
		{"POST", "/v1/things/a", ""},
		{"GET", "/v1/things/a:none", ""},
	} {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		var h api.Health
		if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil || h.Status != tt.want {
			t.Errorf("%s %s: %d %s, want %q", tt.method, tt.path, w.Code, w.Body, tt.want)
		}
	}
}

// deadlines notes what a response controller asks of the connection.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

func TestLongOperationsMoveTheConnectionsDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := setup(Limits{}, io.Discard, get("/long", "Take long.", func(*call) (*api.Health, error) { return &api.Health{}, nil }).
			open().within(10*time.Minute))
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		s.Handler().ServeHTTP(d, httptest.NewRequest(http.MethodGet, "/v1/long", nil))
		if end := time.Now().Add(10 * time.Minute); d.read.Before(end) || d.write.Before(end) {
			t.Errorf("the connection ends in %v and %v, before the operation may", time.Until(d.read), time.Until(d.write))
		}
	})
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	own := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, and a client that knows it
	defer own.Close()
	client := own.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	s := setup(Limits{}, io.Discard)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if err := s.Serve(l, &tls.Config{Certificates: own.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}); err != nil {
			t.Error(err)
		}
	}()
	for path, want := range map[string]int{"/v1/health": 200, "/v1/secrets/a%2fb": 400, "/v1/none": 404} {
		resp, err := client.Get("https://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 || resp.StatusCode != want {
			t.Errorf("%s: %s %d, want HTTP/2 %d", path, resp.Proto, resp.StatusCode, want)
		}
	}
	client.CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
