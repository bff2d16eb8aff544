// Package sshtest gives tests a real sshd to log in to, and the OpenSSH client to do it with.
//
// Every sshd is on a machine of its own, as far as it can tell: its /etc, with users, PAM and keys,
// its /run and its processes are namespaces that end with it, so that the machine of the tests is
// left as it was, however a test ends. Only the network is shared: sshd listens on a port of
// 127.0.0.1.
package sshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/scaivault/scaivault/test/servertest"
)

// TB is the part of testing.TB that sshtest needs.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	TempDir() string
}

// installCommand is what a person runs when a program is missing.
const installCommand = "scripts/install-sshd.sh"

// Available is false where the install script has declared that no sshd can be run: who may not make
// namespaces cannot give it users.
func Available() bool {
	_, err := os.Stat(filepath.Join(cacheDir(), "no-sshd"))
	return err != nil
}

// find looks for a program in PATH, where daemons are, and in the cache that the install script fills.
func find(name string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin", filepath.Join(cacheDir(), "bin")) {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil && filepath.IsAbs(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no %s in PATH or in %s: run %s", name, cacheDir(), installCommand)
}

// Command is a program of OpenSSH, or sshpass, with an environment in which the others are found and
// nothing else is.
func Command(t TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := find(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.Command(path, args...) //nolint:noctx // ends by itself, or with the test
	cmd.Env = Environ()
	return cmd
}

// Environ is the environment of Command.
func Environ() []string {
	return []string{
		"PATH=" + filepath.Join(cacheDir(), "bin") + ":" + os.Getenv("PATH"), "LC_ALL=C", "HOME=/nonexistent", "TMPDIR=" + os.TempDir(),
	}
}

// NewKey makes a key without a passphrase and returns the path of its private part; the public one
// lies beside it, in .pub.
func NewKey(t TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id_ed25519")
	Keygen(t, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path)
	return path
}

// Keygen runs ssh-keygen, which must succeed, and returns what it printed.
func Keygen(t TB, args ...string) string {
	t.Helper()
	out, err := Command(t, "ssh-keygen", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// cacheDir is the folder that the install script fills.
func cacheDir() string {
	if dir, err := servertest.Checkout(); err == nil {
		return filepath.Join(dir, ".cache", "ssh")
	}
	return filepath.Join(os.TempDir(), "scaivault-ssh")
}
