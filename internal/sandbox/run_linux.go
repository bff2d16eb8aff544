package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/internal/failpoint"
)

// patience is how long a supervisor may take to kill what it was told to, before it is killed itself.
const patience = 10 * time.Second

// Sandbox runs programs. It is safe for concurrent use.
type Sandbox struct {
	helper []string
	groups func() *groups // nil where no control group can be made
}

// New makes a sandbox. helper is the command line of a process that calls Main: this binary, usually.
// At its first use it ends what a former process that was killed has left in control groups.
func New(helper []string) *Sandbox {
	return &Sandbox{helper: helper, groups: sync.OnceValue(newGroups)}
}

// Close ends the use of the sandbox. No program is running.
func (s *Sandbox) Close() { s.groups().close() }

// Run runs a program until it and all its children have ended, at most until ctx ends.
func (s *Sandbox) Run(ctx context.Context, c Command) (*Result, error) {
	if ctx.Err() != nil {
		return &Result{}, fmt.Errorf("%w: %w", ErrNotStarted, ctx.Err())
	}
	begun := time.Now()
	group, err := s.groups().make(c.Limits)
	if err != nil {
		return &Result{}, fmt.Errorf("%w: make its control group: %w", ErrNotStarted, err)
	}
	defer group.remove()
	r := &run{limits: c.Limits}
	if err := r.start(ctx, s.helper, c, group); err != nil {
		return &Result{}, fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	err = r.finish(ctx, group, c.Input)
	spent := r.process.ProcessState // the supervisor's, and of all that it has waited for
	return &Result{Output: r.output, Messages: r.messages, Took: time.Since(begun), Processor: spent.UserTime() + spent.SystemTime()}, err
}

// run is one program at work. Each pipe is named by this end of it.
type run struct {
	limits  Limits
	process *exec.Cmd
	input   *os.File
	out     *os.File
	errs    *os.File
	life    *os.File // when it closes, the supervisor kills
	status  *os.File // what the supervisor has seen

	output   []byte
	messages []byte
	ended    chan struct{} // the supervisor has
	tooMuch  chan struct{} // the program wrote too much
}

// start starts the supervisor. An error leaves nothing open.
func (r *run) start(ctx context.Context, helper []string, c Command, g *group) (err error) {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			r.closePipes()
		}
	}()
	for _, p := range []struct {
		ours  **os.File
		reads bool
	}{{&r.input, false}, {&r.out, true}, {&r.errs, true}, {&r.life, false}, {&r.status, true}} {
		reading, writing, err := os.Pipe()
		if err != nil {
			return err
		}
		if p.reads {
			*p.ours, theirs = reading, append(theirs, writing)
		} else {
			*p.ours, theirs = writing, append(theirs, reading)
		}
	}
	task := task{Path: c.Path, Args: c.Args, Env: c.Env, User: c.User, Paths: c.Paths, Limits: c.Limits, Files: len(c.Files), Group: g.path()}
	if deadline, ok := ctx.Deadline(); ok {
		task.Time = time.Until(deadline)
	}
	spec, err := json.Marshal(task)
	if err != nil {
		return err
	}
	args := append(append([]string(nil), helper[1:]...), stageSupervise, string(spec))
	// Not CommandContext: what ends with the context is the program, and the supervisor sees to that.
	r.process = exec.Command(helper[0], args...) //nolint:noctx // as above
	r.process.Env = []string{}
	r.process.Dir = "/"
	r.process.Stdin, r.process.Stdout, r.process.Stderr = theirs[0], theirs[1], theirs[2]
	r.process.ExtraFiles = append([]*os.File{theirs[3], theirs[4]}, c.Files...)
	r.process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.ended, r.tooMuch = make(chan struct{}), make(chan struct{})
	return r.process.Start()
}

func (r *run) closePipes() {
	for _, f := range []*os.File{r.input, r.out, r.errs, r.life, r.status} {
		if f != nil {
			f.Close()
		}
	}
}

// finish feeds the program, reads what it gives, and waits until all of it is dead.
func (r *run) finish(ctx context.Context, g *group, input []byte) error {
	var reading sync.WaitGroup
	go func() {
		_, _ = r.input.Write(input) // a program need not read; Close below ends the wait for one that does not
		r.input.Close()
		failpoint.Sent(ctx)
	}()
	reading.Go(func() {
		var over bool
		if r.output, over = readUpTo(r.out, r.limits.Output); over {
			close(r.tooMuch)
		}
	})
	reading.Go(func() {
		r.messages, _ = readUpTo(r.errs, r.limits.Messages)
		_, _ = io.Copy(io.Discard, r.errs) // a full pipe would hold the program up
	})
	var seen ending
	reading.Go(func() { _ = json.NewDecoder(r.status).Decode(&seen) }) // nothing read is an ending of its own
	go func() {
		_ = r.process.Wait() // how it went is in what it wrote
		close(r.ended)
	}()

	var why error
	select {
	case <-r.ended:
	case <-r.tooMuch:
		why = ErrOutput
	case <-ctx.Done():
		why = ErrTimeout
	}
	r.life.Close()
	select {
	case <-r.ended:
	case <-time.After(patience):
		_ = r.process.Process.Kill() // then the group is the last resort
		<-r.ended
	}
	g.kill()
	// All that could write is dead; what was not, would keep us here.
	drained := time.AfterFunc(patience, r.closePipes)
	reading.Wait()
	drained.Stop()
	r.closePipes()
	if why == nil {
		why = seen.err(r.limits.Output, len(r.output))
	}
	return why
}

// readUpTo reads at most limit bytes, and tells whether there is one more.
func readUpTo(f io.Reader, limit int) (read []byte, over bool) {
	read, _ = io.ReadAll(io.LimitReader(f, int64(limit)+1)) // what broke off is what there is
	if len(read) > limit {
		return read[:limit], true
	}
	return read, false
}

// ending is what the supervisor has seen of a program.
type ending struct {
	Failed  string `json:"failed,omitempty"` // why it was not started
	Timeout bool   `json:"timeout,omitempty"`
	Ended   bool   `json:"ended,omitempty"`
	Status  int    `json:"status,omitempty"`
}

func (e ending) err(limit, written int) error {
	switch {
	case e.Failed != "":
		return fmt.Errorf("%w: %s", ErrNotStarted, e.Failed)
	case written > limit:
		return ErrOutput
	case e.Timeout:
		return ErrTimeout
	case !e.Ended:
		return errors.New("the program's supervisor was killed")
	case e.Status != 0:
		return &ExitError{Status: e.Status}
	}
	return nil
}
