package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// set binds this process, and all that come of it.
func (l Limits) set(u *User) error {
	uid := os.Getuid()
	if u != nil {
		uid = int(u.UID)
	}
	for _, limit := range []struct {
		resource int
		value    uint64
		what     string
	}{
		{unix.RLIMIT_CORE, 0, "core files"},
		{unix.RLIMIT_DATA, uint64(l.Memory), "memory"},
		{unix.RLIMIT_FSIZE, uint64(l.FileSize), "size of files"},
		{unix.RLIMIT_NOFILE, uint64(l.OpenFiles), "open files"},
		// The kernel counts all of the user's processes, not only the program's.
		{unix.RLIMIT_NPROC, uint64(l.Processes + tasksOf(uid)), "processes"},
	} {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(limit.resource, &now); err != nil {
			return errors.New("read its limit of " + limit.what + ": " + err.Error())
		}
		value := min(limit.value, now.Max) // a stricter one of the host's stays
		if err := syscall.Setrlimit(limit.resource, &syscall.Rlimit{Cur: value, Max: value}); err != nil {
			return errors.New("limit its " + limit.what + ": " + err.Error())
		}
	}
	return nil
}

// tasksOf counts the threads of a user, of the processes that show whose they are.
func tasksOf(uid int) (n int) {
	names, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well formed
	for _, name := range names {
		var info syscall.Stat_t
		if syscall.Stat(name, &info) != nil || int(info.Uid) != uid {
			continue // ended meanwhile, or another's
		}
		tasks, _ := os.ReadDir(filepath.Join(name, "task")) // ended meanwhile
		n += len(tasks)
	}
	return n
}
