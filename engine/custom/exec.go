package custom

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/scaivault/scaivault/internal/sandbox"
)

// Limits of a program, beside its time.
const (
	maxMessages  = 64 << 10 // of standard error that is looked at
	maxProcesses = 64
	maxMemory    = 512 << 20
	maxFileSize  = 64 << 20
	maxOpenFiles = 256
)

// executable is the runtime exec: a program of the host's, started anew for every call, with the
// request on its standard input and the reply on its standard output.
type executable struct {
	host    Host
	command string
	log     *slog.Logger
}

func newExecutable(h Host, c *config, log *slog.Logger) (*executable, error) {
	if _, wrong := h.program(c.Command); wrong != "" {
		return nil, misconfigured("run "+c.Command+": "+wrong, nil)
	}
	return &executable{host: h, command: c.Command, log: log}, nil
}

// environment is all that a program has of one.
func environment() []string {
	return []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
}

// paths are what a program may use of the host: its own folder, what is installed, and places for
// temporary files. The server's data and keys lie elsewhere, /etc/scaivault among them.
func (h Host) paths() *sandbox.Paths {
	p := &sandbox.Paths{
		Read: []string{h.Programs, "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/opt", "/nix/store", "/proc", "/dev/fd",
			"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/postgresql", "/var/run/postgresql"},
		Write: []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/shm", "/tmp", "/var/tmp"},
	}
	entries, _ := os.ReadDir("/etc") // without it there is nothing to allow
	for _, entry := range entries {
		if entry.Name() != "scaivault" {
			p.Read = append(p.Read, "/etc/"+entry.Name())
		}
	}
	return p
}

// call implements runtime.
func (x *executable) call(ctx context.Context, q *request) (json.RawMessage, time.Duration, error) {
	path, wrong := x.host.program(x.command)
	if wrong != "" {
		return nil, 0, &failure{codeStart, errors.New(wrong)}
	}
	input, err := q.encode()
	if err != nil {
		return nil, 0, &failure{codeStart, err}
	}
	result, err := x.host.Sandbox.Run(ctx, sandbox.Command{
		Path: path, Env: environment(), Input: append(input, '\n'), User: x.host.User, Paths: x.host.paths(),
		Limits: sandbox.Limits{Output: maxReply, Messages: maxMessages, Processes: maxProcesses, Memory: maxMemory,
			FileSize: maxFileSize, OpenFiles: maxOpenFiles},
	})
	q.said(x.log, string(result.Messages), result.Output)
	if err != nil {
		return nil, result.Processor, &failure{codeOf(err), err}
	}
	return result.Output, result.Processor, nil
}

func codeOf(err error) string {
	switch {
	case errors.Is(err, sandbox.ErrNotStarted):
		return codeStart
	case errors.Is(err, sandbox.ErrTimeout):
		return codeTimeout
	case errors.Is(err, sandbox.ErrOutput):
		return codeTooLarge
	}
	return codeExit
}

// functions implements runtime: a program says in its reply to check what it has.
func (x *executable) functions() []string { return nil }

// close implements runtime: nothing is kept between calls.
func (x *executable) close() {}
