package script_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine/custom/script"
)

// The programs that this test binary can be.
const (
	probeFlag  = "-confined"
	parentFlag = "-parent"
)

// probe confines itself as a child does and tells what it can do nevertheless.
func probe() int {
	if err := script.Confine(); err != nil {
		fmt.Println("confine:", err)
		return 1
	}
	if f, err := os.Open("/proc/self/status"); err == nil {
		fmt.Println("a file is opened", f.Name())
	}
	if err := os.WriteFile("/tmp/scaivault-script-probe", nil, 0o600); err == nil {
		fmt.Println("a file is written")
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "socket") && !strings.Contains(err.Error(), "not implemented") {
		fmt.Println("a socket is made", conn, err)
	}
	if err := exec.Command("/bin/true").Run(); err == nil {
		fmt.Println("a program is started")
	}
	if err := syscall.Exec("/bin/echo", []string{"echo", "replaced by another program"}, nil); err == nil {
		fmt.Println("not reached")
	}
	if err := syscall.Kill(os.Getppid(), 0); err == nil {
		fmt.Println("another process can be signalled")
	}
	if _, err := os.ReadDir("/"); err == nil {
		fmt.Println("a folder is listed")
	}
	fmt.Println("environment", len(os.Environ()))
	return 0
}

func TestConfine(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", probeFlag)
	cmd.Env = []string{}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "environment 0\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// parent calls a script that never ends.
func parent() int {
	parsed, err := script.Parse("def issue(ctx):\n    while True: time.sleep(time.hour)\ndef revoke(ctx): pass\n")
	if err != nil {
		return 1
	}
	r := &script.Runner{Script: parsed, Client: &http.Client{}}
	_, _, err = r.Call(context.Background(), script.Issue, nil)
	fmt.Println(err)
	return 1
}

// An interpreter does not outlive a server that was killed.
func TestParentKilled(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", parentFlag)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := ""
	await(t, func() bool { pid = child(t, cmd.Process.Pid); return pid != "" })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	await(t, func() bool {
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline") // gone, or a zombie's: empty
		return !strings.Contains(string(line), script.ChildFlag)
	})
}

// child is the interpreter that a process has started; empty without one.
func child(t *testing.T, of int) string {
	t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(of) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		children, _ := os.ReadFile("/proc/" + strconv.Itoa(of) + "/task/" + task.Name() + "/children") // of a thread that ended: none
		for _, pid := range strings.Fields(string(children)) {
			if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(line), script.ChildFlag) {
				return pid
			}
		}
	}
	return ""
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about in a minute")
		}
	}
}
