package pgtest

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// Stop shuts the server down as `pg_ctl stop -m fast`: sessions are ended,
// data is kept.
func (s *Server) Stop(t TB) {
	t.Helper()
	if err := s.stop(syscall.SIGINT); err != nil {
		t.Fatalf("stop postgresql: %v", err)
	}
}

// Crash shuts the server down as `pg_ctl stop -m immediate`: the next start
// recovers from the log.
func (s *Server) Crash(t TB) {
	t.Helper()
	if err := s.stop(syscall.SIGQUIT); err != nil {
		t.Fatalf("crash postgresql: %v", err)
	}
}

// Kill is kill -9 of every process of the server: nothing is written any more.
func (s *Server) Kill(t TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster == nil {
		t.Fatalf("kill postgresql: it is not running")
		return
	}
	if err := s.postmaster.freeze(); err != nil {
		t.Fatalf("kill postgresql: %v", err)
	}
	s.postmaster.slay()
	s.postmaster = nil
}

// Start starts a stopped server again, on the same port.
func (s *Server) Start(t TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if err := s.start(ctx); err != nil {
		t.Fatalf("start postgresql again: %v", err)
	}
}

// Restart is Stop and Start.
func (s *Server) Restart(t TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// Freeze halts every process of the server (SIGSTOP): connections stay open
// and new ones are accepted by the kernel, but nobody answers.
func (s *Server) Freeze(t TB) {
	t.Helper()
	if err := s.signal((*postmaster).freeze); err != nil {
		t.Fatalf("freeze postgresql: %v", err)
	}
}

// Thaw lets a frozen server go on; it executes what waits in its sockets.
func (s *Server) Thaw(t TB) {
	t.Helper()
	if err := s.signal((*postmaster).thaw); err != nil {
		t.Fatalf("thaw postgresql: %v", err)
	}
}

func (s *Server) signal(act func(*postmaster) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.postmaster == nil {
		return errors.New("not running")
	}
	return act(s.postmaster)
}

// Log is all that the server has logged since it was made.
func (s *Server) Log(t TB) string {
	t.Helper()
	text, err := os.ReadFile(s.logPath())
	if err != nil {
		t.Fatalf("read postgresql's log: %v", err)
	}
	return string(text)
}
