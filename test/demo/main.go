// Command demo shows what ScaiVault does, against a real PostgreSQL and by the
// commands that anybody would type. Every step checks what it claims: the demo
// ends with 1 when one does not hold. It leaves nothing behind.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/scaivault/scaivault/test/pgtest"
)

func main() {
	runtime.LockOSThread() // the server is told to die with the thread that started it
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "demo: give the path of the scaivault program")
		os.Exit(2)
	}
	program, err := filepath.Abs(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if !show(ctx, program) {
		os.Exit(1)
	}
}

// failed ends the demo from wherever it is; Cleanup functions still run.
type failed struct{}

// demo is the stage: it keeps what is to be cleaned up, and is what pgtest wants
// of a test.
type demo struct {
	ctx     context.Context //nolint:containedctx // the life of the whole program
	program string
	dir     string // holds everything that the demo makes
	admin   []string
	steps   int
	cleanup []func()
}

var _ pgtest.TB = (*demo)(nil)

func show(ctx context.Context, program string) (ok bool) {
	d := &demo{ctx: ctx, program: program}
	defer func() {
		r := recover()
		for i := len(d.cleanup) - 1; i >= 0; i-- {
			d.cleanup[i]()
		}
		if _, stopped := r.(failed); r != nil && !stopped {
			panic(r)
		}
		ok = r == nil
		if ok {
			fmt.Printf("\nThat was all %d steps. Nothing is left running, and nothing on the disk.\n", d.steps)
		}
	}()
	d.play()
	return true
}

func (d *demo) Helper() {}

func (d *demo) Cleanup(f func()) { d.cleanup = append(d.cleanup, f) }

func (d *demo) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "\ndemo: FAILED: "+format+"\n", args...)
	panic(failed{})
}

// step announces in plain words what comes next.
func (d *demo) step(what string) {
	d.goOn()
	d.steps++
	fmt.Printf("\n%2d. %s\n", d.steps, what)
}

// goOn ends the demo where it was told to end.
func (d *demo) goOn() {
	if d.ctx.Err() != nil {
		d.Fatalf("stopped: %v", context.Cause(d.ctx))
	}
}

// note tells what was seen.
func (d *demo) note(format string, args ...any) {
	fmt.Printf("    %s\n", fmt.Sprintf(format, args...))
}

// tempDir is gone at the end.
func (d *demo) tempDir() string {
	dir, err := os.MkdirTemp("", "scaivault-demo-")
	if err != nil {
		d.Fatalf("make a folder: %v", err)
	}
	d.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
