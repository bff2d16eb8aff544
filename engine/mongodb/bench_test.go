package mongodb_test

import (
	"fmt"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// BenchmarkLife makes and ends one credential at a time: by the engine, and by a client that sends the
// same two changes and nothing else.
func BenchmarkLife(b *testing.B) {
	s := newSource(b)
	b.Run("engine", func(b *testing.B) {
		e := s.open(b, nil)
		for b.Loop() {
			revoke(b, e, issue(b, e, readApp).recipe)
		}
	})
	b.Run("direct", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			name := fmt.Sprintf("direct_%d", n)
			s.server.Do(b, appDB, bson.D{{Key: "createUser", Value: name}, {Key: "pwd", Value: "a-long-one"}, {Key: "roles", Value: bson.A{"read"}}, {Key: "mechanisms", Value: bson.A{"SCRAM-SHA-256"}}})
			s.server.Do(b, appDB, bson.D{{Key: "dropUser", Value: name}})
		}
	})
}

// BenchmarkRevokeBatch ends a hundred at once.
func BenchmarkRevokeBatch(b *testing.B) {
	const many = 100
	s := newSource(b)
	e := s.open(b, nil)
	for b.Loop() {
		b.StopTimer()
		recipes := make([]engine.Recipe, many)
		for i := range recipes {
			recipes[i] = issue(b, e, readApp).recipe
		}
		b.StartTimer()
		for _, r := range e.RevokeBatch(b.Context(), recipes) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
