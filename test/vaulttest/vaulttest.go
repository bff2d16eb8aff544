// Package vaulttest gives tests the real program to talk to: built once, run
// on loopback with a store of its own, killed with kill -9 where that is what
// a test is about.
package vaulttest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that vaulttest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	TempDir() string
}

// Program is the path of the program, built from this checkout at the first
// call of the process; SCAIVAULT_TEST_PROGRAM names another one.
func Program(t TB) string {
	t.Helper()
	if path := os.Getenv("SCAIVAULT_TEST_PROGRAM"); path != "" {
		return path
	}
	return program.built(t, "")
}

// Failing is Program with the points at which a test kills or delays it
// (internal/failpoint): the same source, built with the tag that has them.
func Failing(t TB) string {
	t.Helper()
	return failing.built(t, "failpoint")
}

// program and failing outlive a test: a test binary has no other place for them.
var program, failing binary

// binary is built at most once.
type binary struct {
	once sync.Once
	path string
	err  error
}

func (b *binary) built(t TB, tag string) string {
	t.Helper()
	b.once.Do(func() { b.path, b.err = build(tag) })
	if b.err != nil {
		t.Fatalf("build the program: %v", b.err)
	}
	return b.path
}

// build puts the program into the git-ignored .cache, where the next build is
// a quick one. It appears by a rename: other test binaries may be running the
// former.
func build(tag string) (string, error) {
	root, err := servertest.Checkout()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache", "test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	final := filepath.Join(dir, "scaivault"+tag)
	partial := fmt.Sprintf("%s.%d", final, os.Getpid())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", tag, "-o", partial, "./cmd/scaivault")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return final, os.Rename(partial, final)
}
