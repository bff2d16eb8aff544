package postgresql_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// BenchmarkIssue makes credentials in the privileges form and, beside it, lets
// a direct client send the same statement, a message each.
func BenchmarkIssue(b *testing.B) {
	for _, major := range []int{15, 17} {
		for _, w := range []way{createRole, definer} {
			for _, rounds := range []int{4096, 1} {
				for _, callers := range []int{1, 8, 32} {
					b.Run(fmt.Sprintf("pg=%d/root=%s/rounds=%d/callers=%d", major, w, rounds, callers), func(b *testing.B) {
						s := newSource(b, pgtest.Shared(b, major), w)
						e := s.open(b, map[string]any{"scram_iterations": rounds, "max_open_connections": 9})
						role := parseRole(b, readItems)
						var mu sync.Mutex
						var recipes []engine.Recipe
						first := issue(b, e, role)
						recipes = append(recipes, first.recipe)
						spread(b, callers, func() {
							c := issue(b, e, role)
							mu.Lock()
							recipes = append(recipes, c.recipe)
							mu.Unlock()
						})
						start := time.Now()
						for i, r := range e.RevokeBatch(b.Context(), recipes) {
							if r.Err != nil || r.Residue != "" {
								b.Errorf("revoke %d: %v %s", i, r.Err, r.Residue)
							}
						}
						b.ReportMetric(float64(len(recipes))/time.Since(start).Seconds(), "revoked/s")
					})
				}
			}
		}
	}
}

// BenchmarkDirect is what the source does by itself: the limit of BenchmarkIssue.
func BenchmarkDirect(b *testing.B) {
	for _, major := range []int{15, 17} {
		for _, rounds := range []int{4096, 1} {
			for _, callers := range []int{1, 8, 32} {
				b.Run(fmt.Sprintf("pg=%d/rounds=%d/callers=%d", major, rounds, callers), func(b *testing.B) {
					s := newSource(b, pgtest.Shared(b, major), createRole)
					root := make(chan *pgx.Conn, callers)
					for range callers {
						root <- s.server.Connect(b, s.root, s.password, s.db)
					}
					c := <-root
					group := "direct_" + s.db
					if _, err := c.Exec(b.Context(), "CREATE ROLE "+group); err != nil {
						b.Fatal(err)
					}
					root <- c
					var n atomic.Int64
					spread(b, callers, func() {
						c := <-root
						verifier := statement.ScramSHA256(statement.Password(nil), rounds, nil)
						_, err := c.PgConn().Exec(b.Context(), fmt.Sprintf("CREATE ROLE %s_%d LOGIN PASSWORD '%s' VALID UNTIL '2099-01-01' IN ROLE %s", group, n.Add(1), verifier, group)).ReadAll()
						if err != nil {
							b.Error(err)
						}
						root <- c
					})
					s.server.Exec(b, fmt.Sprintf("DO $$ DECLARE r text; BEGIN FOR r IN SELECT rolname FROM pg_roles WHERE starts_with(rolname, '%s_') LOOP EXECUTE 'DROP ROLE ' || r; END LOOP; END $$", group))
				})
			}
		}
	}
}

// spread runs f b.N times from several goroutines and reports the rate.
func spread(b *testing.B, callers int, f func()) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				f()
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "created/s")
}

// BenchmarkFlat compares the rate of the first issues with that of issues over
// 5,000 live credentials, for the set-ups whose cost must not grow.
func BenchmarkFlat(b *testing.B) {
	const live, probe = 5000, 500
	for _, w := range []way{definer, makers, createRole} {
		b.Run("pg=17/root="+string(w), func(b *testing.B) {
			for range b.N {
				s := newSource(b, pgtest.Shared(b, 17), w)
				e := s.open(b, map[string]any{"scram_iterations": 1})
				role := parseRole(b, readItems)
				recipes := []engine.Recipe{issue(b, e, role).recipe}
				rate := func(n int) float64 {
					start := time.Now()
					for range n {
						recipes = append(recipes, issue(b, e, role).recipe)
					}
					return float64(n) / time.Since(start).Seconds()
				}
				first := rate(probe)
				rate(live - probe)
				b.ReportMetric(rate(probe)/first, "last/first")
				start := time.Now()
				for i, r := range e.RevokeBatch(b.Context(), recipes) {
					if r.Err != nil || r.Residue != "" {
						b.Errorf("revoke %d: %v %s", i, r.Err, r.Residue)
					}
				}
				b.ReportMetric(float64(len(recipes))/time.Since(start).Seconds(), "revoked/s")
			}
		})
	}
}
