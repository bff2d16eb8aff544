package servertest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func always() bool { return true }

// Kill ends a process that does not run on by itself, too, and one that has ended already.
func TestKill(t *testing.T) {
	t.Parallel()
	for name, signal := range map[string]syscall.Signal{"frozen": syscall.SIGSTOP, "ending": syscall.SIGTERM} {
		cmd := exec.CommandContext(t.Context(), "sleep", "3600")
		p, err := Start(cmd, always)
		if err != nil {
			t.Fatal(err)
		}
		if group, err := syscall.Getpgid(cmd.Process.Pid); err != nil || group != cmd.Process.Pid {
			t.Errorf("%s: it is in group %d, %v", name, group, err)
		}
		if err := p.Signal(signal); err != nil {
			t.Errorf("%s: signal: %v", name, err)
		}
		if err := p.Kill(); err != nil {
			t.Errorf("%s: kill: %v", name, err)
		}
		if err := p.Signal(syscall.SIGCONT); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: signal after the end: %v", name, err)
		}
		if err := p.Kill(); err != nil {
			t.Errorf("%s: kill again: %v", name, err)
		}
		if state, err := p.Wait(); err != nil || state.Success() {
			t.Errorf("%s: it ended as %v, %v", name, state, err)
		}
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	if _, err := Start(exec.CommandContext(t.Context(), "true"), func() bool { return false }); err == nil || !strings.Contains(err.Error(), "ended at its start") {
		t.Errorf("what ends at once: %v", err)
	}
	if _, err := Start(exec.CommandContext(t.Context(), t.TempDir()), always); err == nil {
		t.Error("what is no program was started")
	}
	var none *Process
	if none.Kill() == nil || none.Signal(syscall.SIGTERM) == nil {
		t.Error("what does not run was signalled")
	}
	if _, err := none.Wait(); err == nil {
		t.Error("what does not run ended")
	}
}
