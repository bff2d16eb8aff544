package mongodb_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/scaivault/scaivault/engine"
)

// BenchmarkLife makes and ends credentials, one at a time and by 32 callers at once: by the engine, and by
// a client that sends the same two changes and nothing else.
func BenchmarkLife(b *testing.B) {
	s := newSource(b)
	e := s.open(b, map[string]any{"max_open_connections": 32})
	var made atomic.Int64
	for name, life := range map[string]func(){
		"engine": func() { revoke(b, e, issue(b, e, readApp).recipe) },
		"direct": func() {
			name := fmt.Sprintf("direct_%d", made.Add(1))
			s.server.Do(b, appDB, bson.D{{Key: "createUser", Value: name}, {Key: "pwd", Value: "a-long-one"}, {Key: "roles", Value: bson.A{"read"}}, {Key: "mechanisms", Value: bson.A{"SCRAM-SHA-256"}}})
			s.server.Do(b, appDB, bson.D{{Key: "dropUser", Value: name}})
		},
	} {
		b.Run(name+"/1", func(b *testing.B) {
			for b.Loop() {
				life()
			}
		})
		b.Run(name+"/32", func(b *testing.B) {
			b.SetParallelism(32 / runtime.GOMAXPROCS(0))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					life()
				}
			})
		})
	}
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
