package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
)

// stand is to the servers of test/mysqltest, redistest and mongotest what a test is: it says where
// they may put files, ends them, and is told when one does not start.
type stand struct {
	failure error
	ends    []func()
}

// onStand runs f and then what f had it clean up, the last first. As in a test, nothing goes on
// behind a Fatalf.
func onStand(f func(s *stand) error) error {
	s := &stand{}
	err := s.run(func() error { return f(s) })
	for _, end := range slices.Backward(s.ends) {
		err = errors.Join(err, s.run(func() error { end(); return nil }))
	}
	return err
}

func (s *stand) run(f func() error) (err error) {
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
func (*stand) Helper() {}

// Cleanup has f called in the end.
func (s *stand) Cleanup(f func()) { s.ends = append(s.ends, f) }

// Fatalf does not return.
func (s *stand) Fatalf(format string, args ...any) {
	s.failure = fmt.Errorf(format, args...)
	runtime.Goexit()
}

// TempDir is a new folder, which goes in the end.
func (s *stand) TempDir() string {
	dir, err := os.MkdirTemp("", "scaivault-load-")
	if err != nil {
		s.Fatalf("make a folder: %v", err)
	}
	s.Cleanup(func() { _ = os.RemoveAll(dir) }) // a file that stays is no reason to fail
	return dir
}
