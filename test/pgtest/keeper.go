package pgtest

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// keeperScript waits on a pipe from the process that owns the server. Lines
// name the running postmaster (0: none) or say "release". When the pipe ends
// without that, the owner is dead (a panic, a test time-out, SIGKILL): the
// server, frozen or not, and its folder go, too. Stopping the postmaster first
// keeps it from forking while its children are counted.
const keeperScript = `
pid=0
while read -r line; do
	[ "$line" = release ] && exit 0
	pid=$line
done
if [ "$pid" -gt 1 ]; then
	kill -STOP "$pid"
	for status in /proc/[0-9]*/status; do
		if grep -qs "^PPid:[[:space:]]*$pid\$" "$status"; then
			child=${status#/proc/}
			kill -KILL "${child%/status}"
		fi
	done
	kill -KILL "$pid"
fi
rm -rf -- "$0" || { sleep 1; rm -rf -- "$0"; }
`

// keeper outlives this process to clean up after it. PR_SET_PDEATHSIG would
// not do: it follows the thread, not the process, and reaches no frozen one.
type keeper struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser

	mu       sync.Mutex
	released bool
}

func newKeeper(dir string) (*keeper, error) {
	cmd := exec.Command("/bin/sh", "-c", keeperScript, dir) //nolint:noctx // must outlive us
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper of %s: %w", dir, err)
	}
	return &keeper{cmd: cmd, pipe: pipe}, nil
}

// watch names the process to kill; 0 is none. A write can only fail when the
// keeper was killed from outside, which leaves nothing to tell it.
func (k *keeper) watch(pid int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.released {
		_, _ = fmt.Fprintln(k.pipe, pid)
	}
}

// release ends the keeper without harm. Safe to call twice.
func (k *keeper) release() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.released {
		return
	}
	k.released = true
	_, _ = fmt.Fprintln(k.pipe, "release")
	_ = k.pipe.Close()
	_ = k.cmd.Wait()
}
