// Command scaivault is the server and its command line.
package main

import (
	"context"
	"os"

	"github.com/scaivault/scaivault/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), cli.Process{
		Args: os.Args[1:], Environ: os.Environ(), In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}))
}
