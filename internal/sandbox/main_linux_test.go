package sandbox_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/scaivault/scaivault/internal/sandbox"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == server {
		os.Exit(serve(os.Args[2]))
	}
	os.Exit(m.Run())
}

// server is the first argument of this binary where it is to run a program and be killed.
const server = "sandbox-server"

// serve runs the command that it is given until it is killed.
func serve(spec string) int {
	var c sandbox.Command
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return 1
	}
	_, _ = sandbox.Ungrouped(sandbox.Self()).Run(context.Background(), c) // it is killed here
	return 0
}

func startKilled(t *testing.T, c sandbox.Command) (pid int) {
	t.Helper()
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", server, string(spec))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}
