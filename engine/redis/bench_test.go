package redis_test

import (
	"fmt"
	"testing"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/redistest"
)

// BenchmarkLife makes and ends one credential at a time: by the engine, and by a
// client that sends the same two changes, each saved, and nothing else.
func BenchmarkLife(b *testing.B) {
	server := redistest.Start(b, redistest.Redis)
	s := newSource(b, server)
	b.Run("engine", func(b *testing.B) {
		e := s.open(b, nil)
		for b.Loop() {
			revoke(b, e, issue(b, e).recipe)
		}
	})
	b.Run("direct", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			name := fmt.Sprintf("direct_%d", n)
			server.Do(b, "ACL", "SETUSER", name, "on", "~app:*", "+@read")
			server.Do(b, "ACL", "SAVE")
			server.Do(b, "ACL", "DELUSER", name)
			server.Do(b, "ACL", "SAVE")
		}
	})
}

// BenchmarkRevokeBatch ends a hundred at once.
func BenchmarkRevokeBatch(b *testing.B) {
	const many = 100
	s := newSource(b, redistest.Start(b, redistest.Redis))
	e := s.open(b, nil)
	for b.Loop() {
		b.StopTimer()
		recipes := make([]engine.Recipe, many)
		for i := range recipes {
			recipes[i] = issue(b, e).recipe
		}
		b.StartTimer()
		for _, r := range e.RevokeBatch(b.Context(), recipes) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
