// Package mysqltest gives tests real servers of MariaDB and MySQL to talk to.
//
// A server is private to the process, or to a test that does something to it: its
// own folder, its own port on 127.0.0.1. It dies with the process that started it.
// Everything that it is told is in its general log and its binary log.
package mysqltest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that mysqltest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// The kinds of servers.
const (
	MariaDB = "mariadb"
	MySQL   = "mysql"
)

// installCommand is what a person runs when a server is missing.
const installCommand = "scripts/install-mysql.sh"

// Kinds are the servers to test with: both, or MariaDB alone where the install
// script has declared that MySQL cannot be had.
func Kinds() []string {
	if _, err := os.Stat(filepath.Join(cacheDir(), "no-mysql")); err == nil {
		return []string{MariaDB}
	}
	return []string{MariaDB, MySQL}
}

// home is the folder of a kind of server, which the install script fills: the
// program bin/server, and the empty data folder data.
func home(kind string) (string, error) {
	dir := filepath.Join(cacheDir(), kind)
	for _, name := range []string{"bin/server", "data"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("there is no %s in %s: run %s", name, dir, installCommand)
		}
	}
	return dir, nil
}

// Tools is a folder with the client of MariaDB, where it was unpacked.
func Tools() string { return filepath.Join(cacheDir(), MariaDB, "bin") }

func cacheDir() string {
	if dir, err := servertest.Checkout(); err == nil {
		return filepath.Join(dir, ".cache", "mysql")
	}
	return filepath.Join(os.TempDir(), "scaivault-mysql")
}

// Pool are servers that the tests of one process share: one of each kind.
type Pool struct {
	mu      sync.Mutex
	servers map[string]*Server
}

// Shared is the process's server of a kind, started at the first call. It lives
// until Close.
func (p *Pool) Shared(t TB, kind string) *Server {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.servers == nil {
		p.servers = map[string]*Server{}
	}
	if p.servers[kind] == nil {
		s, err := start(kind)
		if err != nil {
			t.Fatalf("start %s: %v", kind, err)
		}
		p.servers[kind] = s
	}
	return p.servers[kind]
}

// Close ends the shared servers.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.servers {
		s.close()
	}
	p.servers = nil
}
