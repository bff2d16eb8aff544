// Package redistest gives tests real Redis and Valkey servers to talk to: alone,
// as a cluster, and as a set that Sentinels watch.
//
// Every server is private: its own folder, its own port on 127.0.0.1, its own
// password. It dies with the process that started it.
package redistest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that redistest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	TempDir() string
}

// The kinds of servers.
const (
	Redis  = "redis"
	Valkey = "valkey"
)

// installCommand is what a person runs when a server is missing.
const installCommand = "scripts/install-redis.sh"

// Kinds are the servers to test with: both, or Redis alone where the install
// script has declared that Valkey cannot be had.
func Kinds() []string {
	if _, err := os.Stat(filepath.Join(cacheDir(), "no-valkey")); err == nil {
		return []string{Redis}
	}
	return []string{Redis, Valkey}
}

// program is a server's binary and the folder of its libraries.
type program struct{ path, libraries string }

// find looks for a kind of server: where the environment says, in PATH, and in
// the cache that the install script fills.
func find(kind string) (program, error) {
	name := kind + "-server"
	if dir := os.Getenv("SCAIVAULT_TEST_" + strings.ToUpper(kind) + "_BIN"); dir != "" {
		return program{filepath.Join(dir, name), filepath.Join(filepath.Dir(dir), "lib")}, nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return program{path: path}, nil
	}
	cached := program{filepath.Join(cacheDir(), kind, "bin", name), filepath.Join(cacheDir(), kind, "lib")}
	if _, err := os.Stat(cached.path); err != nil {
		return program{}, fmt.Errorf("there is no %s in PATH or in %s: run %s", name, filepath.Dir(cached.path), installCommand)
	}
	return cached, nil
}

// cacheDir is the folder that the install script fills.
func cacheDir() string {
	if dir, err := servertest.Checkout(); err == nil {
		return filepath.Join(dir, ".cache", "redis")
	}
	return filepath.Join(os.TempDir(), "scaivault-redis")
}
