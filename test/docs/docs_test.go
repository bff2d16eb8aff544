// Package docs_test runs what README.md, docs/using-credentials.md and
// docs/rotation.md show, as it stands there.
package docs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/test/pgtest"
)

const (
	readme = "../../README.md"
	page   = "../../docs/using-credentials.md"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == mongoshName {
		os.Exit(mongosh(os.Args[1:]))
	}
	os.Exit(pgtest.Main(m))
}

// Each block works with an identity of its own, so that its leases are known; a
// look at them tells whether it did what the page says. The table is so slow that
// a block must renew its credential to get through.
func TestUsingCredentials(t *testing.T) {
	t.Parallel()
	v := startVault(t)
	all, count := blocks(t, page)
	if count["sh"] < 4 || count["go"] < 2 || count["python"] < 1 || len(all) != count["sh"]+count["go"]+count["python"] {
		t.Fatalf("%s has blocks that no test knows, or too few: %v", page, count)
	}
	for i, b := range all {
		t.Run(fmt.Sprintf("%02d-%s", i+1, b.language), func(t *testing.T) {
			t.Parallel()
			who := v.newIdentity(t, fmt.Sprintf("block-%d", i+1))
			out := b.run(t, v, who)
			if strings.Contains(b.text, "/v1/auth/token") {
				if out != who.identity+"\n" {
					t.Fatalf("it printed %q, want %s", out, who.identity)
				}
				return
			}
			if first, _, _ := strings.Cut(out, "\n"); first != "3" {
				t.Fatalf("it printed %q, want 3 tickets", out)
			}
			v.mustHaveGivenBack(t, who.identity, b.endless())
		})
	}
}

// The README's way from nothing to a credential works as it stands, in order, and
// leaves nothing running.
func TestReadme(t *testing.T) {
	t.Parallel()
	all, count := blocks(t, readme)
	if count["sh"] != 1 || len(all) != count["sh"]+count["text"] {
		t.Fatalf("%s has blocks that this test does not run: %v", readme, count)
	}
	v := &vault{bin: build(t), pg: pgtest.Shared(t, 17)}
	v.db = v.pg.CreateDB(t)
	dir := t.TempDir()
	for _, b := range all {
		if b.language != "sh" {
			continue
		}
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", b.text))
		cmd.Dir = dir
		cmd.Env = v.environ(identity{}, dir, "PGUSER="+pgtest.Superuser, "PGPASSWORD="+v.pg.SuperPassword())
		cmd.WaitDelay = time.Minute // the server that it starts has its outputs, until it has ended
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "\nv_readonly_") {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "vault", "dev.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the server did not end: %v", err)
	}
}

// block is a piece of code of the page.
type block struct{ language, text string }

func blocks(t *testing.T, page string) (all []block, count map[string]int) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	count = map[string]int{}
	for rest := string(text); ; {
		_, after, found := strings.Cut(rest, "\n```")
		if !found {
			break
		}
		language, after, _ := strings.Cut(after, "\n")
		code, after, closed := strings.Cut(after, "\n```")
		if !closed {
			t.Fatalf("%s: a block is not closed", page)
		}
		all = append(all, block{language: language, text: code + "\n"})
		count[language]++
		rest = after
	}
	return all, count
}

// endless tells that the block works until it gets a signal.
func (b block) endless() bool { return strings.Contains(b.text, "signal.NotifyContext") }

// run answers what the block printed.
func (b block) run(t *testing.T, v *vault, who identity) string {
	t.Helper()
	dir := t.TempDir()
	var cmd *exec.Cmd
	switch b.language {
	case "sh":
		cmd = exec.Command("sh", write(t, dir, "block.sh", b.text))
	case "python":
		cmd = exec.Command("python3", write(t, dir, "block.py", b.text))
	case "go":
		cmd = exec.Command(buildInModule(t, dir, b.text))
	}
	// To a file: what a block leaves running must not keep the test waiting.
	output, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	var quick []string
	if b.endless() { // it renews whatever its queries take
		quick = []string{"PGAPPNAME=quick"}
	}
	cmd.Env, cmd.Stdout, cmd.Stderr = v.environ(who, dir, quick...), output, output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if b.endless() {
		v.eventually(t, "it moved over to a second credential", func() bool {
			return len(ended) > 0 || len(v.leases(t, who.identity)) > 1
		})
		// The lease is there before its answer has arrived: what is printed from now on takes both.
		printed := size(output)
		v.eventually(t, "it worked on", func() bool { return len(ended) > 0 || size(output) > printed+8 })
		_ = cmd.Process.Signal(syscall.SIGTERM) // an end before its time is seen below
	}
	select {
	case err = <-ended:
	case <-time.After(2 * time.Minute):
		_ = cmd.Process.Kill()
		err = <-ended
	}
	text, readErr := os.ReadFile(output.Name())
	if err != nil || readErr != nil {
		t.Fatalf("%v, %v:\n%s", err, readErr, text)
	}
	return string(text)
}

func size(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil {
		return 0
	}
	return info.Size()
}

// buildInModule builds a program as if it lay in a folder of this module.
func buildInModule(t *testing.T, dir, text string) (program string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(root, "test/docs/block/main.go"): write(t, dir, "main.go", text),
	}})
	if err != nil {
		t.Fatal(err)
	}
	program = filepath.Join(dir, "block")
	build := exec.Command("go", "build", "-overlay", write(t, dir, "overlay.json", string(overlay)), "-o", program, "./test/docs/block")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

func write(t *testing.T, dir, name, text string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustHaveGivenBack looks at all leases of an identity: renewed on the way, and
// dead because somebody revoked them.
func (v *vault) mustHaveGivenBack(t *testing.T, identity string, moved bool) {
	t.Helper()
	leases := v.leases(t, identity)
	if moved && len(leases) < 2 || !moved && len(leases) != 1 {
		t.Errorf("it obtained %d credentials", len(leases))
	}
	for i, l := range leases {
		if l.RenewedAt == nil && !(moved && i == 0) { // the newest was ended early
			t.Errorf("%s was never renewed", l.LeaseID)
		}
		if l.Status != api.LeaseRevoked || l.Revocation == nil || l.Revocation.Reason != api.ReasonRevoked {
			t.Errorf("%s was not given back: %s, %+v", l.LeaseID, l.Status, l.Revocation)
		}
	}
}

func (v *vault) leases(t *testing.T, identity string) []api.Lease {
	t.Helper()
	leases, err := client.Collect(v.admin.Leases(context.Background(), client.LeaseFilter{IdentityID: identity}))
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

func (v *vault) eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
