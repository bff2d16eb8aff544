// Command serve runs what the tests have in the place of a MongoDB until it is interrupted, and prints its
// URL: what `make test-mongodb` takes.
//
//	go run ./test/mongotest/serve
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/scaivault/scaivault/test/mongotest"
	"github.com/scaivault/scaivault/test/servertest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := servertest.OnStand(func(s *servertest.Stand) error {
		fmt.Println(mongotest.Start(s).URL())
		<-ctx.Done()
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
