package awstest

import (
	"net/url"
	"strings"
	"sync"
)

// logged is all that a server was asked, as its trail would show it.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) add(form url.Values) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(form.Encode() + "\n")
}

// Log is all that the server was asked by any front.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.text.String()
}

// Say writes a line into the log.
func (s *Server) Say(text string) {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.text.WriteString(text + "\n")
}
