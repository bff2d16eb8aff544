// Command scaivault is the server and its command line.
package main

import (
	"context"
	"os"
	"slices"

	"github.com/scaivault/scaivault/engine/custom/script"
	"github.com/scaivault/scaivault/internal/cli"
	"github.com/scaivault/scaivault/internal/sandbox"
)

// version is set by the linker, see the Makefile.
var version string //nolint:gochecknoglobals // the linker sets variables only

func main() {
	if slices.Equal(os.Args[1:], []string{script.ChildFlag}) {
		os.Exit(script.Child(os.Stdin, os.Stdout))
	}
	if len(os.Args) > 1 && os.Args[1] == sandbox.Argument {
		os.Exit(sandbox.Main(os.Args[2:]))
	}
	os.Exit(cli.Main(context.Background(), cli.Process{
		Version: version,
		Args:    os.Args[1:], Environ: os.Environ(),
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}))
}
