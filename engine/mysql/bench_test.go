package mysql_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/mysqltest"
)

// BenchmarkLife makes and ends one credential at a time: by the engine, and by hand,
// with the two statements that everybody writes and nothing else. "ratio" is how
// many of the engine's fit into the time of one by hand; both run in turns.
func BenchmarkLife(b *testing.B) {
	for _, kind := range mysqltest.Kinds() {
		b.Run(kind, func(b *testing.B) {
			s := newSource(b, servers.Shared(b, kind))
			e, role := s.open(b, nil), s.reader(b)
			revoke(b, e, issue(b, e, role).recipe)
			var made, ended, byHand, dropped time.Duration
			n := 0
			for b.Loop() {
				n++
				start := time.Now()
				c := issue(b, e, role)
				issued := time.Now()
				revoke(b, e, c.recipe)
				revoked := time.Now()
				name := fmt.Sprintf("'direct_%d'@'%%'", n)
				s.server.Exec(b, "CREATE USER "+name+" IDENTIFIED BY 'a-password-of-32-characters-here'", "GRANT SELECT ON "+s.app+".* TO "+name)
				created := time.Now()
				s.server.Exec(b, "DROP USER "+name)
				made, ended, byHand, dropped = made+issued.Sub(start), ended+revoked.Sub(issued), byHand+created.Sub(revoked), dropped+time.Since(created)
			}
			per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(n) }
			b.ReportMetric(per(made), "µs/issue")
			b.ReportMetric(per(byHand), "µs/create-by-hand")
			b.ReportMetric(float64(byHand)/float64(made), "ratio-issue")
			b.ReportMetric(per(ended), "µs/revoke")
			b.ReportMetric(per(dropped), "µs/drop-by-hand")
			b.ReportMetric(float64(dropped)/float64(ended), "ratio-revoke")
		})
	}
}

// BenchmarkRevokeBatch ends a hundred at once.
func BenchmarkRevokeBatch(b *testing.B) {
	const many = 100
	for _, kind := range mysqltest.Kinds() {
		b.Run(kind, func(b *testing.B) {
			s := newSource(b, servers.Shared(b, kind))
			e, role := s.open(b, nil), s.reader(b)
			for b.Loop() {
				b.StopTimer()
				recipes := make([]engine.Recipe, many)
				for i := range recipes {
					recipes[i] = issue(b, e, role).recipe
				}
				b.StartTimer()
				for _, r := range e.RevokeBatch(b.Context(), recipes) {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
				}
			}
		})
	}
}

// BenchmarkAmongMany makes and ends one while others live: the servers look through
// all accounts for each.
func BenchmarkAmongMany(b *testing.B) {
	for _, kind := range mysqltest.Kinds() {
		s := newSource(b, servers.Shared(b, kind))
		e, role := s.open(b, nil), s.reader(b)
		var alive []engine.Recipe
		for _, live := range []int{0, 1000, 4000} {
			for len(alive) < live {
				alive = append(alive, issue(b, e, role).recipe)
			}
			b.Run(fmt.Sprintf("%s/%d", kind, live), func(b *testing.B) {
				for b.Loop() {
					revoke(b, e, issue(b, e, role).recipe)
				}
			})
		}
		for _, r := range e.RevokeBatch(b.Context(), alive) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
