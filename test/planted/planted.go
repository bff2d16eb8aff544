// Package planted makes known-bad builds: the present source with some text
// replaced, so that a law is broken. A test that cannot tell such a build from
// the good one proves nothing.
package planted

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Fault is one known-bad build.
type Fault struct {
	Name    string
	Package string // the folder whose files are changed
	Run     string // its tests that must fail; its simulation when empty
	Live    bool   // the crash test must fail on the real program with it, too
	Edits   []Edit
}

// Edit replaces a text that occurs once in a file of the package.
type Edit struct{ File, From, To string }

// buildTime and runTime bound a build, and a run of tests. No run needs as much:
// one that is cut off there has shown nothing.
const (
	buildTime = 10 * time.Minute
	runTime   = 5 * time.Minute
)

// Check is the test that catches the fault.
func (f Fault) Check() string {
	if f.Run == "" {
		return "TestSimulation"
	}
	return f.Run
}

// Caught builds the package's tests with the fault and tells whether those that
// must fail do. To wait for ever is not to fail: a busy machine does that, too.
func (f Fault) Caught(t *testing.T) bool {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "planted.test")
	f.build(t, "test", "-c", "-o", binary, "./"+f.Package)
	args := []string{"-test.run", "^" + f.Check() + "$", "-test.timeout", runTime.String()}
	if f.Run == "" {
		args = append(args, "-simtime", "25s")
	}
	run := exec.CommandContext(t.Context(), binary, args...)
	run.Dir = filepath.Join(root(t), f.Package)
	out, err := run.CombinedOutput()
	caught := err != nil && !bytes.Contains(out, []byte("panic: test timed out"))
	if !caught {
		t.Logf("%s: %v: %s", f.Check(), err, out[max(0, len(out)-3000):])
	}
	return caught
}

// In are the faults of one package.
func In(folder string) (faults []Fault) {
	for _, f := range Faults() {
		if f.Package == folder {
			faults = append(faults, f)
		}
	}
	return faults
}

// Program is the real program with the fault, built with more flags of go build.
func (f Fault) Program(t *testing.T, flags ...string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "scaivault")
	f.build(t, "build", append(flags, "-o", binary, "./cmd/scaivault")...)
	return binary
}

// build runs go with the fault laid over the source. A build that fails proves
// nothing and ends the test.
func (f Fault) build(t *testing.T, verb string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	build := exec.CommandContext(ctx, "go", append([]string{verb, "-overlay", f.overlay(t)}, args...)...)
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build with %q: %v\n%s", f.Name, err, out)
	}
}

// overlay writes the changed files, and the file that tells go of them.
func (f Fault) overlay(t *testing.T) string {
	t.Helper()
	dir, replace := t.TempDir(), map[string]string{}
	for k, e := range f.Edits {
		file := filepath.Join(root(t), f.Package, e.File)
		present := file
		if replace[file] != "" {
			present = replace[file]
		}
		text, err := os.ReadFile(present)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), e.From); n != 1 {
			t.Fatalf("plant %q: the text to replace occurs %d times in %s: the code has moved on, mend the list:\n%s", f.Name, n, e.File, e.From)
		}
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", k))
		if err := os.WriteFile(changed, []byte(strings.Replace(string(text), e.From, e.To, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[file] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// root is the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatalf("find the checkout: there is no go.mod above the working folder: %v", err)
	return ""
}
