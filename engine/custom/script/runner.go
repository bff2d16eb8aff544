package script

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/scaivault/scaivault/internal/statement"
)

// Limits of one call.
const (
	steps     = 20_000_000
	maxOutput = 256 << 10
	maxWishes = 10_000
)

// Runner calls the functions of one script. Its calls know nothing of each other: each has a process
// of its own. It is safe for concurrent use; how many calls there are at a time is the caller's to
// bound.
type Runner struct {
	Script *Script
	Root   map[string]statement.Secret
	Client *http.Client
	Hosts  []Host // that the script may speak to
	Logger *slog.Logger
}

// Call runs one function and gives the JSON object that it returned, and the processor time that it cost.
// An empty name runs the top level only. It ends with ctx, and nothing of it is left running then. The
// error is a *Failure.
func (r *Runner) Call(ctx context.Context, function string, input json.RawMessage) (result json.RawMessage, spent time.Duration, err error) {
	c := &call{runner: r, function: function, nonce: rand.Text()}
	var names []string
	c.vault, names = newVault(r.Root)
	result, err = c.run(ctx, job{Script: r.Script.text, Function: function, Input: input, Root: names, Nonce: c.nonce, Steps: steps})
	return result, c.spent, err
}

// call is one call under way, seen from the parent.
type call struct {
	runner   *Runner
	function string
	vault    *vault
	nonce    string
	changed  bool // a request was begun that is no mere question
	requests int
	spent    time.Duration // processor time of the child
	printed  int
	refusal  string // the code of the wish that was not granted: the script ends with it
}

// run starts a child, serves it, and sees it gone.
func (c *call) run(ctx context.Context, j job) (json.RawMessage, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	child := exec.CommandContext(ctx, self, ChildFlag)
	child.Env, child.Dir = []string{}, "/"
	child.SysProcAttr = childAttributes()
	in, err := child.StdinPipe()
	if err != nil {
		return nil, c.failure(CodeChild, err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return nil, c.failure(CodeChild, err)
	}
	if err := child.Start(); err != nil {
		return nil, c.failure(CodeChild, err)
	}
	last, err := c.serve(ctx, in, out, j)
	late := ctx.Err() != nil
	cancel() // kills it, whatever it still does
	_ = child.Wait()
	c.spent = child.ProcessState.UserTime() + child.ProcessState.SystemTime()
	switch {
	case err == nil:
		return c.end(last)
	case late:
		return nil, c.failure(CodeTime, ctx.Err())
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, c.failure(died(child.ProcessState), fmt.Errorf("the child ended without a word: %s", child.ProcessState))
	default:
		return nil, c.failure(CodeChild, err)
	}
}

// serve grants wishes until the last message.
func (c *call) serve(ctx context.Context, in io.Writer, out io.Reader, j job) (wish, error) {
	if err := send(in, j); err != nil {
		return wish{}, io.ErrUnexpectedEOF // a child that does not read is dead
	}
	for range maxWishes {
		var w wish
		if err := receive(out, maxToParent, &w); err != nil {
			return w, err
		}
		if w.Kind == wishDone || w.Kind == wishFailed {
			return w, nil
		}
		granted, err := c.grant(ctx, w)
		if err != nil {
			granted = reply{Error: c.vault.scrub(err.Error())}
		}
		if err := send(in, granted); err != nil {
			return w, io.ErrUnexpectedEOF
		}
	}
	return wish{}, errors.New("the script asked too often")
}

// grant does what a script may wish.
func (c *call) grant(ctx context.Context, w wish) (reply, error) {
	switch w.Kind {
	case wishHTTP:
		return c.request(ctx, w)
	case wishDigest, wishMAC:
		return c.vault.derive(w.Texts, func(texts []string) (string, error) { return digest(w.Kind, w.Name, texts) })
	case wishBase64, wishQuery, wishJoin:
		return c.vault.derive(w.Texts, func(texts []string) (string, error) { return convert(w.Kind, w.Name, texts) })
	case wishRandom:
		return c.random(w.Name, w.Size)
	case wishPrint:
		c.print(ctx, w.Message)
		return reply{}, nil
	}
	return reply{}, errors.New("there is no such builtin")
}

// print writes what a script prints to the log, for its author.
func (c *call) print(ctx context.Context, text string) {
	text = text[:min(len(text), max(0, maxPrinted-c.printed))]
	c.printed += len(text)
	if text != "" {
		c.runner.Logger.DebugContext(ctx, "a script printed", "function", c.function, "text", c.vault.scrub(text))
	}
}

// end is the result that the last message tells.
func (c *call) end(last wish) (json.RawMessage, error) {
	if last.Kind == wishDone {
		result, err := c.vault.reveal(last.Output, c.nonce)
		if err == nil {
			return result, nil
		}
		last = wish{Code: CodeOutput, Message: err.Error(), Step: last.Step}
	}
	f := c.failure(last.Code, errors.New(last.Message))
	if c.refusal != "" && last.Code == CodeScript {
		f.Code = c.refusal
	}
	f.Line, f.Step = last.Line, last.Step
	return nil, f
}

func (c *call) failure(code string, err error) *Failure {
	return &Failure{Code: code, Function: c.function, Changed: c.changed, Err: errors.New(c.vault.scrub(err.Error()))}
}

// died is the code of a death without a last message. A child that is well says one and ends with 0,
// one that could not answers 1: every other end is the Go runtime's, which cannot go on without memory
// and says so in many ways, or the kernel's.
func died(state *os.ProcessState) string {
	if state.ExitCode() == statusLost {
		return CodeChild
	}
	return CodeMemory
}
