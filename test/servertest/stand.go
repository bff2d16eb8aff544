package servertest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// Stand is to the servers of mysqltest, redistest and mongotest what a test is, for a program that is none:
// it says where they may put files, ends them, and is told when one does not start.
type Stand struct {
	failure error
	ends    []func()
}

// OnStand runs f and then what f had it clean up, the last first. As in a test, nothing goes on
// behind a Fatalf.
func OnStand(f func(s *Stand) error) error {
	s := &Stand{}
	err := s.run(func() error { return f(s) })
	for _, end := range slices.Backward(s.ends) {
		err = errors.Join(err, s.run(func() error { end(); return nil }))
	}
	return err
}

func (s *Stand) run(f func() error) (err error) {
	s.failure = nil
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = f()
	}()
	<-ended
	return errors.Join(err, s.failure)
}

// Helper is for lines that only tests report.
func (*Stand) Helper() {}

// Cleanup has f called in the end.
func (s *Stand) Cleanup(f func()) { s.ends = append(s.ends, f) }

// Fatalf does not return.
func (s *Stand) Fatalf(format string, args ...any) {
	s.failure = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// TempDir is a new folder, which goes in the end.
func (s *Stand) TempDir() string {
	dir, err := os.MkdirTemp("", "scaivault-stand-")
	if err != nil {
		s.Fatalf("make a folder: %v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) }) // a file that stays is no reason to fail
	return dir
}
