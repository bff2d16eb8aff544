// Package pgtest gives tests and the demo a real PostgreSQL to talk to.
//
// Every server is private: its own data folder, its own port on 127.0.0.1, its
// own superuser password. It dies with the process that started it, however
// that process ends, and leaves no folder behind.
//
// A server that cannot be had fails the test and names the command that
// installs it: a suite that passes without its database has tested nothing.
package pgtest

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// TB is the part of testing.TB that pgtest needs, so that programs which are
// not tests (the benchmark, the crash run) may use the same helpers.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// Majors are the PostgreSQL versions that the project's scripts install. The
// meaning of CREATEROLE changed in 16, so both sides of it are here.
func Majors() []int { return []int{15, 16, 17, 18} }

// startTimeout bounds a start on a loaded machine; two seconds of it are
// initdb, once per machine and version.
const startTimeout = 90 * time.Second

// Option changes how a server is started.
type Option func(*LaunchOptions)

// WithSetting sets a line of postgresql.conf, for instance log_statement=all.
func WithSetting(name, value string) Option {
	return func(o *LaunchOptions) {
		if o.Settings == nil {
			o.Settings = map[string]string{}
		}
		o.Settings[name] = value
	}
}

// WithHBA puts lines in front of pg_hba.conf; the first match decides.
func WithHBA(lines ...string) Option {
	return func(o *LaunchOptions) { o.HBA = append(o.HBA, lines...) }
}

// WithTLS makes the server offer TLS with a self-signed certificate for
// 127.0.0.1 and localhost, which Server.CA returns.
func WithTLS() Option { return func(o *LaunchOptions) { o.TLS = true } }

// WithFsync makes commits durable as in production. Benchmarks and crash tests
// need it; functional tests are faster without.
func WithFsync() Option { return func(o *LaunchOptions) { o.Fsync = true } }

// WithOwnIdentity gives the server a system identifier of its own. Other
// servers of one version are copies of one template and share theirs.
func WithOwnIdentity() Option { return func(o *LaunchOptions) { o.OwnIdentity = true } }

// Start starts a server of the given major version for one test and removes it
// at the test's end.
func Start(t TB, major int, options ...Option) *Server {
	t.Helper()
	o := LaunchOptions{Major: major}
	for _, option := range options {
		option(&o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := Launch(ctx, o)
	if err != nil {
		t.Fatalf("start postgresql %d: %v", major, err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Fatalf("close postgresql %d: %v", major, err)
		}
	})
	return s
}

// shared holds the servers of this process that many tests use together. It is
// the one variable of the package: a test binary has no other place to keep
// what outlives a test.
var shared struct {
	sync.Mutex
	servers map[int]*Server
}

// Shared returns the one server of this major version that all tests of the
// process use, starting it at the first call. Tests make their own database
// with Server.CreateDB and must not stop, freeze or reconfigure it; roles are
// visible to all of them.
func Shared(t TB, major int) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if s, ok := shared.servers[major]; ok {
		return s
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	s, err := Launch(ctx, LaunchOptions{Major: major})
	if err != nil {
		t.Fatalf("start shared postgresql %d: %v", major, err)
	}
	if shared.servers == nil {
		shared.servers = map[int]*Server{}
	}
	shared.servers[major] = s
	return s
}

// Main runs the tests and then stops the shared servers:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// Without it they are killed when the process ends.
func Main(m interface{ Run() int }) int {
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	for major, s := range shared.servers {
		if err := s.Close(); err != nil {
			fmt.Printf("close shared postgresql %d: %v\n", major, err)
			code = max(code, 1)
		}
	}
	shared.servers = nil
	return code
}
