package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Exit codes of scaivault that the demo looks for.
const (
	exitDenied   = 3
	exitNotFound = 4
)

// startServer runs scaivault dev until the demo ends and learns from its
// dev.json how to log in.
func (d *demo) startServer() {
	data := filepath.Join(d.dir, "vault")
	logFile, err := os.Create(filepath.Join(d.dir, "dev.log"))
	if err != nil {
		d.Fatalf("make a log: %v", err)
	}
	server := exec.Command(d.program, "dev", "--data", data) //nolint:noctx // it is ended below, and asked to first
	server.Env = d.environ()
	server.Stdout, server.Stderr = logFile, logFile
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := server.Start(); err != nil {
		d.Fatalf("start %s: %v", d.program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	d.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				d.note("scaivault dev ended with: %v", err)
			}
		case <-time.After(30 * time.Second):
			_ = server.Process.Kill()
		}
		_ = logFile.Close()
	})
	var dev struct {
		URL   string `json:"url"`
		Token string `json:"token"`
	}
	d.eventually("the server is ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(logFile.Name())
			d.Fatalf("scaivault dev ended: %v\n%s", err, text)
		default:
		}
		text, err := os.ReadFile(filepath.Join(data, "dev.json"))
		return err == nil && json.Unmarshal(text, &dev) == nil
	})
	d.admin = d.environ("SCAIVAULT_URL="+dev.URL, "SCAIVAULT_TOKEN="+dev.Token)
}

// environ is the little that a command needs; the settings of the person who runs
// the demo are neither used nor touched.
func (d *demo) environ(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + d.dir}, more...)
}

// do shows a command and runs it as the administrator; it must succeed.
func (d *demo) do(args ...string) []byte { return d.doWith(d.admin, "", args...) }

// doWith is do with another identity's environment, and a secret on standard input.
func (d *demo) doWith(env []string, stdin string, args ...string) []byte {
	out, complaint, code := d.command(env, stdin, args...)
	if code != 0 {
		d.Fatalf("the command ended with %d: %s", code, complaint)
	}
	return out
}

// refused shows a command and runs it; it must be refused with one of the codes.
func (d *demo) refused(env []string, codes []int, args ...string) {
	_, complaint, code := d.command(env, "", args...)
	for _, wanted := range codes {
		if code == wanted {
			d.note("refused, as it must be: %s", strings.TrimPrefix(complaint, "scaivault: "))
			return
		}
	}
	d.Fatalf("the command ended with %d instead of a refusal (%v): %s", code, codes, complaint)
}

func (d *demo) command(env []string, stdin string, args ...string) (out []byte, complaint string, code int) {
	who, secret := "", ""
	if envOf(env, "SCAIVAULT_CLIENT_ID") != "" {
		who = "reports"
	}
	if stdin != "" {
		secret = " < root-password"
	}
	d.note("%s$ scaivault %s%s", who, shown(args), secret)
	return d.quiet(env, stdin, args...)
}

// quiet runs a command without showing it.
func (d *demo) quiet(env []string, stdin string, args ...string) (out []byte, complaint string, code int) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(d.ctx, d.program, append(args, "--json")...)
	c.Env, c.Stdin, c.Stdout, c.Stderr = env, strings.NewReader(stdin), &stdout, &stderr
	err := c.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		d.Fatalf("run scaivault: %v", err)
	}
	complaint, _, _ = strings.Cut(stderr.String(), "\n")
	return stdout.Bytes(), complaint, c.ProcessState.ExitCode()
}

// envOf finds a variable again.
func envOf(env []string, name string) (value string) {
	for _, variable := range env {
		if v, ok := strings.CutPrefix(variable, name+"="); ok {
			value = v
		}
	}
	return value
}

// shown quotes as a shell would want it.
func shown(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if strings.ContainsAny(arg, " {}*$?'\"") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// read takes the JSON that a command printed.
func read[T any](d *demo, out []byte) T {
	var v T
	if err := json.Unmarshal(out, &v); err != nil {
		d.Fatalf("read the answer: %v: %s", err, out)
	}
	return v
}

// eventually looks again until something holds.
func (d *demo) eventually(what string, holds func() bool) {
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(50 * time.Millisecond) {
		d.goOn()
		if time.Now().After(deadline) {
			d.Fatalf("waited in vain until %s", what)
		}
	}
}
