package script

import "fmt"

// Codes of what ended a call.
const (
	CodeScript    = "script_failed"           // an error of the script's own: fail, a wrong type, a missing key
	CodeSteps     = "script_too_many_steps"   // the limit of steps
	CodeTime      = "script_timed_out"        // the limit of time
	CodeMemory    = "script_out_of_memory"    // the limit of memory
	CodeOutput    = "script_output_invalid"   // what the function gave is too large or no JSON, or holds a secret where none may be
	CodeRequests  = "script_too_many_calls"   // the limit of HTTP requests
	CodeHost      = "script_host_refused"     // a host that is not on the list, or an address that is none for scripts
	CodeNoContact = "script_host_unreachable" // no connection came about
	CodeHTTP      = "script_request_failed"   // the answer did not come, or is too large
	CodeChild     = "script_not_run"          // the child could not be started, or ended without a word
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
	text := fmt.Sprintf("%s: %s at line %d, step %d", f.Function, f.Code, f.Line, f.Step)
	if f.Err != nil {
		text += ": " + f.Err.Error()
	}
	return text
}

func (f *Failure) Unwrap() error { return f.Err }
