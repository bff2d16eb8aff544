package sandbox

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// sweepEvery is how often what is left is looked for while it is being killed.
	sweepEvery = 2 * time.Millisecond
	// freezes bounds how often in one sweep processes are stopped before they are killed.
	freezes = 20
)

// killAll kills every process that descends from this one, and everything in the group. It is called
// until nothing is left.
func (t *task) killAll() {
	if t.Group != "" {
		(&group{dir: t.Group}).kill()
	}
	// Stopped ones make no more while the others are looked for, and keep the places that the limit of
	// processes gives: so a program that does nothing but fork is all stopped soon.
	for range freezes {
		moving := false
		for _, p := range descendants() {
			if p.state != 'T' && p.state != 'Z' {
				moving = true
				_ = syscall.Kill(p.pid, syscall.SIGSTOP) // gone is as good
			}
		}
		if !moving {
			break
		}
	}
	for _, p := range descendants() {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // gone is as good
	}
}

// process is one as /proc shows it.
type process struct {
	pid, parent int
	state       byte
}

// descendants are the living processes of which this one is an ancestor. Orphans among them are its
// children, since it adopts them.
func descendants() []process {
	self := os.Getpid()
	all := processes()
	of := map[int]int{}
	for _, p := range all {
		of[p.pid] = p.parent
	}
	var found []process
	for _, p := range all {
		for up := p.parent; up > 1; up = of[up] {
			if up == self {
				found = append(found, p)
				break
			}
		}
	}
	return found
}

func processes() []process {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what could be read
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state parent …: the name may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(string(fields[1])) // a number
		all = append(all, process{pid, parent, fields[0][0]})
	}
	return all
}

// blind tells whether /proc hides from this process those of other users. It hides none from who may
// trace all, and may show them to a group: then that of the first process can be read, too.
func blind() bool {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return true
	}
	for line := range strings.SplitSeq(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[1] != "/proc" || !strings.Contains(","+fields[3], ",hidepid=") {
			continue
		}
		var first syscall.Stat_t
		_, err := os.ReadFile("/proc/1/stat")
		return err != nil || syscall.Stat("/proc/1", &first) != nil || int(first.Uid) == os.Geteuid()
	}
	return false
}
