package gcp_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/test/gcptest"
)

// TestCycles makes and revokes credentials of all kinds from several callers while requests fail
// before and after their effect, answers are lost, and Google throttles. Afterwards the server's own
// state has nothing of them: no key but the root's, no account, no binding, and all of the others'.
func TestCycles(t *testing.T) {
	t.Parallel()
	cycles, callers := 40, 4
	if full() {
		cycles = 1000
	}
	s := newSource(t)
	s.SetLag(2*time.Second, time.Second)
	before := s.state()
	e := s.open(t, map[string]any{"max_open_connections": 8})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	chance := rand.New(rand.NewPCG(seed, 0))
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return chance.IntN(n)
	}
	injected := 0
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if q.Method == "oauth2.token" {
			return gcptest.Fault{}
		}
		f := []gcptest.Fault{
			{Status: http.StatusTooManyRequests, Reason: "RESOURCE_EXHAUSTED"},
			{Status: http.StatusServiceUnavailable, Reason: "UNAVAILABLE"},
			{Status: http.StatusInternalServerError, Reason: "INTERNAL", After: true},
			{Status: http.StatusForbidden, Reason: "PERMISSION_DENIED"},
			{Lose: true},
		}
		at := draw(8 * len(f))
		if at >= len(f) {
			return gcptest.Fault{}
		}
		mu.Lock()
		injected++
		mu.Unlock()
		return f[at]
	})
	roles := []string{keyOfAnAccount, keyOfItsOwn, googleKeyOfOwn, tokenOfItsOwn, tokenOfAnAccount}
	var wg sync.WaitGroup
	failed := 0
	for caller := range callers {
		wg.Go(func() {
			for i := range cycles / callers {
				p := plan(t, e, roles[(caller+i)%len(roles)])
				r, err := e.Issue(t.Context(), p)
				if err != nil {
					mu.Lock()
					failed++
					mu.Unlock()
					if engine.KindOf(err) != engine.Uncertain {
						continue // nothing is left, the engine says
					}
					r = p.Recipe
				}
				for tried := 0; ; tried++ {
					outcome, err := e.Revoke(t.Context(), r)
					if err == nil && outcome.Residue == "" {
						break
					}
					if tried == 100 {
						t.Errorf("revoke: %+v, %v", outcome, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	s.SetFault(nil)
	t.Logf("%d cycles, %d of which failed to make a credential, with %d faults", cycles, failed, injected)
	if after := s.state(); after != before {
		t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
	}
}

// Others change the same policies all the while: nobody's change is lost, theirs or ours, and audit
// settings and conditions stay.
func TestParallelBindings(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	first, second := s.open(t, nil), s.open(t, nil)
	const rounds = 8
	var wg sync.WaitGroup
	for caller, e := range []engine.Engine{first, first, second, second} {
		wg.Go(func() {
			for i := range rounds {
				p, r := issue(t, e, tokenOfItsOwn)
				if h, err := s.login(t.Context(), p.Data); err != nil || !h.Works(t.Context()) {
					t.Errorf("caller %d, round %d: the credential does not work: %v", caller, i, err)
				}
				if _, err := e.Revoke(t.Context(), r); err != nil {
					t.Errorf("revoke: %v", err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var others sync.WaitGroup
	granted := 0
	others.Go(func() {
		for ; ; granted++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				s.Grant(project, appRole, fmt.Sprintf("user:%d@example.com", granted))
			}
		}
	})
	wg.Wait()
	close(stop)
	others.Wait()
	members := s.Members()[project]
	for i := range granted {
		if !slices.Contains(members, fmt.Sprintf("user:%d@example.com", i)) {
			t.Errorf("the binding of user %d is lost", i)
		}
	}
	if want := granted + 3; len(members) != want {
		t.Errorf("%d members, not %d: %s", len(members), want, strings.Join(members, " "))
	}
	if conflicts := s.Calls("cloudresourcemanager.projects.setIamPolicy") - 2*4*rounds; conflicts <= 0 {
		t.Error("there was no conflict: this test has proved nothing")
	} else {
		t.Logf("%d conflicts with %d changes by others", conflicts, granted)
	}
}

// BenchmarkIssue is one credential made and revoked against a server that answers at once.
func BenchmarkIssue(b *testing.B) {
	s := newSource(b)
	e := s.open(b, nil)
	role := parseRole(b, keyOfAnAccount)
	for b.Loop() {
		p, err := e.Plan(b.Context(), engine.PlanRequest{LeaseID: ident.New(ident.Lease), RoleName: "r", Role: role, ExpiresAt: time.Now().Add(time.Hour)})
		if err != nil {
			b.Fatal(err)
		}
		p.Deadline = time.Now().Add(time.Minute)
		r, err := e.Issue(b.Context(), p)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Revoke(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
