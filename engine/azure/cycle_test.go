package azure_test

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/azuretest"
)

// chance is how many of a hundred requests meet each kind of failure.
const chance = 3

// TestCycles issues and revokes while requests fail in every way, and then counts what is left: not
// through the services. A thousand times with SCAIVAULT_TEST_FULL=1.
func TestCycles(t *testing.T) {
	t.Parallel()
	cycles, workers := 40, 20
	if os.Getenv("SCAIVAULT_TEST_FULL") != "" {
		cycles = 1000
	}
	s := newSource(t, azuretest.WithLag(time.Second, 50*time.Millisecond))
	objectID, _ := s.NewApplication("somebody's", s.root.PrincipalID)
	e := s.open(t, map[string]any{"token_lifetime": "1s", "max_open_connections": 24})
	roles := []engine.Role{
		s.reader(t),
		parseRole(t, `{"azure_roles": [{"role_name": "Reader"}], "permanently_delete": true}`),
		parseRole(t, `{"application_object_id": "`+objectID+`"}`),
	}
	before := s.Left()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	dice := rand.New(rand.NewPCG(seed, 1))
	s.Fail(func(string) azuretest.Fault { // under the server's lock
		switch roll := dice.IntN(100); {
		case roll < chance:
			return azuretest.Fault{Throttle: true, RetryAfter: 0}
		case roll < 2*chance:
			return azuretest.Fault{Before: true}
		case roll < 3*chance:
			return azuretest.Fault{After: true}
		case roll < 4*chance:
			return azuretest.Fault{Lost: true}
		}
		return azuretest.Fault{}
	})
	var mu sync.Mutex
	var open []engine.Recipe // what a lease would still be revoked by
	issued := 0
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := worker; i < cycles; i += workers {
				p := plan(t, e, roles[i%len(roles)])
				recipe, err := e.Issue(t.Context(), p)
				kind := engine.KindOf(err)
				if kind == engine.Uncertain {
					recipe = p.Recipe
				} else if err != nil {
					continue // nothing is left, it says
				}
				_, err = e.Revoke(t.Context(), recipe)
				mu.Lock()
				if kind == 0 {
					issued++
				}
				if err != nil || kind == engine.Uncertain { // what is not shown yet is looked at again, as a lease is
					open = append(open, recipe)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.Fail(nil)
	s.Advance(time.Minute)
	for _, recipe := range open {
		revoke(t, e, recipe)
	}
	if issued < cycles/10 {
		t.Errorf("only %d of %d were issued", issued, cycles)
	}
	s.spotless(t, before)
	t.Logf("%d of %d issued, %d revoked later, %d requests; left are %s", issued, cycles, len(open), s.Served(), s.Left())
}
