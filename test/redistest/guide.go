package redistest

import (
	"strings"

	"github.com/scaivault/scaivault/test/servertest"
)

// SetUp makes exactly the root that the guide tells an administrator to make, with rules besides where a
// test says so, and saves it in whatever way the server has.
func (s *Server) SetUp(t TB, rules ...string) {
	t.Helper()
	blocks, err := servertest.Guide("redis.md", "redis")
	if err != nil {
		t.Fatalf("make the root of the guide: %v", err)
	}
	for line := range strings.Lines(blocks[0]) {
		switch words := strings.Fields(line); strings.Join(words[:2], " ") {
		case "ACL SAVE":
			if _, err := s.Try("ACL", "SAVE"); err != nil {
				s.Do(t, "CONFIG", "REWRITE")
			}
		default:
			var arguments []any
			for _, word := range append(words, rules...) {
				arguments = append(arguments, word)
			}
			s.Do(t, arguments...)
		}
	}
}
