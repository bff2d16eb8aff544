// Package sandbox runs a program that is not trusted so that it ends in time, takes no more than it
// may, and leaves nothing running: none of its children either, whatever sessions they opened and
// whoever their parents are by then.
//
// Between this process and the program stands a supervisor, this same binary started anew ([Main]). It
// adopts every orphan of the program, and kills all of them when the program has ended, when its time
// is over, and when this process is gone: so a program does not outlive a server that was killed.
// Where a control group can be made, the program is in one, and dies by it at one stroke. The
// supervisor starts the program by way of a third stage, which takes on the user, the limits and the
// loss of privileges, and becomes the program.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Command is a program to run.
type Command struct {
	Path  string     // absolute; no shell and no search
	Args  []string   // after its name
	Env   []string   // all of its environment
	Input []byte     // all of its standard input
	Files []*os.File // its descriptors from 3 on; they stay the caller's
	User  *User      // nil for this process's own
	Paths *Paths     // that it may use; nil for all that its user may
	Limits
}

// User is whom a program runs as, without further groups.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Paths are those that a program may use, with all that lies below them. What is not there is left
// out.
type Paths struct {
	Read  []string `json:"read,omitempty"` // and execute
	Write []string `json:"write,omitempty"`
}

// Limits of a program. Time is that of the context which [Sandbox.Run] gets.
type Limits struct {
	Output    int // bytes of standard output, beyond which it is killed
	Messages  int // bytes of standard error that are kept; what follows is thrown away
	Processes int // of the program and all its children, threads counted
	Memory    int // bytes of data of each process; of all together where there is a control group
	FileSize  int // bytes of a file that it may write
	OpenFiles int // of each process
}

// Result is what a program gave.
type Result struct {
	Output   []byte
	Messages []byte
	Took     time.Duration
	// Processor is the time that processors spent on it: on the program, all its children, and the
	// helpers that start, bind and kill them.
	Processor time.Duration
}

// How a program can fail. Whichever it is, nothing of it runs any more, and the Result has what it
// gave until then.
var (
	// ErrNotStarted says that nothing of the program ran.
	ErrNotStarted = errors.New("the program could not be started")
	// ErrTimeout says that it was killed when the context ended.
	ErrTimeout = errors.New("the program had not ended in its time")
	// ErrOutput says that it was killed for what it wrote.
	ErrOutput = errors.New("the program wrote more than it may")
)

// ExitError is a program that ended by itself, and not well.
type ExitError struct {
	Status int // 128 and the number of the signal where one ended it
}

func (e *ExitError) Error() string { return fmt.Sprintf("the program ended with status %d", e.Status) }

// Argument is the first argument of this binary where it is to be a helper: whoever makes a sandbox of
// [Self] begins its main with [Main] for it.
const Argument = "sandbox-helper"

// Self is the command line by which this binary is a helper, also when its file was replaced since.
func Self() []string { return []string{"/proc/self/exe", Argument} }
