package pgtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pollInterval paces the waits for what /proc and postmaster.pid say, which
// cannot be waited for in any other way.
const pollInterval = 5 * time.Millisecond

// killPatience is how long an immediate shutdown may take before SIGKILL.
const killPatience = 10 * time.Second

// postmaster is one run of the server process.
type postmaster struct {
	pid    int
	exited chan struct{} // closed when the process is gone
}

// start runs postgres and returns once it accepts connections.
func (s *Server) start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster != nil {
		return errors.New("already running")
	}
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	logged, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}

	cmd := exec.Command(filepath.Join(s.installation.bin, "postgres"), "-D", s.data()) //nolint:noctx // outlives the start's context
	cmd.Dir = s.dir
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = s.account.procAttr()
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &postmaster{pid: cmd.Process.Pid, exited: make(chan struct{})}
	s.keeper.watch(p.pid)
	go func() {
		_ = cmd.Wait() // the exit status says nothing that the log does not
		s.keeper.watch(0)
		close(p.exited)
	}()

	if err := p.awaitReady(ctx, filepath.Join(s.data(), "postmaster.pid")); err != nil {
		p.kill()
		text, _ := os.ReadFile(s.logPath())
		return fmt.Errorf("%w; its log: %s", err, text[min(int(logged), len(text)):])
	}
	s.postmaster = p
	return nil
}

// awaitReady reads postmaster.pid as pg_ctl does: line 1 is the process id,
// line 8 becomes "ready".
func (p *postmaster) awaitReady(ctx context.Context, pidFile string) error {
	for {
		text, _ := os.ReadFile(pidFile) // not there yet
		lines := strings.Split(string(text), "\n")
		if len(lines) > 7 && lines[0] == strconv.Itoa(p.pid) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-p.exited:
			return errors.New("postgres ended at its start")
		case <-ctx.Done():
			return fmt.Errorf("postgres is not ready: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// stop sends the signal of a shutdown mode and waits for the end: SIGINT is
// fast (sessions ended, checkpoint), SIGQUIT immediate (recovery at the next
// start).
func (s *Server) stop(mode syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster == nil {
		return errors.New("not running")
	}
	if err := syscall.Kill(s.postmaster.pid, mode); err != nil {
		return err
	}
	select {
	case <-s.postmaster.exited:
		s.postmaster = nil
		return nil
	case <-time.After(startTimeout):
		return fmt.Errorf("postgres (pid %d) does not stop; is it frozen?", s.postmaster.pid)
	}
}

// kill ends the server at once, frozen or not.
func (p *postmaster) kill() {
	_ = p.thaw() // already gone, or not frozen: no matter
	_ = syscall.Kill(p.pid, syscall.SIGQUIT)
	select {
	case <-p.exited:
		return
	case <-time.After(killPatience):
	}
	p.slay()
}

// slay kills every process with SIGKILL. Frozen ones fork no more. None holds
// the shared memory any more then, for which the next start would fail.
func (p *postmaster) slay() {
	children := p.children()
	for _, pid := range append(children, p.pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-p.exited
	for _, pid := range children {
		awaitDead(pid)
	}
}

// awaitDead waits until a process that was killed is gone, or waits only to be
// collected.
func awaitDead(pid int) {
	for deadline := time.Now().Add(killPatience); time.Now().Before(deadline); time.Sleep(pollInterval) {
		if state, _, ok := procStat(pid); !ok || strings.Contains("ZX", state) {
			return
		}
	}
}

// freeze stops the postmaster first, so that it forks no more, then every
// backend, and returns when all of them stand still.
func (p *postmaster) freeze() error {
	if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	if err := awaitStopped(p.pid); err != nil {
		return err
	}
	children := p.children()
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for _, pid := range children {
		if err := awaitStopped(pid); err != nil {
			return err
		}
	}
	return nil
}

// thaw is the reverse of freeze. Safe to call on a running server.
func (p *postmaster) thaw() error {
	for _, pid := range append(p.children(), p.pid) {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// children are the backends and helpers. Each is the leader of its own session
// and process group, so only the parent's id ties them to the postmaster.
func (p *postmaster) children() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var children []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := procStat(pid); ok && parent == p.pid {
			children = append(children, pid)
		}
	}
	return children
}

// awaitStopped waits until a process is stopped or dead: signals are delivered
// in their own time.
func awaitStopped(pid int) error {
	for deadline := time.Now().Add(killPatience); time.Now().Before(deadline); time.Sleep(pollInterval) {
		state, _, ok := procStat(pid)
		if !ok || strings.Contains("TtZX", state) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// procStat reads "pid (command) state parent ..."; the command may hold
// anything, parentheses included.
func procStat(pid int) (state string, parent int, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}
