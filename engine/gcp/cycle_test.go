package gcp_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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
	revoke := func(r engine.Recipe) {
		for tried := 0; ; tried++ {
			outcome, err := e.Revoke(t.Context(), r)
			if err == nil && outcome.Residue == "" {
				return
			}
			if tried == 100 {
				t.Errorf("revoke: %+v, %v", outcome, err)
				return
			}
		}
	}
	var wg sync.WaitGroup
	failed := 0
	var unknown []engine.Recipe
	for caller := range callers {
		wg.Go(func() {
			for i := range cycles / callers {
				p := plan(t, e, roles[(caller+i)%len(roles)])
				r, err := e.Issue(t.Context(), p)
				if err == nil {
					revoke(r)
					continue
				}
				mu.Lock()
				failed++
				if engine.KindOf(err) == engine.Uncertain { // else nothing is left, the engine says
					unknown = append(unknown, p.Recipe)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.SetFault(nil)
	s.Advance(2 * time.Second) // whoever manages leases looks when all is known
	for _, r := range unknown {
		revoke(r)
	}
	t.Logf("%d cycles, %d of which failed to make a credential, %d of them uncertain, with %d faults", cycles, failed, len(unknown), injected)
	if after := s.state(); after != before {
		t.Errorf("something is left:\n%s\nbefore it was\n%s", after, before)
	}
}

// Others change the same policy between reading and writing: nobody's change is lost, theirs or ours.
func TestParallelBindings(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	first, second := s.open(t, nil), s.open(t, nil)
	var granted atomic.Int64
	s.SetFault(func(q gcptest.Request) gcptest.Fault {
		if strings.HasSuffix(q.Method, ".setIamPolicy") && rand.N(3) == 0 {
			s.Grant(project, appRole, fmt.Sprintf("user:%d@example.com", granted.Add(1)))
		}
		return gcptest.Fault{}
	})
	var wg sync.WaitGroup
	for caller, e := range []engine.Engine{first, first, second, second} {
		wg.Go(func() {
			for i := range 8 {
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
	wg.Wait()
	members := s.Members()[project]
	for i := range granted.Load() {
		if !slices.Contains(members, fmt.Sprintf("user:%d@example.com", i+1)) {
			t.Errorf("the binding of user %d is lost", i+1)
		}
	}
	if want := int(granted.Load()) + 3; len(members) != want {
		t.Errorf("%d members, not %d", len(members), want)
	}
	if granted.Load() == 0 {
		t.Error("nobody changed anything: this test has proved nothing")
	}
	t.Logf("%d changes by others, %d attempts", granted.Load(), s.Calls("cloudresourcemanager.projects.setIamPolicy"))
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
