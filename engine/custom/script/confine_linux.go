//go:build amd64 || arm64

package script

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// memory is what the child may take for data, on top of what Go has set aside when it begins.
	memory = 256 << 20
	// processorTime, in seconds, ends a child whose parent was killed. The parent's own limit is far
	// below it.
	processorTime = 600
)

// confine takes from this process all that an interpreter does not need, for good: more memory, files
// and sockets (no descriptor can be opened any more), and every system call but those by which Go
// itself runs. Other programs cannot be started.
func confine() error {
	used, err := dataSize()
	if err != nil {
		return err
	}
	// Of the group, which is this process's own: of a process the kernel takes one thread only.
	if err := unix.Setpriority(unix.PRIO_PGRP, 0, 19); err != nil {
		return fmt.Errorf("lower its priority: %w", err)
	}
	debug.SetTraceback("none")
	debug.SetMemoryLimit(memory * 3 / 4) // the collector works harder before the limit ends the process
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_DATA: used + memory, unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_NOFILE: 0, unix.RLIMIT_CPU: processorTime,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("limit resource %d: %w", resource, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return allowOnly(needed())
}

// dataSize is how much private writable memory is mapped. It is asked for and not assumed, since the
// race detector's shadow is part of it.
func dataSize() (uint64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(status, []byte("VmData:"))
	fields := bytes.Fields(after)
	if len(fields) == 0 {
		return 0, fmt.Errorf("read the size of this process: /proc/self/status has no VmData")
	}
	kib, err := strconv.ParseUint(string(fields[0]), 10, 64)
	return kib << 10, err
}

// needed are the system calls that Go makes after its start, and glibc's in a build with cgo.
func needed() []uint32 {
	return []uint32{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_CLOSE, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
		unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_MINCORE, unix.SYS_MREMAP, unix.SYS_BRK,
		unix.SYS_FUTEX, unix.SYS_CLONE, unix.SYS_SCHED_YIELD, unix.SYS_SCHED_GETAFFINITY, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ, // threads
		unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK, unix.SYS_TGKILL, unix.SYS_GETPID, unix.SYS_GETTID,
		unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_RESTART_SYSCALL,
		unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_CTL, unix.SYS_GETRANDOM, unix.SYS_FCNTL,
	}
}

// allowOnly makes every system call that is not listed fail, on all threads.
func allowOnly(calls []uint32) error {
	// Offsets in struct seccomp_data: the call's number, and the architecture that the number is of.
	const number, architecture = 0, 4
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	answer := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	filter := []unix.SockFilter{
		load(architecture), {Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArchitecture, Jt: 1},
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(number),
	}
	for _, call := range calls {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: call, Jf: 1}, answer(unix.SECCOMP_RET_ALLOW))
	}
	filter = append(filter, answer(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the kernel takes the program by its address
	if errno != 0 {
		return fmt.Errorf("filter system calls: %w", errno)
	}
	return nil
}
