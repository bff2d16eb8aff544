package lease_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
)

var (
	oneSeed  = flag.Uint64("seed", 0, "run the simulation of this seed only")
	seeds    = flag.Int("seeds", 0, "run this many seeds, beginning at -first; 0: as many as fit into -simtime")
	first    = flag.Uint64("first", 1, "the first seed")
	simTime  = flag.Duration("simtime", 30*time.Second, "how long to go on with seeds when -seeds is 0")
	simQuiet = 25 * time.Minute // covers the longest backoff, both late looks after it, and once more
)

// TestSimulation runs random operations of several callers under random faults of sources, store
// and process, then a quiet phase in which everything due must get done, then until everything has
// ended. The seed decides operations and faults; which of two goroutines runs first at one moment
// the scheduler decides, so a seed that failed fails again, but not every time.
func TestSimulation(t *testing.T) {
	from, err := template()
	if err != nil {
		t.Fatal(err)
	}
	if *oneSeed != 0 {
		simulate(t, from, *oneSeed)
		return
	}
	t.Parallel()
	var next, ran atomic.Uint64
	next.Store(*first)
	begun := time.Now()
	more := func(seed uint64) bool {
		if *seeds > 0 {
			return seed < *first+uint64(*seeds)
		}
		return time.Since(begun) < *simTime
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := next.Add(1) - 1; more(seed) && !t.Failed(); seed = next.Add(1) - 1 {
				simulate(t, from, seed)
				ran.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds in %s, met %v", ran.Load(), time.Since(begun).Round(time.Second), met.counts)
}

func simulate(t *testing.T, from string, seed uint64) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		// On the memory file system, where there is one: the laws do not depend on the disk here.
		base := ""
		if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
			base = "/dev/shm"
		}
		dir, err := os.MkdirTemp(base, "lease-sim-") //nolint:usetesting // t.TempDir does not choose the file system
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		copyDir(t, from, dir)
		synctest.Test(t, func(t *testing.T) {
			s := newSim(open(t, dir), seed)
			s.run()
			if t.Failed() {
				t.Logf("repeat with: go test ./internal/lease -run TestSimulation -seed %d", seed)
			}
		})
	})
}

// met counts what the seeds have met: a simulation in which something never happens proves nothing
// of it.
var met = tally{counts: map[string]int{}}

type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[what]++
}

const atTheEnd = "at the end"

// sim is one run.
type sim struct {
	w       *world
	present atomic.Pointer[process]
	callers []*access.Caller
	quiet   atomic.Bool

	mu      sync.Mutex
	rng     *rand.Rand
	down    map[string]time.Time // until when a source cannot be reached, by host
	given   []*given
	prefix  map[string]bool // engines whose prefix somebody revoked
	byOwner map[string]bool // identities whose leases somebody revoked
}

// given is a credential that a caller got.
type given struct {
	*api.Credential
	owner string
	ends  time.Time // the end last answered, in the time that truly passes
	moved bool      // a renewal was not answered: nobody knows the end
	asked bool      // its owner asked for its end
	dead  bool      // its end was answered
}

func newSim(w *world, seed uint64) *sim {
	s := &sim{w: w, rng: rand.New(rand.NewPCG(seed, 1)), down: map[string]time.Time{},
		prefix: map[string]bool{}, byOwner: map[string]bool{}}
	s.callers = []*access.Caller{w.caller("app"), w.caller("other"), w.caller("admin")}
	s.present.Store(w.process)
	w.one.SetFault(func(c leasetest.Call) leasetest.Fault { return s.fault("one", c) })
	w.two.SetFault(func(c leasetest.Call) leasetest.Fault { return s.fault("two", c) })
	return s
}

func (s *sim) n(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rng.IntN(n)
}

// within is a random time, most often short.
func (s *sim) within(d time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.rng.Float64()
	return time.Duration(f * f * float64(d))
}

// fault is what happens to a call at a source.
func (s *sim) fault(host string, c leasetest.Call) leasetest.Fault {
	if c.Op == "revoke" {
		s.checkNotEarly(c.Name)
	}
	if s.quiet.Load() {
		return leasetest.Fault{}
	}
	s.mu.Lock()
	until := s.down[host]
	s.mu.Unlock()
	if time.Now().Before(until) {
		return leasetest.Fault{Kind: leasetest.Unreachable, Delay: s.within(2 * time.Second)}
	}
	f := leasetest.Fault{Delay: s.within(200 * time.Millisecond), Answer: s.within(200 * time.Millisecond)}
	if s.n(8) == 0 {
		f.Delay, f.Answer = s.within(8*time.Second), s.within(8*time.Second)
	}
	switch roll := s.n(100); {
	case roll < 3:
		f.Delay = s.within(20 * time.Second)
	case roll < 6:
		f.Kind = leasetest.Refuse
	case roll < 9:
		f.Kind = leasetest.Unreachable
	case roll < 12:
		f.Kind = leasetest.LoseBefore
	case roll < 17:
		f.Kind = leasetest.LoseAfter
	case roll < 21:
		f = leasetest.Fault{Kind: leasetest.Late, Delay: s.within(40 * time.Second)}
	case roll < 24 && c.Op == "issue":
		f.Kind = leasetest.Taken
	case roll < 27 && c.Op == "issue":
		f.Kind = leasetest.HalfMade
	case roll < 28:
		f.Kind = leasetest.Busy
	}
	return f
}

func (s *sim) run() {
	s.storeFaults()
	var wg sync.WaitGroup
	for k := range s.callers {
		wg.Go(func() { s.use(s.callers[k]) })
	}
	wg.Go(s.harm)
	wg.Wait()

	s.quiet.Store(true)
	s.calm()
	s.w.process = s.present.Load()
	s.w.jump(0)
	time.Sleep(simQuiet)
	s.check("after the quiet phase")
	time.Sleep(70 * time.Minute)
	s.check(atTheEnd)
	s.checkAllEnded()
	p := s.present.Load()
	s.w.process = p
	s.w.end()
	if n := s.w.one.Open() + s.w.two.Open(); n != 0 {
		s.w.t.Errorf("%d connections to the sources are still open", n)
	}
}

// storeFaults makes some writes fail, some of them although they are done.
func (s *sim) storeFaults() {
	m := s.present.Load().store
	m.mu.Lock()
	defer m.mu.Unlock()
	lose := func(per int) func(string) error {
		return func(string) error {
			if !s.quiet.Load() && s.n(per) == 0 {
				return lostStore()
			}
			return nil
		}
	}
	m.before, m.after = lose(60), lose(120)
}

func (s *sim) calm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.down)
}

// harm is what happens to the world: sources that vanish, are exchanged for a while, a process that
// is killed and starts again, at a random moment or at a random write.
func (s *sim) harm() {
	for range 4 {
		time.Sleep(s.within(40 * time.Second))
		host, src := "one", s.w.one
		if s.n(2) == 0 {
			host, src = "two", s.w.two
		}
		switch s.n(7) {
		case 6: // the store's clock jumps by years; those of the sources do not
			met.add("clock jump")
			s.w.process = s.present.Load()
			s.w.jump(time.Duration(s.n(5)-2) * 3 * 365 * 24 * time.Hour)
		case 0, 1:
			s.mu.Lock()
			s.down[host] = time.Now().Add(time.Duration(s.rng.IntN(60)) * time.Second)
			s.mu.Unlock()
		case 2:
			id, accounts := src.Replace("stranger", nil)
			time.Sleep(s.within(30 * time.Second))
			src.Replace(id, accounts)
		case 3:
			s.crash(s.within(5 * time.Second))
		default:
			s.crashAtWrite()
		}
	}
}

func (s *sim) crash(pause time.Duration) {
	p := s.present.Load()
	p.die()
	met.add("kill")
	s.restart(p, pause)
}

// crashAtWrite kills the process before or just after one of its next writes.
func (s *sim) crashAtWrite() {
	p := s.present.Load()
	after := s.n(2) == 0
	var left atomic.Int64
	left.Store(int64(s.n(8)) + 1)
	died := make(chan struct{})
	p.store.mu.Lock()
	usual := p.store.before
	hook := func(kind string) error {
		if left.Add(-1) == 0 {
			p.die()
			close(died)
			return lostStore()
		}
		return usual(kind)
	}
	if after {
		p.store.after = hook
	} else {
		p.store.before = hook
	}
	p.store.mu.Unlock()
	select {
	case <-died:
		met.add("kill at a write")
	case <-time.After(20 * time.Second):
		p.die()
	}
	s.restart(p, s.within(5*time.Second))
}

func (s *sim) restart(p *process, pause time.Duration) {
	time.Sleep(pause)
	s.w.process = p
	s.w.restart()
	s.present.Store(s.w.process)
	s.storeFaults()
}

// use is one caller at work.
func (s *sim) use(as *access.Caller) {
	for range 10 {
		time.Sleep(s.within(12 * time.Second))
		p, c := s.present.Load(), *as
		engineName := []string{"one", "two"}[s.n(2)]
		wait := s.within(20 * time.Second)
		switch roll := s.n(100); {
		case roll < 55:
			s.issue(p, &c, engineName)
		case roll < 68:
			s.renew(p, &c)
		case roll < 82:
			s.revoke(p, &c, wait)
		case roll < 90:
			if g := s.pick(c.Identity); g != nil {
				s.ask(g)
				p.leases.Undelivered(context.Background(), tenant, g.LeaseID)
			}
		case c.Identity != "user:admin":
			s.issue(p, &c, engineName)
		case roll < 95:
			s.mu.Lock()
			s.prefix[engineName] = true
			s.mu.Unlock()
			before := s.living(func(g *given) bool { return g.Engine == engineName })
			result, err := p.leases.RevokePrefix(context.Background(), &c, engineName, wait)
			if err == nil && result.Pending == 0 {
				s.answeredDead(before)
			}
		default:
			who := []string{"user:app", "user:other"}[s.n(2)]
			s.mu.Lock()
			s.byOwner[who] = true
			s.mu.Unlock()
			before := s.living(func(g *given) bool { return g.owner == who })
			result, err := p.leases.RevokeBy(context.Background(), &c, api.RevokeFilterRequest{IdentityID: who}, wait)
			if err == nil && result.Pending == 0 {
				s.answeredDead(before)
			}
		}
	}
}

func (s *sim) issue(p *process, c *access.Caller, engineName string) {
	ttl := api.Duration(time.Duration(20+s.n(900)*(1+3*s.n(2))) * time.Second)
	ctx := context.Background()
	if s.n(10) == 0 { // a caller that goes away
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.within(time.Second))
		defer cancel()
	}
	made, err := p.leases.Issue(ctx, c, engineName, "sim", api.CredsRequest{TTL: &ttl}, nil)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, &given{Credential: made, owner: c.Identity, ends: p.clock.Local(made.ExpiresAt)})
}

func (s *sim) renew(p *process, c *access.Caller) {
	g := s.pick(c.Identity)
	if g == nil {
		return
	}
	d := api.Duration(time.Duration(10+s.n(900)*(1+3*s.n(2))) * time.Second)
	req := api.RenewRequest{Increment: &d}
	if s.n(3) == 0 {
		req = api.RenewRequest{TTL: &d}
	}
	l, err := p.leases.Renew(context.Background(), c, g.LeaseID, req)
	if err != nil {
		s.mu.Lock()
		g.moved = true
		s.mu.Unlock()
		return
	}
	if l.ExpiresAt.After(l.MaxExpiresAt) {
		s.w.t.Errorf("%s renewed past its longest life", g.LeaseID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	g.ends = p.clock.Local(l.ExpiresAt)
}

func (s *sim) revoke(p *process, c *access.Caller, wait time.Duration) {
	g := s.pick(c.Identity)
	if g == nil {
		return
	}
	s.ask(g)
	pending, err := p.leases.Revoke(context.Background(), c, g.LeaseID, wait)
	if err == nil && pending == nil {
		s.answeredDead([]*given{g})
	}
}

// answeredDead notes whose death was answered: they must be dead from now on.
func (s *sim) answeredDead(all []*given) {
	for _, g := range all {
		s.mu.Lock()
		g.dead = true
		s.mu.Unlock()
		if a := s.w.at(g.Engine).Account(g.Data["username"]); a != nil {
			s.w.t.Errorf("%s was answered to be dead, and is at the source: %+v", g.LeaseID, a)
		}
	}
}

func (s *sim) ask(g *given) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.asked = true
}

func (s *sim) pick(owner string) *given {
	mine := s.living(func(g *given) bool { return g.owner == owner })
	if len(mine) == 0 {
		return nil
	}
	return mine[s.n(len(mine))]
}

func (s *sim) living(want func(*given) bool) (found []*given) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.given {
		if want(g) {
			found = append(found, g)
		}
	}
	return found
}
