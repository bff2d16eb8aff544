package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/client"
)

// startPatience bounds a start, stopPatience a graceful stop.
const (
	startPatience = 60 * time.Second
	stopPatience  = 30 * time.Second
)

// vault is a running server: the real binary in a home of its own.
type vault struct {
	cmd    *exec.Cmd
	log    *os.File
	exited chan error

	addr  string // host:port
	token string // an administrator's
	took  time.Duration
}

// startVault starts the server and measures how long it takes to be ready: from before the process
// is made until it answers that it is. More settings are NAME=value.
func startVault(ctx context.Context, binary string, h *home, more ...string) (*vault, error) {
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	log, err := os.CreateTemp(filepath.Dir(h.dir), "server-*.log")
	if err != nil {
		return nil, err
	}
	v := &vault{log: log, addr: addr, exited: make(chan error, 1)}
	v.cmd = exec.Command(binary, "server") //nolint:noctx // ended by close, gracefully
	v.cmd.Env = slices.Concat(os.Environ(), h.env(), more,
		[]string{"BIND_ADDRESS=" + addr, "SCAIVAULT_RATE_LIMITS=off", "METRICS_ADDRESS=off", "LOG_FORMAT=text"})
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begun := time.Now()
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { v.exited <- v.cmd.Wait() }()
	if err := v.await(ctx); err != nil {
		_ = v.cmd.Process.Kill() // gone already, or gone now
		return nil, fmt.Errorf("start the server: %w; its log: %s", err, v.tail())
	}
	v.took = time.Since(begun)
	if h.token == "" { // the first start of a store writes it down, and the first use erases it
		text, err := os.ReadFile(filepath.Join(h.dir, "bootstrap-token"))
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		h.token = string(bytes.TrimSpace(text))
	}
	v.token = h.token
	return v, nil
}

func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await asks again and again whether the server is ready.
func (v *vault) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for {
		err := v.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case err := <-v.exited:
			v.exited <- err
			return fmt.Errorf("it ended: %w", err)
		case <-ctx.Done():
			return err
		case <-time.After(time.Millisecond):
		}
	}
}

func (v *vault) ready(ctx context.Context) error {
	c := v.caller()
	defer c.close()
	_, err := c.do(ctx, "GET", "/v1/health/ready", "", 200)
	return err
}

// client is the typed client, for what is not measured.
func (v *vault) client() (*client.Client, error) {
	return client.New(client.Config{URL: "http://" + v.addr, Token: v.token})
}

// resident is the memory of the process that is in RAM, in MiB.
func (v *vault) resident() (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, errors.New("read the resident memory: no VmRSS")
}

// cpu is the processor time that the server has used.
func (v *vault) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// The fields after the command's name, which ends with the last bracket: the
	// 12th and 13th are user and system time in hundredths of a second.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0, errors.New("read the processor time: too few fields")
	}
	user, err := strconv.ParseInt(string(fields[11]), 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(string(fields[12]), 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

// issuing has each caller ask for credentials for a while. They are revoked afterwards, outside the
// time that counts.
func (v *vault) issuing(callers []*caller, d time.Duration, engine, role string) side {
	return func(ctx context.Context) (sample, error) {
		before, err := v.cpu()
		if err != nil {
			return sample{}, err
		}
		s, err := during(ctx, len(callers), d, credentials(callers, engine, role))
		after, unread := v.cpu()
		s.cpu = after - before
		return s, errors.Join(err, unread, callers[0].clear(ctx, engine, role))
	}
}

// close stops the server as an operator does, and by force when it does not.
func (v *vault) close() error {
	defer v.log.Close()
	if err := v.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-v.exited:
		if err != nil {
			return fmt.Errorf("stop the server: %w; its log: %s", err, v.tail())
		}
		return nil
	case <-time.After(stopPatience):
		_ = v.cmd.Process.Kill()
		return fmt.Errorf("stop the server: it did not stop within %s; its log: %s", stopPatience, v.tail())
	}
}

// tail is the end of the server's log.
func (v *vault) tail() []byte {
	text, _ := os.ReadFile(v.log.Name()) // a report without it is still one
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-15):], []byte("\n"))
}
