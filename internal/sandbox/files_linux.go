package sandbox

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The rights of Landlock, by the version in which they came.
const (
	readFile  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE
	readRight = readFile | unix.LANDLOCK_ACCESS_FS_READ_DIR

	fileRights1 = readFile | unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	allRights1  = unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1
	rights2     = unix.LANDLOCK_ACCESS_FS_REFER
	rights3     = unix.LANDLOCK_ACCESS_FS_TRUNCATE
	scoped6     = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
)

// restrict confines this thread, and what it becomes, to the files. It can also trace no process from
// then on, nor, since Linux 6.12, send a signal to one that is not its own child. On a kernel without
// Landlock nothing is restricted; where a filter forbids it, that is an error.
func (p *Paths) restrict() error {
	if p == nil {
		return nil
	}
	version, _, none := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	switch none {
	case 0:
	case syscall.ENOSYS, syscall.EOPNOTSUPP:
		return nil
	default:
		return errors.New("confine its files: the server's filter of system calls forbids Landlock: " + none.Error())
	}
	rights := unix.LandlockRulesetAttr{Handled_access_fs: allRights1}
	if version >= 2 {
		rights.Handled_access_fs |= rights2
	}
	if version >= 3 {
		rights.Handled_access_fs |= rights3
	}
	if version >= 6 {
		rights.Scoped = scoped6
	}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rights)), unsafe.Sizeof(rights), 0) //nolint:gosec // as the kernel wants it
	if errno != 0 {
		return errors.New("confine its files: " + errno.Error())
	}
	defer syscall.Close(int(set))
	for _, path := range p.Read {
		if err := allow(int(set), path, readRight); err != nil {
			return err
		}
	}
	for _, path := range p.Write {
		if err := allow(int(set), path, rights.Handled_access_fs); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return errors.New("confine its files: " + errno.Error())
	}
	return nil
}

// allow gives rights to a path, as far as a file can have them.
func allow(set int, path string, rights uint64) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // what is not there needs no right
	}
	if !info.IsDir() {
		rights &= fileRights1 | rights3
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // what cannot be reached is not used either
	}
	defer syscall.Close(fd)
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&rule)), 0, 0, 0); errno != 0 { //nolint:gosec // as the kernel wants it
		return errors.New("confine its files to " + path + ": " + errno.Error())
	}
	return nil
}
