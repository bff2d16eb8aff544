package custom_test

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/engine/enginetest"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/sandbox"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == sandbox.Argument:
		os.Exit(sandbox.Main(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == script.ChildFlag:
		os.Exit(script.Child(os.Stdin, os.Stdout))
	case filepath.Base(os.Args[0]) == keeper:
		os.Exit(runKeeper())
	}
	os.Exit(pgtest.Main(m))
}

// programsUser is whom programs run as in these tests, where root runs them.
func programsUser() string {
	if os.Getuid() == 0 {
		return "64124:64124"
	}
	return ""
}

// host is a folder of programs: shell scripts by their names, and the keeper.
func host(t testing.TB, scripts map[string]string) custom.Host {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} { // another user must get there
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, script := range scripts {
		write(t, filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"))
	}
	box := sandbox.New(sandbox.Self())
	t.Cleanup(box.Close)
	h, err := custom.NewHost(dir, programsUser(), box)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, content, 0o755), os.Chmod(path, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// addKeeper puts this binary into the folder.
func addKeeper(t testing.TB, h custom.Host) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Link(self, filepath.Join(h.Programs, keeper)) == nil {
		return
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(h.Programs, keeper), os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

func namer() *statement.Namer { return statement.NewNamer("inst_test", []byte("key"), nil) }

// options are those of an engine that runs command.
func options(t testing.TB, command string, extra map[string]any) engine.Options {
	t.Helper()
	c := map[string]any{"runtime": "exec", "command": command, "operation_timeout": "60s"}
	for k, v := range extra {
		c[k] = v
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return engine.Options{
		Installation: "inst_test", EngineID: ident.New(ident.Engine), EngineName: "own", Node: "node-a", Epoch: 1,
		Config: raw, Namer: namer(), Logger: slog.New(slog.DiscardHandler),
	}
}

func parseRole(t testing.TB, document string) engine.Role {
	t.Helper()
	return enginetest.ParseRole(t, custom.Type{}, document)
}

func open(t testing.TB, h custom.Host, o engine.Options) engine.Engine {
	t.Helper()
	return enginetest.Open[engine.Engine](t, custom.Type{Host: h}, o)
}

func plan(t testing.TB, e engine.Engine, limit time.Duration) *engine.Plan {
	t.Helper()
	p, err := e.Plan(t.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "reader", Role: parseRole(t, `{}`), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	p.Deadline = time.Now().Add(limit)
	return p
}
