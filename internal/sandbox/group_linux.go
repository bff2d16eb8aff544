package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// groupPrefix begins the names of the groups of a process, in the group that it is in itself.
const groupPrefix = "scaivault-programs-"

// groups makes control groups (version 2), a folder each. The folder above them is locked as long as
// the process lives that made it: what is not locked was left by one that was killed.
type groups struct {
	dir  string
	lock *os.File
	made atomic.Int64
}

// newGroups finds where groups can be made; nil where none can.
func newGroups() *groups {
	parent := ownGroup()
	if parent == "" {
		return nil
	}
	endAbandoned(parent)
	dir, err := os.MkdirTemp(parent, groupPrefix)
	if err != nil {
		return nil
	}
	g := &groups{dir: dir}
	if g.lock, err = lockDir(dir); err == nil {
		_, err = os.Stat(filepath.Join(dir, "cgroup.kill")) // Linux 5.14
	}
	if err != nil {
		g.close()
		return nil
	}
	delegate(parent, dir, os.Getpid())
	return g
}

// serverGroup is the group that the server moves to from the one that is delegated to it.
const serverGroup = "scaivault-server"

// delegate lets groups in dir bound processes and memory, where the host has delegated that to the
// process pid, which is in parent (Delegate= of systemd); without it a group still kills. The kernel
// gives the groups in parent no controllers while a process is in parent itself, or makes them groups in
// which nothing can be started, so that pid moves to a group of its own first; where others are there,
// nothing is done (Linux, admin-guide/cgroup-v2, no internal process constraint).
func delegate(parent, dir string, pid int) {
	own := strconv.Itoa(pid)
	inside, err := os.ReadFile(filepath.Join(parent, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(inside)) != own {
		return
	}
	leaf := filepath.Join(parent, serverGroup)
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // as the kernel makes them
		return
	}
	if write(leaf, "cgroup.procs", own) != nil {
		return
	}
	for _, controller := range []string{"+pids", "+memory"} {
		if write(parent, "cgroup.subtree_control", controller) == nil {
			_ = write(dir, "cgroup.subtree_control", controller)
		}
	}
}

// close gives the place of the groups back. The methods of none, a nil one, do nothing.
func (g *groups) close() {
	if g == nil {
		return
	}
	_ = os.Remove(g.dir) // empty, or left to the next process
	if g.lock != nil {
		g.lock.Close()
	}
}

// ownGroup is the folder of the group that this process is in; empty without one.
func ownGroup() string {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(own), "\n") {
		path, ok := strings.CutPrefix(line, "0::")
		if !ok {
			continue
		}
		for mount := range strings.SplitSeq(string(mounts), "\n") {
			if fields := strings.Fields(mount); len(fields) > 2 && fields[2] == "cgroup2" {
				return filepath.Join(fields[1], path)
			}
		}
	}
	return ""
}

// endAbandoned kills what processes before this one have left, and removes their groups.
func endAbandoned(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, groupPrefix+"*")) // the pattern is well formed
	for _, dir := range left {
		lock, err := lockDir(dir)
		if err != nil {
			continue // in use
		}
		inner, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.kill")) // the pattern is well formed
		for _, name := range inner {
			(&group{dir: filepath.Dir(name)}).remove()
		}
		_ = os.Remove(dir) // another process may be at it, too
		lock.Close()
	}
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// group is that of one program. The methods of none, a nil one, do nothing.
type group struct {
	dir string
}

// make makes a group with limits, as far as the host lets them be set.
func (g *groups) make(l Limits) (*group, error) {
	if g == nil {
		return nil, nil
	}
	made := &group{filepath.Join(g.dir, strconv.FormatInt(g.made.Add(1), 10))}
	if err := os.Mkdir(made.dir, 0o700); err != nil {
		return nil, err
	}
	for file, value := range map[string]string{
		"pids.max":         strconv.Itoa(l.Processes),
		"memory.max":       strconv.Itoa(l.Memory),
		"memory.swap.max":  "0",
		"memory.oom.group": "1",
	} {
		if _, err := os.Stat(filepath.Join(made.dir, file)); err != nil {
			continue // the controller is not given to us: the limits of the processes remain
		}
		if err := write(made.dir, file, value); err != nil {
			made.remove()
			return nil, fmt.Errorf("set %s: %w", file, err)
		}
	}
	return made, nil
}

func (g *group) path() string {
	if g == nil {
		return ""
	}
	return g.dir
}

// kill kills all in the group at one stroke, those that are being made included.
func (g *group) kill() {
	if g != nil {
		_ = write(g.dir, "cgroup.kill", "1") // removal below fails while somebody lives
	}
}

// remove kills and waits until the group is empty and gone.
func (g *group) remove() {
	if g == nil {
		return
	}
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(time.Millisecond) {
		if os.Remove(g.dir) == nil {
			return
		}
		if _, err := os.Stat(g.dir); err != nil {
			return
		}
		g.kill()
	}
}

func write(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = bytes.NewReader([]byte(value)).WriteTo(f)
	return err
}
