package script

import "fmt"

// Codes of what ended a call. They are part of the contract: added, never renamed.
const (
	CodeScript    = "program_failed"            // an error of the script's own: fail, a wrong type, a missing key
	CodeSteps     = "program_too_many_steps"    // the limit of steps
	CodeTime      = "program_timed_out"         // the limit of time
	CodeMemory    = "program_out_of_memory"     // the limit of memory
	CodeOutput    = "program_reply_invalid"     // what the function gave is too large or no JSON, or holds a secret where none may be
	CodeRequests  = "program_too_many_requests" // the limit of HTTP requests
	CodeHost      = "program_host_refused"      // a host that is not on the list, or an address that is none for scripts
	CodeNoContact = "program_host_unreachable"  // no connection came about
	CodeHTTP      = "program_request_failed"    // the answer did not come, or is too large
	CodeChild     = "program_not_started"       // the child could not be started, or broke the rules of the pipe
)

// Failure is a call without a result. Code, Function, Line and Step may be shown to anybody; Err is
// for the log.
type Failure struct {
	Code     string
	Function string
	Line     int    // of the script; 0 where it is not known
	Step     uint64 // of the interpreter; 0 where it is not known
	// Changed tells whether a request that may have changed something at a source was begun.
	Changed bool
	// Err is the script's own words, known secrets replaced.
	Err error
}

func (f *Failure) Error() string {
	return f.Place() + ": " + f.Err.Error()
}

// Place is where the script was, as far as it is known.
func (f *Failure) Place() string {
	switch {
	case f.Line > 0:
		return fmt.Sprintf("at line %d, step %d", f.Line, f.Step)
	case f.Step > 0:
		return fmt.Sprintf("at step %d", f.Step)
	}
	return "at a step that is not known"
}

func (f *Failure) Unwrap() error { return f.Err }
