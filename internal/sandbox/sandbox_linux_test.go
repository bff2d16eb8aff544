package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/scaivault/scaivault/internal/sandbox"
	"github.com/scaivault/scaivault/test/servertest"
)

// bench is a sandbox with a folder of programs.
type bench struct {
	*testing.T
	box *sandbox.Sandbox
	dir string
	uid uint32 // whom programs run as, where root runs the tests
}

func newBench(t *testing.T) *bench {
	t.Helper()
	return newBenchOf(t, sandbox.New(sandbox.Self()))
}

func newBenchOf(t *testing.T, box *sandbox.Sandbox) *bench {
	t.Helper()
	t.Cleanup(box.Close)
	dir := t.TempDir()
	b := &bench{t, box, dir, uint32(servertest.User(dir))}
	for _, dir := range []string{filepath.Dir(b.dir), b.dir} { // another user must get there
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left := b.running(); len(left) > 0 {
			t.Errorf("left running: %v", left)
		}
	})
	return b
}

// command is a shell script, run by a user that nothing else runs as where that can be.
func (b *bench) command(script string) sandbox.Command {
	b.Helper()
	file, err := os.CreateTemp(b.dir, "program")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := file.WriteString("#!/bin/sh\n" + script + "\n"); err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(file.Chmod(0o755), file.Close()); err != nil {
		b.Fatal(err)
	}
	c := sandbox.Command{Path: file.Name(), Env: []string{"PATH=/usr/bin:/bin", "MARK=" + b.dir},
		Limits: sandbox.Limits{Output: 1 << 20, Messages: 1 << 16, Processes: 32, Memory: 256 << 20, FileSize: 1 << 20, OpenFiles: 64}}
	if os.Getuid() == 0 {
		c.User = &sandbox.User{UID: b.uid, GID: b.uid}
	}
	return c
}

func (b *bench) run(c sandbox.Command, limit time.Duration) (*sandbox.Result, error) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), limit)
	defer cancel()
	r, err := b.box.Run(ctx, c)
	if left := b.running(); len(left) > 0 {
		b.Errorf("left running: %v", left)
	}
	return r, err
}

// running are the processes that came of the programs of this bench.
func (b *bench) running() (left []string) {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range environs {
		if environ, err := os.ReadFile(name); err == nil && bytes.Contains(environ, []byte("MARK="+b.dir)) {
			left = append(left, name)
		}
	}
	return left
}

// boxes are a sandbox with control groups, where the host has them, and one without.
func boxes() map[string]*sandbox.Sandbox {
	return map[string]*sandbox.Sandbox{"": sandbox.New(sandbox.Self()), ", no group": sandbox.Ungrouped(sandbox.Self())}
}

const enough = time.Minute // for what ends by itself

func TestRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	c := b.command(`cat; echo "$1 $MARK" >&2; env | wc -l >&2; pwd >&2`)
	c.Args, c.Input = []string{"argument"}, bytes.Repeat([]byte("x"), 1<<20)
	r, err := b.run(c, enough)
	if err != nil {
		t.Fatalf("%v: %s", err, r.Messages)
	}
	if !bytes.Equal(r.Output, c.Input) {
		t.Errorf("%d bytes of output", len(r.Output))
	}
	if got := string(r.Messages); got != "argument "+b.dir+"\n3\n/\n" { // the shell adds PWD
		t.Errorf("messages %q", got)
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	status := func(want int) func(error) bool {
		return func(err error) bool {
			var exit *sandbox.ExitError
			return errors.As(err, &exit) && exit.Status == want
		}
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	const short = 300 * time.Millisecond
	for name, test := range map[string]struct {
		script string
		limit  time.Duration
		want   func(error) bool
	}{
		"exits non-zero":              {"exit 7", enough, status(7)},
		"kills itself":                {"kill -9 $$", enough, status(137)},
		"writes without end":          {"exec cat /dev/zero", enough, is(sandbox.ErrOutput)},
		"writes messages without end": {"exec cat /dev/zero >&2", short, is(sandbox.ErrTimeout)},
		"loops":                       {"while :; do :; done", short, is(sandbox.ErrTimeout)},
		"ignores signals":             {"trap '' TERM INT HUP QUIT; while :; do sleep 1; done", short, is(sandbox.ErrTimeout)},
		"closes everything and stays": {"exec <&- >&- 2>&-; while :; do :; done", short, is(sandbox.ErrTimeout)},
		"reads for ever":              {"exec sleep 1000", short, is(sandbox.ErrTimeout)},
		"stops itself":                {"kill -STOP $$", short, is(sandbox.ErrTimeout)},
		"is frozen with children":     {"setsid sh -c 'kill -STOP $$' & setsid sleep 100 & kill -STOP $$", short, is(sandbox.ErrTimeout)},
		"forks without end": {`while :; do setsid sh "$0" & setsid sh "$0" & done >/dev/null 2>&1`, time.Second,
			func(err error) bool { return err != nil && !errors.Is(err, sandbox.ErrNotStarted) }},
		"takes all memory":  {`exec perl -e '$x = "x" x (1 << 30); sleep 100'`, enough, func(err error) bool { return err != nil && !errors.Is(err, sandbox.ErrTimeout) }},
		"writes large file": {`exec cat /dev/zero > /dev/shm/scaivault-$$`, enough, status(153)}, // 128 and SIGXFSZ
	} {
		for mode, box := range boxes() {
			t.Run(name+mode, func(t *testing.T) {
				t.Parallel()
				b := newBenchOf(t, box)
				c := b.command(test.script)
				c.Input = []byte("a line that may stay unread\n")
				if _, err := b.run(c, test.limit); !test.want(err) {
					t.Errorf("%v", err)
				}
			})
		}
	}
	t.Run("is not there", func(t *testing.T) {
		t.Parallel()
		c := b.command("exit 0")
		c.Path += "x"
		if r, err := b.run(c, enough); !errors.Is(err, sandbox.ErrNotStarted) {
			t.Errorf("%v, %s", err, r.Messages)
		}
	})
	t.Run("comes too late", func(t *testing.T) {
		t.Parallel()
		if _, err := b.run(b.command("exit 0"), 0); !errors.Is(err, sandbox.ErrNotStarted) {
			t.Errorf("%v", err)
		}
	})
}

// What a program leaves behind dies with it, and holds nobody up, whether or not it keeps the pipes.
func TestOrphans(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"in its group":   "sleep 1000 & echo done",
		"in a session":   "setsid sleep 1000 & echo done",
		"twice forked":   "(setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo done",
		"without output": "setsid sleep 1000 </dev/null >/dev/null 2>&1 & echo done",
	} {
		for mode, box := range boxes() {
			t.Run(name+mode, func(t *testing.T) {
				t.Parallel()
				b := newBenchOf(t, box)
				r, err := b.run(b.command(script), enough)
				if err != nil || string(r.Output) != "done\n" {
					t.Errorf("%q, %v", r.Output, err)
				}
			})
		}
	}
}

// A program gains no rights, and reaches no descriptor of this process.
func TestConfined(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	inherited, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer inherited.Close()
	reading, writing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	defer writing.Close()
	c := b.command(`grep -E '^(NoNewPrivs|Groups):' /proc/self/status; id -u; ls /proc/self/fd | tr '\n' ' '; echo given >&3; ulimit -c; umask`)
	c.Files = []*os.File{writing}
	r, err := b.run(c, enough)
	if err != nil {
		t.Fatalf("%v: %s", err, r.Messages)
	}
	got := strings.Join(strings.Fields(string(r.Output)), " ")
	uid, groups := strconv.Itoa(int(b.uid)), "Groups: "
	if c.User == nil {
		return // the user's own groups
	}
	// 4 is the folder that ls reads, 10 the script that the shell does.
	if want := strings.Join(strings.Fields(groups+" NoNewPrivs: 1 "+uid+" 0 1 2 3 4 0 0077"), " "); strings.Replace(got, " 1 10 2 ", " 1 2 ", 1) != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	line := make([]byte, 6)
	if _, err := reading.Read(line); err != nil || string(line) != "given\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// A server that may change the user and kill, as a service is given it (AmbientCapabilities=), hands none
// of that to a program. Root loses it by the change of user alone, unless told otherwise, as here.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	setpriv, err := exec.LookPath("setpriv")
	if err != nil || os.Getuid() != 0 {
		t.Logf("setpriv and root are needed to give a server capabilities: %v", err)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const all = "+setuid,+setgid,+kill"
	b := newBenchOf(t, sandbox.New([]string{setpriv, "--securebits", "+no_setuid_fixup", "--inh-caps", all, "--ambient-caps", all, self, sandbox.Argument}))
	r, err := b.run(b.command(`grep -E '^Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -v 0000000000000000; id -u; setpriv --reuid 0 --clear-groups id -u`), enough)
	var exit *sandbox.ExitError
	if string(r.Output) != fmt.Sprintln(b.uid) || !errors.As(err, &exit) {
		t.Errorf("%v: %s%s", err, r.Output, r.Messages)
	}
}

// A program has what the server leaves of the processor, also where the kernel shares that out among
// sessions before it looks at nice values.
func TestPriority(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r, err := b.run(b.command("nice; cat /proc/self/autogroup || true"), enough)
	if err != nil {
		t.Fatalf("%v: %s", err, r.Messages)
	}
	nice, group, _ := strings.Cut(string(r.Output), "\n")
	if nice != "19" {
		t.Errorf("nice %q", nice)
	}
	if os.Getuid() == 0 && group != "" && !strings.HasSuffix(group, " nice 19\n") { // of others the kernel takes ten changes a second
		t.Errorf("its session: %q", group)
	}
}

// A program that could not be killed is not started: that of another user, where /proc hides it from its
// supervisor and there is no control group.
func TestHidden(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const hide = `mount -t proc -o hidepid=2 proc /proc && exec setpriv --inh-caps -all --bounding-set -sys_ptrace "$0" "$@"`
	unshare, err := exec.LookPath("unshare")
	if err == nil {
		err = exec.CommandContext(t.Context(), unshare, "--mount", "sh", "-c", hide, "true").Run()
	}
	if err != nil {
		t.Logf("processes cannot be hidden here: %v", err)
		return
	}
	b := newBenchOf(t, sandbox.Ungrouped([]string{unshare, "--mount", "sh", "-c", hide, self, sandbox.Argument}))
	if r, err := b.run(b.command("setsid sleep 100 & exec sleep 100"), 300*time.Millisecond); !errors.Is(err, sandbox.ErrNotStarted) {
		t.Errorf("%v: %s", err, r.Messages)
	}
}

// Where a filter of system calls forbids Landlock, a program that must be kept from files is not started.
func TestPathsForbidden(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, sandbox.New([]string{"/proc/self/exe", filtered}))
	c := b.command("echo started")
	if r, err := b.run(c, enough); err != nil {
		t.Errorf("without paths: %v: %s", err, r.Messages)
	}
	c.Paths = &sandbox.Paths{Read: []string{"/"}}
	if r, err := b.run(c, enough); !errors.Is(err, sandbox.ErrNotStarted) {
		t.Errorf("%v: %s", err, r.Output)
	}
}

// What a server leaves that is killed dies at once: the supervisor sees it go.
func TestServerKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	pid := startKilled(t, b.command(`setsid sleep 1000 & sleep 1000`))
	for len(b.running()) < 3 {
		time.Sleep(10 * time.Millisecond)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for len(b.running()) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("a minute after its server was killed: %v", b.running())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Paths that a program is not given are closed to it, whatever its user may: it reads no other file and
// kills no other process.
func TestPaths(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	secret := filepath.Join(b.dir, "secret")
	given := filepath.Join(b.dir, "given")
	if err := errors.Join(os.WriteFile(secret, []byte("hunter2"), 0o644), os.Chmod(secret, 0o644), os.Mkdir(given, 0o777), os.Chmod(given, 0o777)); err != nil {
		t.Fatal(err)
	}
	if version, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); err != 0 || version < 6 {
		t.Logf("this kernel cannot: version %d of Landlock, %v", version, err)
		return
	}
	c := b.command(`cat "$1" || echo unread; echo more >> "$1" || echo unwritten; echo x > "$2/file" && cat "$2/file"
kill -0 "$3" || echo unkilled; [ "$(id -u)" != 0 ] && cat "/proc/$3/environ" || echo unseen; ls "$4" || echo unlisted; echo done > /dev/null && echo null`)
	c.User = nil // this very user: only the paths are between; root reads the memory of all by its own right
	c.Args = []string{secret, given, strconv.Itoa(os.Getpid()), "/root"}
	c.Paths = &sandbox.Paths{Read: []string{"/bin", "/usr", "/lib", "/lib64", "/etc", "/proc", c.Path, filepath.Join(b.dir, "absent")}, Write: []string{given, "/dev/null"}}
	r, err := b.run(c, enough)
	if want := "unread\nunwritten\nx\nunkilled\nunseen\nunlisted\nnull\n"; err != nil || string(r.Output) != want {
		t.Errorf("%v: %s%s", err, r.Output, r.Messages)
	}
}
