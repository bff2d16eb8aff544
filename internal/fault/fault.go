// Package fault holds the one error type that reaches a caller.
//
// An Error is made where the failure is understood, deep in the code, and
// mapped to the wire once, at the edge. Its message and details are written by
// us: the text of a driver or of the operating system, which may hold a
// connection URL with its password, travels only as the cause, and the cause
// is for the log.
package fault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"
)

// retryAfter is told to callers of a temporary failure that named no time of
// its own.
const retryAfter = 5 * time.Second

// Error is a failure that may be shown to a caller. It is immutable: With,
// Because and After answer a changed copy.
type Error struct {
	Code    Code
	Message string         // what was attempted, what is wrong, what to do; lower case; never a secret
	Details map[string]any // what a program needs to react: limits, names; never a secret

	// RetryAfter is when to try again; zero when trying again does not help.
	RetryAfter time.Duration

	// Err is the cause. It is never part of the text, and may hold what must
	// not be shown.
	Err error
}

// New makes an error of a code with a message for the caller. The codes that
// api.md answers with Retry-After carry a default one.
func New(code Code, format string, args ...any) *Error {
	e := &Error{Code: code, Message: fmt.Sprintf(format, args...)}
	switch code {
	case RateLimited, EngineUnavailable, ServiceUnavailable:
		e.RetryAfter = retryAfter
	}
	return e
}

// With adds a detail for programs.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Details = maps.Clone(e.Details)
	if c.Details == nil {
		c.Details = make(map[string]any, 1)
	}
	c.Details[key] = value
	return &c
}

// Because keeps the cause, for the log and for errors.Is and errors.As only.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// After sets when the caller should try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Error is the code and the message, without the cause.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap answers the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Code, or another Error of the same code.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return e.Code == t
	case *Error:
		return t != nil && e.Code == t.Code
	default:
		return false
	}
}

// From answers the Error that a caller may see for any error: the outermost
// Error in the chain, else a constant text with err as its cause. It is nil
// for nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) && e != nil {
		return e
	}
	var code Code
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return New(ServiceUnavailable, "the request was not finished in its time; try again").Because(err)
	case errors.As(err, &code):
		return New(code, "the request was refused").Because(err)
	default:
		return New(InternalError, "an internal error occurred; the log of the server has it under this request id").Because(err)
	}
}

// CodeOf answers the code that a caller sees for err; empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}
