package pgtest

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the operating system user a server runs as. PostgreSQL refuses to
// run as root, so root lends the server to an unprivileged user; anybody else
// runs it as themselves.
type account struct {
	uid, gid int
	lent     bool
}

func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.Atoi(u.Uid)
		gid, gidErr := strconv.Atoi(u.Gid)
		if uidErr == nil && gidErr == nil {
			return account{uid: uid, gid: gid, lent: true}, nil
		}
	}
	return account{}, fmt.Errorf("find a user to run postgresql as: it refuses root, and there is neither postgres nor nobody; run as an ordinary user")
}

// procAttr runs a command as the account, in a process group of its own so
// that an interrupt typed at the terminal reaches the test first.
func (a account) procAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.lent {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// reaches tells whether the account may enter every folder down to path. A
// checkout below /root is out of reach of the user that root lends to.
func (a account) reaches(path string) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	if !a.lent {
		return true
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// own hands a folder and all below it to the account.
func (a account) own(root string) error {
	if !a.lent {
		return nil
	}
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
}

// tempDir makes an empty folder that belongs to the account and that nobody
// else may enter.
func (a account) tempDir() (string, error) {
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if !a.reaches(base) {
			continue
		}
		dir, err := os.MkdirTemp(base, "scaivault-pg-")
		if err != nil {
			continue
		}
		return dir, a.own(dir)
	}
	return "", fmt.Errorf("make a folder for postgresql: none of %s, /tmp and /var/tmp is open to uid %d; set TMPDIR", os.TempDir(), a.uid)
}
