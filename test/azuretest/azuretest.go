// Package azuretest gives tests an Azure to talk to: Microsoft's token endpoint, the parts of Microsoft
// Graph and of Azure Resource Manager that the engine uses, over HTTPS, with a state of their own.
//
// No emulator of them can be had, so what answers is ours. What is Microsoft's: every request and every
// response is checked against Microsoft's own OpenAPI documents (testdata), and a test in which one of
// them is not as documented fails. What is emulated from Microsoft's documentation:
//
//   - Logins with a client secret, and the codes with which they are refused; a secret ends at its
//     endDateTime, at once when it is removed, and with its application.
//   - Authorization: each request is refused unless the application permissions in the caller's token, the
//     ownership of the application (Application.ReadWrite.OwnedBy), or the role assignments of the caller
//     and its groups allow it.
//   - Eventual consistency (WithLag): what was made is not known everywhere for a while of the server's own
//     clock, what was deleted is still shown, and what goes to the recycle bin is not there yet.
//   - Throttling, answers that get lost after their effect, failures before and after it, slowness
//     (Server.Fail).
//   - Pages of lists: three items each.
//
// What this does not prove is listed in docs/engines/azure.md.
package azuretest

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that azuretest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	TempDir() string
}

// Server is an Azure with one tenant and one subscription.
type Server struct {
	Tenant       string
	Subscription string
	CA           string // PEM of what its certificate is verified by

	pair     tls.Certificate
	address  string
	lag      time.Duration // until something is known everywhere
	tick     time.Duration // of the server's clock, for each request
	stale    bool          // only what is read lags
	lifetime time.Duration // of tokens
	quota    int           // of objects that one principal can make; 0 for none

	mu         sync.Mutex
	ahead      time.Duration // of the server's clock
	fail       func(op string) Fault
	directory  directory
	violations []string
	served     int
	unfiltered bool // lists of role assignments
	writing    bool // the request that has the lock
	hidden     int  // how many times the subscription is still not shown
}

// Option changes how a server works.
type Option func(*Server)

// WithLag makes everything known only after so much of the server's clock, which each request moves by
// tick.
func WithLag(lag, tick time.Duration) Option {
	return func(s *Server) { s.lag, s.tick = lag, tick }
}

// WithStaleReads makes only what is read lag, for an hour: what is written is known to who writes.
func WithStaleReads() Option {
	return func(s *Server) { s.stale, s.lag = true, time.Hour }
}

// WithQuota lets a principal make so many objects, those in the recycle bin counted. Microsoft's is 250.
func WithQuota(objects int) Option { return func(s *Server) { s.quota = objects } }

// Start runs a server until the end of the test.
func Start(t TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{Tenant: newID(), Subscription: newID(), lifetime: time.Hour, directory: newDirectory()}
	for _, option := range opts {
		option(s)
	}
	if err := loadContracts(); err != nil {
		t.Fatalf("read Microsoft's documents: %v", err)
	}
	dir := t.TempDir()
	ca, err := servertest.WriteCertificate(dir)
	if err != nil {
		t.Fatalf("make a certificate: %v", err)
	}
	s.CA = string(ca)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, servertest.CertFile), filepath.Join(dir, servertest.KeyFile))
	if err != nil {
		t.Fatalf("load the certificate: %v", err)
	}
	s.pair = pair
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, v := range s.violations {
			t.Errorf("against Microsoft's documents: %s", v)
		}
	})
	s.address = strings.TrimPrefix(listen(t, pair, s), "https://")
	return s
}

// listen serves until the end of the test, and tells where.
func listen(t TB, pair tls.Certificate, handler http.Handler) string {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatalf("%v", err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	listener, err := net.Listen("tcp", address) //nolint:noctx // at once or never
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: time.Minute, ErrorLog: quiet(),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(listener, "", "") // it ends with Close
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return "https://" + address
}

// Addr is host and port.
func (s *Server) Addr() string { return s.address }

// URL is the base of all services here.
func (s *Server) URL() string { return "https://" + s.address }

// Scope is that of the subscription.
func (s *Server) Scope() string { return "/subscriptions/" + s.Subscription }

// Now is the server's clock.
func (s *Server) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now()
}

// Advance moves the server's clock.
func (s *Server) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead += d
}

func (s *Server) now() time.Time { return time.Now().Add(s.ahead) }

// Served is how many requests came.
func (s *Server) Served() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

// Fault is what goes wrong with a request; the zero value is nothing.
type Fault struct {
	Throttle   bool          // 429, nothing is done
	RetryAfter int           // seconds; 0 leaves the header out
	Before     bool          // 500, nothing is done
	After      bool          // it is done, and answered with 500
	Lost       bool          // it is done, and the connection ends without an answer
	Slow       time.Duration // first
}

// Fail asks f what goes wrong with each request from now on. Its op is method and path as Microsoft's
// documents have it, such as "POST /applications"; of the token endpoint it is "token". A nil f lets all
// pass.
func (s *Server) Fail(f func(op string) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// Rights are what a root may do.
type Rights struct {
	Permissions []string          // application permissions of Microsoft Graph
	Roles       map[string]string // names of roles at Azure, by their scope
	OwnsItself  bool              // it is an owner of its own application
}

// Root is an application that an engine logs in as.
type Root struct{ ClientID, ClientSecret, ObjectID, PrincipalID string }

// NewRoot makes one with just these rights.
func (s *Server) NewRoot(t TB, r Rights) Root {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.now().Add(-time.Hour - s.lag)
	a := s.directory.addApplication("ScaiVault root", nil, "", past)
	p := s.directory.addPrincipal(a.appID, nil, past)
	p.permissions = r.Permissions
	text, secret := newSecret()
	a.passwords = append(a.passwords, &password{key: newID(), hint: text[:3], text: secret, made: past, ends: s.now().AddDate(2, 0, 0)})
	if r.OwnsItself {
		a.owners[p.id] = true
	}
	for scope, name := range r.Roles {
		d := s.directory.definitionNamed(name)
		if d == nil {
			t.Fatalf("there is no role %s", name)
		}
		path := scope + roleAssignments + newID()
		s.directory.assignments[strings.ToLower(path)] = &assignment{path: path, scope: scope, principal: p.id, definition: d.id}
	}
	return Root{a.appID, text, a.id, p.id}
}

// NewGroup makes a group and tells its object id; types may be "DynamicMembership".
func (s *Server) NewGroup(name string, types ...string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := &group{id: newID(), name: name, types: types, members: map[string]bool{}}
	s.directory.groups[g.id] = g
	return g.id
}

// NewApplication makes an application of somebody, with its service principal. With owners, these object
// ids own it.
func (s *Server) NewApplication(name string, owners ...string) (objectID, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.now().Add(-time.Hour - s.lag)
	a := s.directory.addApplication(name, nil, "", past)
	s.directory.addPrincipal(a.appID, nil, past)
	for _, owner := range owners {
		a.owners[owner] = true
	}
	return a.id, a.appID
}

// Rename gives an application another name and other tags, as an administrator would.
func (s *Server) Rename(clientID, name string, tags ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.directory.applicationOf(clientID)
	a.name, a.tags = name, tags
}

// Permit gives a root other application permissions; tokens that it has keep what they tell.
func (s *Server) Permit(r Root, permissions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.directory.principals[r.PrincipalID].permissions = permissions
}

// AddPassword gives an application one more password, as an administrator would, and tells it.
func (s *Server) AddPassword(objectID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.now().Add(-time.Hour - s.lag)
	text, secret := newSecret()
	s.directory.applications[objectID].passwords = append(s.directory.applications[objectID].passwords,
		&password{key: newID(), hint: text[:3], text: secret, made: past, ends: s.now().AddDate(1, 0, 0)})
	return text
}

// PlantPassword gives an application a password of a stranger.
func (s *Server) PlantPassword(objectID, displayName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, secret := newSecret()
	s.directory.applications[objectID].passwords = append(s.directory.applications[objectID].passwords,
		&password{key: newID(), name: displayName, hint: text[:3], text: secret, made: s.now(), ends: s.now().AddDate(1, 0, 0)})
}

// IgnoreFilter shows all role assignments from now on, whoever's are asked for.
func (s *Server) IgnoreFilter() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfiltered = true
}

// Assign gives a principal a role, as an administrator would.
func (s *Server) Assign(t TB, scope, role, principal string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	path := scope + roleAssignments + newID()
	s.directory.assignments[strings.ToLower(path)] = &assignment{path: path, scope: scope, principal: principal, definition: s.directory.definitionNamed(role).id}
}

// Withdraw takes from a principal all roles that it has at just this scope, as an administrator would.
func (s *Server) Withdraw(scope, principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.directory.assignments, func(_ string, a *assignment) bool {
		return a.principal == principal && strings.EqualFold(a.scope, scope)
	})
}

// Delete deletes an application and its service principal, as an administrator would.
func (s *Server) Delete(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delete(s.directory.applicationOf(clientID))
}

// Left is what is in the directory and at Azure.
type Left struct {
	Applications, Principals, Passwords, Assignments, Memberships, Recycled int
}

func (l Left) String() string {
	return fmt.Sprintf("%d applications, %d service principals, %d passwords, %d assignments, %d memberships, %d in the recycle bin",
		l.Applications, l.Principals, l.Passwords, l.Assignments, l.Memberships, l.Recycled)
}

// Left counts all of it, whoever made it: not through the services.
func (s *Server) Left() (l Left) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.directory.applications {
		if a.deleted.IsZero() {
			l.Applications++
			l.Passwords += len(a.passwords)
		} else {
			l.Recycled++
		}
	}
	for _, p := range s.directory.principals {
		if p.deleted.IsZero() {
			l.Principals++
		}
	}
	for _, g := range s.directory.groups {
		l.Memberships += len(g.members)
	}
	l.Assignments = len(s.directory.assignments)
	return l
}

// Names are the display names of applications and of passwords that are there.
func (s *Server) Names() (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.directory.applications {
		if a.deleted.IsZero() {
			names = append(names, a.name)
			for _, p := range a.passwords {
				names = append(names, p.name)
			}
		}
	}
	return names
}

// End is the end of the password of a credential: of its application, or of the password that bears the name.
func (s *Server) End(t TB, name string) time.Time {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.directory.applications {
		for _, p := range a.passwords {
			if a.deleted.IsZero() && (a.name == name || strings.HasPrefix(p.name, name)) {
				return p.ends
			}
		}
	}
	t.Fatalf("%s has no password", name)
	return time.Time{}
}

// PrincipalOf is the object id of the service principal of an application.
func (s *Server) PrincipalOf(clientID string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.directory.principals {
		if p.appID == clientID && p.deleted.IsZero() {
			return p.id
		}
	}
	return ""
}

// testdata is the folder of this package's data.
func testdata(name string) ([]byte, error) {
	root, err := servertest.Checkout()
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(root, "test", "azuretest", "testdata", name))
}
