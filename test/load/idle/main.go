// Command idle is scaivault with one more kind of source, which does nothing: for measuring what
// the server and its store cost by themselves. Everything else is the program as it is shipped.
package main

import (
	"context"
	"os"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Process{
		Version: "idle",
		Args:    os.Args[1:], Environ: os.Environ(),
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Engines: []engine.Type{idle{}},
	}))
}
