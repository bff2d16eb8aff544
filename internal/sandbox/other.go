//go:build !linux

package sandbox

import (
	"context"
	"fmt"
)

// Sandbox runs programs, on Linux only.
type Sandbox struct{}

// New makes a sandbox in which no program starts.
func New([]string) *Sandbox { return &Sandbox{} }

// Close does nothing.
func (*Sandbox) Close() {}

// Run fails: nothing here holds a program.
func (*Sandbox) Run(context.Context, Command) (*Result, error) {
	return &Result{}, fmt.Errorf("%w: programs are run on Linux only", ErrNotStarted)
}

// Main is the helper of no sandbox.
func Main([]string) int { return 2 }
