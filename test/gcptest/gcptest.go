// Package gcptest gives tests a Google Cloud to talk to: a server of ours, over real HTTPS, that keeps
// service accounts, their keys, tokens, and the policies of resources.
//
// There is no emulator of these APIs. What binds this one to Google's is that every request and every
// answer is checked against Google's own descriptions of the APIs (testdata): paths, methods,
// parameters, fields, types, enumerations. Beyond that it follows the documentation: signatures of
// assertions are verified by the keys that were uploaded or made, certificates and tokens end, each call
// needs its permission through a binding that holds at this moment, policies have etags, an account has
// at most 10 keys, deleted accounts stay in policies under their deleted name. It can be slow, know
// late of what was made or deleted, throttle, fail before or after it did what was asked, and lose
// answers.
//
// What it does not prove is in docs/engines/gcp.md.
package gcptest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// Project is the one that every server has.
const Project = "fake-project-123"

// TB is the part of testing.TB that gcptest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	TempDir() string
}

// Server is what tests talk to. Its methods may be called from several goroutines.
type Server struct {
	Address string // host:port
	CA      []byte // the certificate, as PEM; nil for one without TLS

	methods []*method
	scheme  string
	client  *http.Client

	mu       sync.Mutex
	ahead    time.Duration // of its clock
	tick     time.Duration // by which each request moves it on
	lag      time.Duration // until what was made or deleted is known
	fault    func(Request) Fault
	accounts map[string]*serviceAccount // by address, deleted ones until that is known
	policies map[string]*policy         // by resource
	noEtags  bool                       // policies are shown without
	roles    map[string][]string        // permissions by name
	tokens   map[string]*token
	subjects map[string]string // principals by audience and token of another issuer
	longest  time.Duration     // of tokens by impersonation
	log      []string
	wrong    []string // what broke Google's description
	calls    map[string]int
	made     int // pairs
}

// Request is one that the server got.
type Request struct {
	Method string // as in Google's description, such as "iam.projects.serviceAccounts.create"; "oauth2.token"
	Path   string
}

// Fault is what goes wrong with a request; the zero value is nothing.
type Fault struct {
	Delay      time.Duration
	Status     int    // the answer is this error
	Reason     string // its status in words, such as "UNAVAILABLE"
	RetryAfter int    // seconds
	After      bool   // what was asked is done all the same
	Lose       bool   // it is done, and the connection breaks instead of an answer
}

// Start starts a server with TLS.
func Start(t TB) *Server {
	t.Helper()
	return start(t, "https")
}

// StartPlain starts one without.
func StartPlain(t TB) *Server {
	t.Helper()
	return start(t, "http")
}

func start(t TB, scheme string) *Server {
	t.Helper()
	s := &Server{
		scheme: scheme, accounts: map[string]*serviceAccount{}, policies: map[string]*policy{}, roles: map[string][]string{},
		tokens: map[string]*token{}, subjects: map[string]string{}, longest: time.Hour, calls: map[string]int{},
	}
	var err error
	if s.methods, err = describe(); err != nil {
		t.Fatalf("read the descriptions: %v", err)
	}
	port, err := freeport.Pick()
	if err != nil {
		t.Fatalf("start the server: %v", err)
	}
	s.Address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp", s.Address)
	if err != nil {
		t.Fatalf("start the server: %v", err)
	}
	s.client = &http.Client{Timeout: time.Minute}
	server := &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	serve := func() error { return server.Serve(listener) }
	if scheme == "https" {
		dir := t.TempDir()
		if s.CA, err = servertest.WriteCertificate(dir); err != nil {
			t.Fatalf("make a certificate: %v", err)
		}
		trusted := x509.NewCertPool()
		trusted.AppendCertsFromPEM(s.CA)
		s.client.Transport = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
		serve = func() error {
			return server.ServeTLS(listener, filepath.Join(dir, servertest.CertFile), filepath.Join(dir, servertest.KeyFile))
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("serve: %v", err)
		}
		for _, w := range s.Wrong() {
			t.Errorf("Google's description is broken: %s", w)
		}
	})
	return s
}

// URL is the endpoint of all its services.
func (s *Server) URL() string { return s.scheme + "://" + s.Address }

// Wrong is what broke Google's description so far, in requests and in answers.
func (s *Server) Wrong() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrong)
}

// Forgive forgets what Wrong tells: a test has broken it on purpose.
func (s *Server) Forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = nil
}

// SetFault has each request ask what goes wrong with it; nil for nothing.
func (s *Server) SetFault(fault func(Request) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// SetLag makes the server know late, by its own clock, of what was made or deleted. Each request moves
// that clock on by tick.
func (s *Server) SetLag(lag, tick time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag, s.tick = lag, tick
}

// Advance moves the server's clock.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func (s *Server) now() time.Time { return time.Now().Add(s.ahead) }

// Log is what Google's audit log would hold: every request with its body, and what was said.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

// Say writes a text to the log.
func (s *Server) Say(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = append(s.log, text)
}

// Calls is how often a method was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// failure is an answer of Google's that is no success.
type failure struct {
	status     int
	reason     string
	message    string
	retryAfter int
}

func (f *failure) Error() string { return f.message }

func fail(status int, reason, format string, args ...any) error {
	return &failure{status: status, reason: reason, message: fmt.Sprintf(format, args...)}
}

// exchange is one request on its way.
type exchange struct {
	id         string // of the method
	parameters map[string]string
	r          *http.Request
	body       []byte
	as         string // member that asks, such as "serviceAccount:…"
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	x := &exchange{r: r, body: body}
	m := s.find(x)
	fault := s.begin(x)
	if fault.Delay > 0 {
		time.Sleep(fault.Delay)
	}
	injected := &failure{fault.Status, fault.Reason, "this was injected", fault.RetryAfter}
	if fault.Status != 0 && !fault.After {
		answer(w, nil, injected)
		return
	}
	result, err := s.perform(m, x)
	switch {
	case fault.Lose:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		result, err = nil, injected
	}
	answer(w, result, err)
}

// find names the method of a request.
func (s *Server) find(x *exchange) *method {
	if x.r.URL.Path == "/token" {
		x.id = "oauth2.token"
		return nil
	}
	for _, m := range s.methods {
		if parameters := m.match(x.r); parameters != nil {
			x.id, x.parameters = m.ID, parameters
			return m
		}
	}
	return nil
}

// begin writes the request down, and asks what goes wrong with it.
func (s *Server) begin(x *exchange) Fault {
	s.mu.Lock()
	s.ahead += s.tick
	s.calls[x.id]++
	line := x.r.Method + " " + x.r.URL.String()
	if x.id != "oauth2.token" && x.id != "sts.token" { // assertions are in no log of Google's
		line += " " + string(x.body)
	}
	s.log = append(s.log, line)
	fault := s.fault
	s.mu.Unlock()
	if fault == nil {
		return Fault{}
	}
	return fault(Request{x.id, x.r.URL.Path})
}

// perform does what was asked, if it is as Google describes it and may be done.
func (s *Server) perform(m *method, x *exchange) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case x.id == "oauth2.token":
		return s.grantToken(x)
	case x.id == "":
		return nil, s.broken(fmt.Errorf("there is no method %s %s", x.r.Method, x.r.URL.Path))
	case x.id == "sts.token":
		return s.exchangeToken(m, x)
	}
	if err := errors.Join(m.checkQuery(x.r.URL.Query()), m.checkRequest(x.body)); err != nil {
		return nil, s.broken(err)
	}
	if err := s.authenticate(x); err != nil {
		return nil, err
	}
	result, err := s.dispatch(x)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(result)
	if err == nil {
		err = m.checkResponse(text)
	}
	if err != nil {
		s.wrong = append(s.wrong, "an answer of gcptest: "+err.Error())
	}
	return result, nil
}

// broken notes what Google would refuse to understand.
func (s *Server) broken(err error) error {
	s.wrong = append(s.wrong, err.Error())
	return fail(http.StatusBadRequest, "INVALID_ARGUMENT", "Invalid JSON payload received. %v", err)
}

func (s *Server) dispatch(x *exchange) (any, error) {
	service, verb := x.id[:strings.IndexByte(x.id, '.')], x.id[strings.LastIndexByte(x.id, '.')+1:]
	switch {
	case verb == "getIamPolicy":
		return s.getPolicy(x)
	case verb == "setIamPolicy":
		return s.setPolicy(x)
	case verb == "testIamPermissions":
		return s.testPermissions(x)
	case service == "iamcredentials":
		return s.impersonate(x)
	case strings.Contains(x.id, ".keys."):
		return s.serveKeys(verb, x)
	}
	return s.serveAccounts(verb, x)
}

func answer(w http.ResponseWriter, result any, err error) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	var f *failure
	switch {
	case errors.As(err, &f):
		if f.retryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.retryAfter))
		}
		w.WriteHeader(f.status)
		result = map[string]any{"error": map[string]any{"code": f.status, "message": f.message, "status": f.reason}}
		if strings.HasPrefix(f.reason, "invalid_") { // of the token endpoints, in the form of OAuth
			result = map[string]any{"error": f.reason, "error_description": f.message}
		}
	case err != nil:
		w.WriteHeader(http.StatusInternalServerError)
	}
	_ = json.NewEncoder(w).Encode(result) // the client has gone
}

// random is a number in hex that is not given twice.
func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Client trusts the server's certificate.
func (s *Server) Client() *http.Client { return s.client }
