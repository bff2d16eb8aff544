package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The stages of a helper, its first argument; the second is the task.
const (
	stageSupervise = "supervise"
	stageBecome    = "become"
)

// Descriptors of a supervisor, behind the three that it hands on.
const (
	lifeFD   = 3
	statusFD = 4
	filesFD  = 5
)

// notStarted is the status of a third stage that could not become the program, which has told why.
const notStarted = 125

// task is what a helper is to do. It holds no secret: it is in the list of processes.
type task struct {
	Path  string   `json:"path"`
	Args  []string `json:"args,omitempty"`
	Env   []string `json:"env,omitempty"`
	User  *User    `json:"user,omitempty"`
	Paths *Paths   `json:"paths,omitempty"`
	Files int      `json:"files,omitempty"`
	Limits
	Time  time.Duration `json:"time,omitempty"`
	Group string        `json:"group,omitempty"` // folder of its control group
}

// Main is the helper: what a process does that was started with the arguments which a Sandbox gives.
// It answers the status to end with.
func Main(args []string) int {
	if len(args) != 2 {
		return 2
	}
	var t task
	if json.Unmarshal([]byte(args[1]), &t) != nil {
		return 2
	}
	runtime.LockOSThread() // what is set for the thread is inherited from it
	switch args[0] {
	case stageSupervise:
		return supervise(t)
	case stageBecome:
		return become(t)
	}
	return 2
}

// supervise runs the program and ends when nothing of it is left.
func supervise(t task) int {
	status := os.NewFile(statusFD, "status")
	syscall.CloseOnExec(lifeFD)
	syscall.CloseOnExec(statusFD)
	e := supervised(t)
	if json.NewEncoder(status).Encode(e) != nil {
		return 1
	}
	return 0
}

func supervised(t task) ending {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return ending{Failed: "adopt its orphans: " + err.Error()}
	}
	if t.User != nil && t.Group == "" && blind() {
		return ending{Failed: "see its processes, to kill them: /proc hides those of other users (hidepid; ProtectProc= of systemd), and there is no control group"}
	}
	told := make(chan struct{})
	go func() { // nothing is ever written: the other end closes, by itself or with its process
		_, _ = io.Copy(io.Discard, os.NewFile(lifeFD, "life"))
		close(told)
	}()
	program, failed, err := t.start()
	if err != nil {
		return ending{Failed: err.Error()}
	}
	for _, fd := range append([]int{0, 1, 2}, t.files()...) { // the program's alone now
		_ = syscall.Close(fd)
	}
	var late <-chan time.Time
	if t.Time > 0 {
		late = time.After(t.Time)
	}
	e := ending{}
	dead := reap()
	var sweep <-chan time.Time
	for killing := false; ; {
		select {
		case d, more := <-dead:
			switch {
			case !more:
				e.Failed = failure(failed)
				return e
			case d.pid == program:
				e.Ended, e.Status = true, d.status
				killing, sweep = true, time.After(sweepEvery/4) // most leave nothing, and nothing is to be looked for
				continue
			}
		case <-told:
			told, killing = nil, true
		case <-late:
			late, killing, e.Timeout = nil, true, true
		case <-sweep:
		}
		if killing {
			t.killAll()
			sweep = time.After(sweepEvery)
		}
	}
}

// start starts the third stage, which tells in failed why it could not become the program.
func (t *task) start() (pid int, failed *os.File, err error) {
	spec, err := json.Marshal(t)
	if err != nil {
		return 0, nil, err
	}
	failed, theirs, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer theirs.Close()
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
		Files: []uintptr{0, 1, 2}}
	for _, fd := range t.files() {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	attr.Files = append(attr.Files, theirs.Fd())
	if t.Group != "" {
		group, err := os.Open(t.Group)
		if err != nil {
			return 0, nil, err
		}
		defer group.Close()
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	self := append(os.Args[:len(os.Args)-2:len(os.Args)-2], stageBecome, string(spec))
	pid, err = syscall.ForkExec("/proc/self/exe", self, attr) //nolint:gosec // this binary, with what its parent gave it
	return pid, failed, err
}

// files are the descriptors that the supervisor got for the program.
func (t *task) files() []int {
	fds := make([]int, t.Files)
	for k := range fds {
		fds[k] = filesFD + k
	}
	return fds
}

// failure is what a third stage told of itself: nothing if it became the program.
func failure(failed *os.File) string {
	const most = 1 << 10
	text, _ := io.ReadAll(io.LimitReader(failed, most)) // the writers are dead
	return string(text)
}

// death is a process that ended.
type death struct {
	pid    int
	status int
}

// reap waits for all children, those adopted as well, and closes the channel when none is left.
func reap() <-chan death {
	dead := make(chan death)
	go func() {
		defer close(dead)
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, 0, nil)
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case err != nil: // no child
				return
			case status.Signaled():
				dead <- death{pid, 128 + int(status.Signal())}
			case status.Exited():
				dead <- death{pid, status.ExitStatus()}
			}
		}
	}()
	return dead
}

// become takes on what binds the program, and becomes it. It answers only where it cannot.
func become(t task) int {
	telling := 3 + t.Files
	closeFrom(telling)
	err := t.become()
	_, _ = os.NewFile(uintptr(telling), "failed").WriteString(err.Error()) // there is nobody else to tell
	return notStarted
}

// closeFrom lets the program have no descriptor from the first on: neither ours, nor what the server
// inherited itself.
func closeFrom(first int) {
	open, _ := os.ReadDir("/proc/self/fd") // without /proc nothing is swept either, and the program does not start
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= first {
			syscall.CloseOnExec(fd)
		}
	}
}

func (t *task) become() error {
	if err := t.Limits.set(t.User); err != nil {
		return err
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0) // who runs out of memory is this one; a container may forbid it
	if err := lowerPriority(); err != nil {
		return errors.New("lower its priority: " + err.Error())
	}
	if t.User != nil {
		if err := t.User.become(); err != nil {
			return err
		}
	}
	if err := dropCapabilities(); err != nil {
		return errors.New("give up its capabilities: " + err.Error())
	}
	for _, set := range []struct {
		option int
		value  uintptr
		what   string
	}{
		{unix.PR_SET_NO_NEW_PRIVS, 1, "give up new privileges"},
		{unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), "die with its supervisor"}, // a change of user has cleared it
	} {
		if err := unix.Prctl(set.option, set.value, 0, 0, 0); err != nil {
			return errors.New(set.what + ": " + err.Error())
		}
	}
	if err := t.Paths.restrict(); err != nil {
		return err
	}
	syscall.Umask(0o077)
	err := syscall.Exec(t.Path, append([]string{t.Path}, t.Args...), t.Env)
	return errors.New("execute it: " + err.Error())
}

// lowerPriority leaves the processor to the server where both want it. On a host that shares it out among
// sessions first (sched_autogroup_enabled), and has the server in no control group of processors, a nice
// value holds within the session alone, and the session has one of its own. A program that opens others
// escapes that: a control group of the service (CPUWeight= of systemd) does not let it.
func lowerPriority() error {
	const nice = 19
	_ = os.WriteFile("/proc/self/autogroup", []byte(strconv.Itoa(nice)), 0) // there may be none, and the kernel takes ten a second
	kernel, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, max(nice, 20-kernel)) // the kernel says 20 less the nice value
}

// dropCapabilities gives up what the server was given to change the user and to kill. Only a change from
// root takes capabilities away by itself; a service's ambient ones would survive the change of user and
// the execution, and the program could become anybody.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	var none [2]unix.CapUserData // of 64 capabilities
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}

func (u *User) become() error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(int(u.GID), int(u.GID), int(u.GID)), syscall.Setresuid(int(u.UID), int(u.UID), int(u.UID))); err != nil {
		return errors.New("become user " + strconv.Itoa(int(u.UID)) + ": " + err.Error())
	}
	return nil
}
