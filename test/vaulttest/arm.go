package vaulttest

import (
	"os"
	"strings"
	"syscall"
)

// Arm makes the points of a Failing program do something from now on, and all
// others nothing: "F2 kill", "F2 sleep 100ms" (internal/failpoint). Without
// points it disarms them all. To any other program it is nothing.
func (s *Server) Arm(t TB, points ...string) {
	t.Helper()
	partial := s.armedBy() + ".partial" // the file is read at any time: whole or not at all
	err := os.WriteFile(partial, []byte(strings.Join(points, "\n")+"\n"), 0o600)
	if err == nil {
		err = os.Rename(partial, s.armedBy())
	}
	if err != nil {
		t.Fatalf("arm the failpoints: %v", err)
	}
}

func (s *Server) armedBy() string { return s.Dir + ".failpoints" }

// AwaitDeath waits for the end of a server that was armed to kill itself.
func (s *Server) AwaitDeath(t TB) {
	t.Helper()
	state, err := s.wait()
	if err != nil {
		t.Fatalf("wait for scaivault to die: %v", err)
	}
	if status, ok := state.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("scaivault was to be killed and ended with %v; its output: %s", state, s.Output())
	}
}
