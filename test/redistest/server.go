package redistest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/scaivault/scaivault/test/freeport"
	"github.com/scaivault/scaivault/test/servertest"
)

// password is the one of the user default, who may do everything, on every
// server: what tests keep secret are the credentials that they make.
const password = "superuser-of-the-test"

// bus is how far above its port a node of a cluster listens for the others.
const bus = 10000

// Server is one private server. It keeps its folder and port over restarts.
type Server struct {
	Kind string
	Port int

	dir       string
	program   program
	arguments []string
	login     [2]string // of who may do everything; empty on a Sentinel
	ca        []byte

	mu      sync.Mutex
	process *servertest.Process // nil while it was killed
	admin   *redis.Client
}

// options describe a server.
type options struct {
	noACLFile bool
	tls       bool
	sentinel  bool
	lines     []string
}

// Option changes how a server is started.
type Option func(*options)

// WithLines adds lines to the configuration file.
func WithLines(lines ...string) Option {
	return func(o *options) { o.lines = append(o.lines, lines...) }
}

// WithoutACLFile keeps the users in the configuration file.
func WithoutACLFile() Option { return func(o *options) { o.noACLFile = true } }

// WithTLS makes the server talk TLS only, with a certificate for 127.0.0.1 and
// localhost that Server.CA verifies.
func WithTLS() Option { return func(o *options) { o.tls = true } }

// Start runs a server until the end of the test.
func Start(t TB, kind string, opts ...Option) *Server {
	t.Helper()
	found, err := find(kind)
	if err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	var o options
	for _, option := range opts {
		option(&o)
	}
	port, err := freeport.Pick(bus)
	if err != nil {
		t.Fatalf("start %s: %v", kind, err)
	}
	s := &Server{Kind: kind, dir: t.TempDir(), program: found, Port: port, login: [2]string{"default", password}}
	if err := s.configure(o); err != nil {
		t.Fatalf("configure %s: %v", kind, err)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		running := s.process != nil
		if s.admin != nil {
			_ = s.admin.Close()
		}
		s.mu.Unlock()
		if running {
			s.Kill(t)
		}
	})
	s.Run(t)
	return s
}

// configure writes the configuration file and the users.
func (s *Server) configure(o options) error {
	user := "user default on >" + password + " ~* &* +@all"
	port := "port " + strconv.Itoa(s.Port)
	lines := []string{"bind 127.0.0.1", "dir " + s.dir, "logfile " + s.path("log"), "loglevel verbose"}
	if !o.sentinel {
		lines = append(lines, `save ""`)
	}
	if o.tls {
		var err error
		if s.ca, err = servertest.WriteCertificate(s.dir); err != nil {
			return err
		}
		port = "port 0\ntls-port " + strconv.Itoa(s.Port)
		lines = append(lines, "tls-cert-file "+s.path(servertest.CertFile), "tls-key-file "+s.path(servertest.KeyFile), "tls-auth-clients no")
	}
	lines = append(lines, port)
	switch {
	case o.sentinel:
		s.arguments, s.login = []string{"--sentinel"}, [2]string{}
	case o.noACLFile:
		lines = append(lines, user)
	default:
		lines = append(lines, "aclfile "+s.path("users.acl"))
		if err := os.WriteFile(s.path("users.acl"), []byte(user+"\n"), 0o600); err != nil {
			return err
		}
	}
	lines = append(lines, o.lines...)
	return os.WriteFile(s.path("server.conf"), []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

// Addr is host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// CA is the PEM of the certificate that verifies the server; nil without TLS.
func (s *Server) CA() []byte { return s.ca }

// Tools is the folder of the server's own programs, redis-cli among them, and
// Libraries that of what they need.
func (s *Server) Tools() string     { return filepath.Dir(s.program.path) }
func (s *Server) Libraries() string { return s.program.libraries }

// Password is the one of the user default.
func (s *Server) Password() string { return password }

// Run starts a server that was killed, on the same folder and port.
func (s *Server) Run(t TB) {
	t.Helper()
	if err := s.run(); err != nil {
		log, _ := os.ReadFile(s.path("log"))
		t.Fatalf("start %s: %v; its log: %s", s.Kind, err, log)
	}
}

func (s *Server) run() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := exec.Command(s.program.path, append([]string{s.path("server.conf")}, s.arguments...)...) //nolint:noctx // ended by Kill
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "LD_LIBRARY_PATH=" + s.program.libraries}
	cmd.Dir = s.dir
	s.process, err = servertest.Start(cmd, func() bool {
		conn, err := net.Dial("tcp", s.Addr()) //nolint:noctx // on loopback: at once or never
		return err == nil && conn.Close() == nil
	})
	return err
}

// Kill is kill -9.
func (s *Server) Kill(t TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Kill(); err != nil {
		t.Fatalf("kill %s: %v", s.Kind, err)
	}
	s.process = nil
}

// Freeze stops the process: connections stay open and nobody answers.
func (s *Server) Freeze(t TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw(t TB) {
	t.Helper()
	s.signal(t, syscall.SIGCONT)
}

func (s *Server) signal(t TB, signal syscall.Signal) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Signal(signal); err != nil {
		t.Fatalf("signal %s: %v", s.Kind, err)
	}
}

// Do runs a command as the user default and returns its answer.
func (s *Server) Do(t TB, arguments ...any) any {
	t.Helper()
	answer, err := s.Try(arguments...)
	if err != nil {
		t.Fatalf("%v: %v", arguments[:min(2, len(arguments))], err)
	}
	return answer
}

// Try is Do for a command that may fail.
func (s *Server) Try(arguments ...any) (any, error) {
	s.mu.Lock()
	if s.admin == nil {
		s.admin = s.Client(s.login[0], s.login[1])
	}
	admin := s.admin
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return admin.Do(ctx, arguments...).Result()
}

// Users are the names of all users.
func (s *Server) Users(t TB) []string {
	t.Helper()
	list, _ := s.Do(t, "ACL", "USERS").([]any)
	names := make([]string, len(list))
	for i, name := range list {
		names[i], _ = name.(string)
	}
	return names
}

// Client is the official client as a user, with one connection that is made at
// first use and not made again.
func (s *Server) Client(user, password string) *redis.Client {
	logging.Disable()
	o := &redis.Options{Addr: s.Addr(), Username: user, Password: password, Protocol: 2, DisableIdentity: true, PoolSize: 1, MaxRetries: -1, DialerRetries: 1}
	if s.ca != nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.ca)
		o.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	}
	return redis.NewClient(o)
}

// Log is all that the server has logged since it was made.
func (s *Server) Log(t TB) string {
	t.Helper()
	text, err := os.ReadFile(s.path("log"))
	if err != nil {
		t.Fatalf("read the log of %s: %v", s.Kind, err)
	}
	return string(text)
}

// Files is what the server keeps of its users and its configuration.
func (s *Server) Files(t TB) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"users.acl", "server.conf"} {
		text, err := os.ReadFile(s.path(name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatalf("read %s of %s: %v", name, s.Kind, err)
		}
		all.Write(text)
	}
	return all.String()
}
