package script

import "syscall"

// self is this very program, also after its file was replaced by another version.
const self = "/proc/self/exe"

// childAttributes let no child outlive its parent, and keep signals of a terminal from it: the parent
// decides when it ends.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
