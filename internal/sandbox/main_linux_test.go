package sandbox_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/scaivault/scaivault/internal/sandbox"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == filtered {
		if err := forbidLandlock(); err != nil {
			panic(err)
		}
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == server {
		os.Exit(serve(os.Args[2]))
	}
	os.Exit(m.Run())
}

// filtered is the first argument of this binary where it is to be a helper that may not use Landlock.
const filtered = "sandbox-helper-filtered"

// forbidLandlock has the kernel refuse it, as a filter of a service or a container does.
func forbidLandlock() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return errno
	}
	return nil
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
