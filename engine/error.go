package engine

import (
	"errors"
	"fmt"
)

// Kind says what an error leaves at the source, which decides what the lease manager does next.
type Kind int

const (
	// Unreachable: the request never reached the source. Nothing is left.
	Unreachable Kind = iota + 1
	// Refused: the source said no and undid everything. Nothing is left.
	Refused
	// NameTaken: the planned name exists at the source. Nothing was made, nothing may be undone.
	NameTaken
	// Uncertain: the request may have been executed, or may be still.
	Uncertain
	// WrongServer: the server is not the one the lease was made on; nothing was done there.
	WrongServer
	// Misconfigured: the configuration or the root's rights do not suffice.
	Misconfigured
	// Busy: somebody else holds a lock or a connection; nothing is left, trying again helps.
	Busy
)

// Error is the one error of engines. Reason is shown to callers and stored: it is constant text or
// scrubbed, never a driver's own message that may hold a connection URL. Err is for the log only.
type Error struct {
	Kind   Kind
	Reason string
	// Code tells programs what was wrong with an answer that the source did give, or with what gives it:
	// the error is then one of the engine, not of a source that is away. Empty where there is no more to
	// tell than the Kind.
	Code string
	Err  error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Reason, e.Err)
	}
	return e.Reason
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of an error of an engine: 0 without one, and Uncertain where nothing tells.
func KindOf(err error) Kind {
	var known *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &known):
		return known.Kind
	}
	return Uncertain
}
