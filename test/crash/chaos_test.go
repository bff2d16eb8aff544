package crash_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/proxy"
)

// faults are what networks do; n is a number of bytes.
var faults = []struct {
	name string
	set  func(p *proxy.Proxy, n int)
}{
	{"slow", func(p *proxy.Proxy, n int) { p.Delay(time.Duration(n) * time.Millisecond / 4) }},
	{"cut after n bytes of requests", func(p *proxy.Proxy, n int) { p.CutAfterRequest(n) }},
	{"cut after n bytes of answers", func(p *proxy.Proxy, n int) { p.CutAfterAnswer(n) }},
	{"answers lost, COMMIT done", func(p *proxy.Proxy, _ int) { p.LoseAnswers() }},
	{"half-open", func(p *proxy.Proxy, _ int) { p.HalfOpen() }},
	{"black hole", func(p *proxy.Proxy, _ int) { p.BlackHole() }},
	{"held, delivered late", func(p *proxy.Proxy, _ int) { p.Hold() }},
	{"refused", func(p *proxy.Proxy, _ int) { p.Refuse(); p.CutAll() }},
}

// sparedFor is after how many steps another node is the one that nothing happens
// to, so that at any moment one of several is up.
const sparedFor = 20

// disturb goes through the schedule, and heals everything at its end.
func (w *world) disturb(t *testing.T, p plan) {
	t.Helper()
	s := schedule{rand.New(rand.NewPCG(p.seed, 0)), p.odds}
	var under sync.WaitGroup
	for k, begun := 0, time.Now(); time.Since(begun) < p.lasts; k++ {
		next := s.next()
		time.Sleep(next.after)
		under.Go(func() {
			for _, victim := range w.victims(next, k/sparedFor) {
				if w.suffer(t, next, victim) {
					return
				}
			}
		})
	}
	under.Wait()
}

// victims are the node that the step chose and, where something is being done to
// that already, the other one that is not spared.
func (w *world) victims(s step, turn int) []*node {
	if len(w.nodes) == 1 {
		return w.nodes
	}
	return []*node{w.nodes[(turn+1+s.victim)%len(w.nodes)], w.nodes[(turn+2-s.victim)%len(w.nodes)]}
}

// suffer does one step, unless it meets another of its kind at the node.
func (w *world) suffer(t *testing.T, s step, n *node) (done bool) {
	t.Helper()
	ill := func(p *proxy.Proxy) {
		faults[s.fault].set(p, s.bytes)
		time.Sleep(s.lasts)
		p.Pass()
	}
	switch s.kind {
	case killNode:
		done = n.suffer(&n.process, func() { n.kill(t, s.lasts) })
	case shortPause, longPause:
		done = n.suffer(&n.process, func() { n.pause(t, s.lasts) })
	case loseStore:
		done = n.suffer(&n.network, func() { ill(n.store) })
	case loseSource:
		done = n.suffer(&n.network, func() { ill(n.source) })
	case loseSources:
		done = w.all(func(n *node) bool { return n.suffer(&n.network, func() { ill(n.source) }) })
	case killDatabase:
		done = w.withoutDatabase(func() {
			w.database.Kill(t)
			time.Sleep(s.lasts)
			w.database.Start(t)
		})
	}
	if done {
		w.count(s)
	}
	return done
}

// all does something to all nodes at once, and tells whether it was done to any.
func (w *world) all(do func(n *node) bool) bool {
	var done atomic.Bool
	var nodes sync.WaitGroup
	for _, n := range w.nodes {
		nodes.Go(func() {
			if do(n) {
				done.Store(true)
			}
		})
	}
	nodes.Wait()
	return done.Load()
}

func (w *world) withoutDatabase(do func()) bool {
	if !w.away.CompareAndSwap(false, true) {
		return false
	}
	do()
	w.returned.Store(time.Now().UnixNano())
	w.away.Store(false)
	return true
}

// count notes what was done.
func (w *world) count(s step) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[s.kind]++
	if s.kind == loseStore || s.kind == loseSource || s.kind == loseSources {
		w.cuts[faults[s.fault].name]++
	}
}
