package servertest

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

const (
	startTimeout = 3 * time.Minute
	endTimeout   = time.Minute
	pollInterval = 5 * time.Millisecond
)

// Process is a running child. It dies with this process, however that ends, and leads a process
// group of its own, so that what a terminal sends to this process does not reach it. The nil
// Process is one that does not run.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
}

var errNotRunning = errors.New("it is not running")

// Start runs cmd until ready says that it can be used. What does not become ready is killed.
func Start(cmd *exec.Cmd, ready func() bool) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // whoever waits reads the state
		close(p.exited)
	}()
	if err := p.await(ready); err != nil {
		_ = p.Kill() // gone already, or gone now
		return nil, err
	}
	return p, nil
}

func (p *Process) await(ready func() bool) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if ready() {
			return nil
		}
		select {
		case <-p.exited:
			return errors.New("it ended at its start")
		case <-time.After(pollInterval):
		}
	}
	return errors.New("it is not ready")
}

// Signal sends a signal and does not wait. It is os.ErrProcessDone where the process has ended since.
func (p *Process) Signal(signal syscall.Signal) error {
	if p == nil {
		return errNotRunning
	}
	return p.cmd.Process.Signal(signal)
}

// Kill is kill -9. It returns when the process is gone, frozen or not, by this or before.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	_, err := p.Wait()
	return err
}

// Wait waits for the end of a process that was told to end.
func (p *Process) Wait() (*os.ProcessState, error) {
	if p == nil {
		return nil, errNotRunning
	}
	select {
	case <-p.exited:
		return p.cmd.ProcessState, nil
	case <-time.After(endTimeout):
		return nil, errors.New("it does not end")
	}
}
