package aws_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/test/awstest"
)

// TestNothingIsLeft makes and ends users while AWS throttles, fails and loses answers, at any step. A
// lease manager's part is played as the contract says: what failed for certain left nothing, what is
// uncertain is looked up by its name and revoked, and a revocation is repeated until it is done. Then
// moto itself, which is not asked through the front, has none of the users, keys and policies.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	cycles, workers := 24, 4
	if os.Getenv("SCAIVAULT_TEST_FULL") != "" {
		cycles = 1000
	}
	a := newAccount(t)
	e := a.open(t)
	role := a.roleOf(t, "iam_user", map[string]any{"policy_arns": []string{"arn:aws:iam::aws:policy/ReadOnlyAccess"}})
	var mu sync.Mutex
	random, faults := rand.New(rand.NewPCG(1, 2)), map[awstest.Fault]int{} // a schedule that can be repeated
	a.front.SetFault(func(string) awstest.Fault {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(12) != 0 {
			return awstest.None
		}
		f := []awstest.Fault{awstest.Throttle, awstest.Fail, awstest.FailAfter, awstest.LoseBefore, awstest.LoseAfter}[random.IntN(5)]
		faults[f]++
		return f
	})
	var work sync.WaitGroup
	turns := make(chan int, cycles)
	for i := range cycles {
		turns <- i
	}
	close(turns)
	worked, prefix := 0, "v_reader_"
	for range workers {
		work.Go(func() {
			for range turns {
				if cycle(t, e, role) {
					mu.Lock()
					worked++
					mu.Unlock()
				}
			}
		})
	}
	work.Wait()
	a.front.SetFault(nil)
	t.Logf("%d of %d credentials were issued; faults: %v", worked, cycles, faults)
	if worked == 0 || len(faults) != 5 && cycles >= 1000 {
		t.Errorf("%d of %d were issued, with the faults %v", worked, cycles, faults)
	}
	users, keys, policies := a.server.Left(t, prefix)
	for _, name := range users {
		if a.namer.Ours(name) {
			t.Errorf("%s was left", name)
		}
	}
	t.Logf("moto has %d users of all tests, with %d keys and %d policies", len(users), keys, policies)
	if listed, err := e.List(t.Context()); err != nil || len(listed) > 0 {
		t.Errorf("%d users are listed, %v", len(listed), err)
	}
}

// cycle is one credential's; it tells whether it was issued.
func cycle(t *testing.T, e engine.Engine, role engine.Role) bool {
	p := plan(t, e, role, time.Hour)
	recipe, err := e.Issue(t.Context(), p)
	if err != nil {
		switch engine.KindOf(err) {
		case engine.Uncertain:
			recipe = p.Recipe
		case engine.Refused, engine.Busy, engine.Unreachable, engine.Misconfigured:
			recipe = nil
		default:
			t.Errorf("issue: %v", err)
			return false
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); recipe != nil; {
		if _, err := e.Revoke(t.Context(), recipe); err == nil {
			break
		} else if time.Now().After(deadline) || strings.Contains(reason(err), "deadline") {
			t.Errorf("revoke: %v", err)
			break
		}
	}
	return err == nil
}
