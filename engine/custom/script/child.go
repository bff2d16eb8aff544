package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	startime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
)

// ChildFlag is the one argument that makes this program a [Child]. It looks like a flag, so that a
// program that knows nothing of it refuses it.
const ChildFlag = "-scaivault-script-child"

// statusLost is the status of a child that has lost its parent, or could not begin.
const statusLost = 1

// Child runs one job that stands on in, and answers the status with which the process is to end. main
// calls it before anything else when its one argument is ChildFlag.
func Child(in io.Reader, out io.Writer) int {
	if err := confine(); err != nil {
		_ = send(out, wish{Kind: wishFailed, Code: CodeChild, Message: "confine the child: " + err.Error()})
		return statusLost
	}
	var j job
	if err := receive(in, maxToChild, &j); err != nil {
		return statusLost
	}
	parent := &parent{in: in, out: out, nonce: j.Nonce}
	last := parent.run(j)
	if err := send(out, last); err != nil {
		return statusLost
	}
	return 0
}

// parent is the process that serves this one.
type parent struct {
	in        io.Reader
	out       io.Writer
	nonce     string
	open      bool // functions run: the top level may not reach outside
	exhausted bool // the limit of steps was reached
	printed   int
}

var errTopLevel = errors.New("the top level of a script cannot reach outside: do it in a function")

// ask sends a wish and waits for what comes of it.
func (p *parent) ask(w wish) (reply, error) {
	if !p.open {
		return reply{}, errTopLevel
	}
	var r reply
	if err := send(p.out, w); err != nil {
		return r, err
	}
	if err := receive(p.in, maxToChild, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// value asks for a text or a secret.
func (p *parent) value(w wish) (starlark.Value, error) {
	r, err := p.ask(w)
	switch {
	case err != nil:
		return nil, err
	case r.Secret != nil:
		return &secret{number: *r.Secret, of: p}, nil
	}
	return starlark.String(r.Text), nil
}

// maxPrinted bounds what a script prints in one call; what is more is dropped.
const maxPrinted = 4 << 10

func (p *parent) print(_ *starlark.Thread, text string) {
	room := maxPrinted - p.printed
	if !p.open || room <= 0 {
		return
	}
	text = text[:min(len(text), room)]
	p.printed += len(text)
	_, _ = p.ask(wish{Kind: wishPrint, Message: text}) // the next wish meets the same error
}

// run does the job, and answers the last message.
func (p *parent) run(j job) (last wish) {
	defer func() {
		if r := recover(); r != nil { // a mistake of the interpreter's
			last = wish{Kind: wishFailed, Code: CodeScript, Message: clip(fmt.Sprint("the interpreter panicked: ", r))}
		}
	}()
	thread := &starlark.Thread{Name: j.Function, Print: p.print}
	startime.SetNow(thread, func() (time.Time, error) { return time.Now().UTC(), nil })
	thread.SetMaxExecutionSteps(j.Steps)
	thread.OnMaxSteps = func(t *starlark.Thread) {
		p.exhausted = true
		t.Cancel("too many steps")
	}
	globals, err := starlark.ExecFileOptions(dialect(), thread, fileName, j.Script, p.modules(j.Root))
	if err != nil || j.Function == "" {
		return p.outcome(thread, starlark.None, err)
	}
	input, err := decode(thread, j.Input)
	if err != nil {
		return p.outcome(thread, nil, err)
	}
	p.open = true
	result, err := starlark.Call(thread, globals[j.Function], starlark.Tuple{record{input}}, nil)
	return p.outcome(thread, result, err)
}

// outcome is the last message of a job.
func (p *parent) outcome(thread *starlark.Thread, result starlark.Value, err error) wish {
	last := wish{Kind: wishFailed, Code: CodeScript, Step: thread.ExecutionSteps()}
	if err == nil {
		if result == starlark.None {
			result = starlark.NewDict(0)
		}
		if _, isDict := result.(*starlark.Dict); !isDict {
			last.Code, last.Message = CodeOutput, "a function gives a dict or None, not a "+result.Type()
			return last
		}
		text, encodeErr := encode(thread, result)
		if encodeErr == nil && len(text) <= maxOutput {
			return wish{Kind: wishDone, Output: text, Step: last.Step}
		}
		last.Code, last.Message = CodeOutput, "what the function gives is longer than 256 KiB as JSON"
		if encodeErr != nil {
			last.Message = clip(encodeErr.Error())
		}
		return last
	}
	last.Message = clip(err.Error())
	var failed *starlark.EvalError
	if errors.As(err, &failed) {
		for depth := range failed.CallStack { // the innermost line of the script
			if pos := failed.CallStack.At(depth).Pos; pos.IsValid() && pos.Filename() == fileName {
				last.Line = int(pos.Line)
				break
			}
		}
	}
	if p.exhausted {
		last.Code = CodeSteps
	}
	return last
}

// maxMessage bounds the text of an error.
const maxMessage = 4 << 10

func clip(text string) string { return text[:min(len(text), maxMessage)] }

var _ json.Marshaler = (*secret)(nil)
