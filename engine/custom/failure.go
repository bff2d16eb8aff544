package custom

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/internal/strictjson"
)

// Codes of what went wrong with a program, in the details of the error that a caller gets. They are
// part of the contract: added, never renamed.
const (
	codeStart    = "program_not_started"      // nothing of it ran
	codeExit     = "program_failed"           // it ended with another status than 0, or by a signal; a script: an error
	codeTimeout  = "program_timed_out"        // it was killed at its deadline
	codeTooLarge = "program_output_too_large" // it was killed at the limit of its output
	codeReply    = "program_reply_invalid"    // it answered what is no reply
	codeRefused  = "program_refused"          // it said so itself
)

// failure is what a runtime tells of a call that came to no reply. Its cause is for the log.
type failure struct {
	code string
	err  error
}

func (f *failure) Error() string { return f.code + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

type replyError string

func (r replyError) Error() string { return "the reply is not to be taken: " + string(r) }

// broken is the error of a call without a usable reply. After an issuance nobody knows what is left at
// the source; with everything else the next try finds out.
func (e *Engine) broken(q *request, err error) error {
	var f *failure
	if !errors.As(err, &f) {
		f = &failure{codeExit, err}
	}
	function := q.Function
	e.log.Warn("a program failed", "function", function, "program", e.config.program(), "code", f.code, "error", q.shown(f.err.Error(), maxMessage))
	reason := function + " by " + e.config.program() + ": " + f.code
	var inScript *script.Failure
	if errors.As(err, &inScript) {
		reason += " " + inScript.Place()
	}
	switch {
	case f.code == codeStart && errors.Is(f.err, context.DeadlineExceeded):
		return busy("there was no time left to run "+e.config.program(), f)
	case f.code == codeStart:
		return failed(engine.Misconfigured, f.code, reason)
	case function == functionIssue && inScript != nil:
		return failed(left(inScript), f.code, reason)
	case function == functionIssue:
		return failed(engine.Uncertain, f.code, reason)
	case f.code == codeTimeout, f.code == script.CodeNoContact, f.code == script.CodeHTTP:
		return failed(engine.Unreachable, f.code, reason)
	case function == functionCheck:
		return failed(engine.Misconfigured, f.code, reason)
	}
	return failed(engine.Refused, f.code, reason)
}

// complaintKind knows the failures that a program can tell of, and what they leave at the source.
func complaintKind(kind string) (engine.Kind, bool) {
	k, ok := map[string]engine.Kind{
		"refused":       engine.Refused,
		"name_taken":    engine.NameTaken,
		"unreachable":   engine.Unreachable,
		"busy":          engine.Busy,
		"misconfigured": engine.Misconfigured,
		"uncertain":     engine.Uncertain,
	}[kind]
	return k, ok
}

// maxMessage bounds what is kept of a text of a program.
const maxMessage = 500

// read takes a reply apart: the program's complaint, or what the function gives.
func (e *Engine) read(q *request, reply json.RawMessage, into any) error {
	var either struct {
		Error *complaint `json:"error"`
	}
	if json.Unmarshal(reply, &either) == nil && either.Error != nil {
		into = &either
	}
	decode := strictjson.Decode
	if q.Function == functionList { // of more values than a request may hold
		decode = json.Unmarshal
	}
	if err := decode(reply, into); err != nil {
		_, what, _ := strings.Cut(err.Error(), "body: ") // the decoder is that of requests
		return e.broken(q, &failure{codeReply, replyError(what)})
	}
	if into != &either {
		return nil
	}
	kind, known := complaintKind(either.Error.Kind)
	if !known {
		return e.broken(q, &failure{codeReply, replyError("error.kind is not known")})
	}
	message := q.shown(either.Error.Message, maxMessage)
	e.log.Warn("a program refused", "function", q.Function, "program", e.config.program(), "kind", either.Error.Kind, "message", message)
	reason := q.Function + " by " + e.config.program() + ": it says " + either.Error.Kind
	if q.Function == functionCheck && message != "" { // whoever asks for the health administers the engine
		reason += ": " + message
	}
	return failed(kind, codeRefused, reason)
}

// printable is a text as one line, cut at limit bytes.
func printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

// complained tells whether an error is what the program said in a reply that is well formed.
func complained(err error) bool {
	var known *engine.Error
	return errors.As(err, &known) && known.Code == codeRefused
}

func failed(kind engine.Kind, code, reason string) error {
	return &engine.Error{Kind: kind, Code: code, Reason: reason}
}

func failureOf(kind engine.Kind, reason string, err error) error {
	return &engine.Error{Kind: kind, Reason: reason, Err: err}
}

func unreachable(reason string, err error) error { return failureOf(engine.Unreachable, reason, err) }
func busy(reason string, err error) error        { return failureOf(engine.Busy, reason, err) }
func refused(reason string) error                { return failureOf(engine.Refused, reason, nil) }
func wrongServer(reason string, err error) error { return failureOf(engine.WrongServer, reason, err) }
func misconfigured(reason string, err error) error {
	return failureOf(engine.Misconfigured, reason, err)
}
