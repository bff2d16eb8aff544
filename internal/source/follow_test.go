package source_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/policy"
	"github.com/scaivault/scaivault/internal/source"
)

// reconnecting makes every issuance and look log in anew, with the root that its connection was opened with.
func (w *world) reconnecting() {
	w.host.SetFault(func(c leasetest.Call) leasetest.Fault {
		if c.Op == "issue" || c.Op == "check" {
			return leasetest.Fault{Kind: leasetest.Reconnect}
		}
		return leasetest.Fault{}
	})
}

// opened wants a handle of what is open.
func (w *world) opened() (*source.Engine, *source.Handle) {
	w.Helper()
	e, err := w.sources.Engine(w.store.Config(), tenant, "one")
	w.must(err)
	h, err := w.sources.Acquire(context.Background(), e)
	w.must(err)
	return e, h
}

func refusal() error {
	return &engine.Error{Kind: engine.Misconfigured, Reason: "root's password is not accepted"}
}

// wantAnswer is wantCode of what a caller hears.
func (w *world) wantAnswer(err error, want fault.Code) {
	w.Helper()
	if err != nil {
		err = source.Fault("one", err)
	}
	w.wantCode(err, want)
}

// A root that another node rotates twice within a moment is followed both times.
func TestFollowedTwiceAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.reconnecting()
		w.mustUse()
		other := w.another()
		for range 3 {
			other.mustRotate()
			w.mustUse()
		}
		w.wantRoot(4)
	})
}

// Whenever another node rotates the root once more while the source is opened with the last one.
func TestFollowedAtAnyMoment(t *testing.T) {
	inWorld(t, func(w *world) {
		w.reconnecting()
		w.mustUse()
		other := w.another()
		for moment, passed := 1, 1; moment <= passed; moment++ {
			other.mustRotate()
			passed = 0
			pass := func() {
				if passed++; passed == moment {
					other.mustRotate()
				}
			}
			w.opening, w.store.read = pass, func() error { pass(); return nil }
			e, h := w.opened()
			next, err := w.sources.Fresh(context.Background(), e, h, refusal())
			w.must(err)
			w.opening, w.store.read = nil, nil
			next.Release()
			h.Release()
		}
	})
}

// Who only looks at an engine follows its root, too: to a version of another node, and to the candidate
// of one that died before the source answered.
func TestHealthFollows(t *testing.T) {
	inWorld(t, func(w *world) {
		w.reconnecting()
		w.mustUse()
		other := w.another()
		healthy := func() {
			w.Helper()
			if h := w.health(); h.Status != api.EngineHealthy {
				w.Errorf("%+v", h)
			}
		}
		other.mustRotate()
		healthy()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter})
		w.wantCode(other.rotate(), fault.EngineUnavailable)
		w.reconnecting()
		healthy()
		w.wantRoot(3)
		w.host.AcceptRoot("by-hand")
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
	})
}

// A candidate that was not at the source when it was tried arrives there within the same second.
func TestFollowedToALateCandidate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		other := w.another()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Late, Delay: 20*time.Second + 300*time.Millisecond})
		w.wantCode(other.rotate(), fault.EngineUnavailable) // after 20 seconds
		w.reconnecting()
		e, h := w.opened()
		defer h.Release()
		next, err := w.sources.Fresh(context.Background(), e, h, refusal())
		w.must(err)
		next.Release()
		w.wantRoot(1)
		time.Sleep(500 * time.Millisecond)
		w.mustUse()
		w.wantRoot(2)
	})
}

// One caller opens the source with the root that holds now, another has the engine opened anew
// altogether: that there is nothing newer to open says nothing to those who waited for the first.
func TestFollowedWhileDropped(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		e, h := w.opened()
		defer h.Release()
		w.another().mustRotate()
		w.host.SetFault(func(c leasetest.Call) leasetest.Fault {
			if c.Op == "open" {
				return leasetest.Fault{Delay: time.Second}
			}
			return leasetest.Fault{}
		})
		var once sync.Once
		w.asked = func() { once.Do(func() { w.sources.Reopen(e.ID) }) } // when it is open, and others wait
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				next, err := w.sources.Fresh(context.Background(), e, h, refusal())
				if err != nil {
					w.Errorf("the root was rotated, and the caller hears: %v", err)
					return
				}
				next.Release()
			})
		}
		callers.Wait()
	})
}

// A refusal is told to callers only when the store has said that there is no other root: a store
// that is lost at any read is the store's error.
func TestFollowedWithoutTheStore(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		moved func(w *world) // the root at the source, behind the back of what is open
	}{
		{"to a version", func(w *world) { w.another().mustRotate() }},
		{"to a candidate", func(w *world) {
			w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter})
			w.wantCode(w.another().rotate(), fault.EngineUnavailable)
		}},
		{"to a former version", func(w *world) {
			_, before := w.root()
			w.mustRotate()
			w.host.AcceptRoot(before)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.mustUse()
				c.moved(w)
				w.reconnecting()
				e, h := w.opened()
				defer h.Release()
				for lost := 1; ; lost++ {
					reads := 0
					w.store.read = func() error {
						if reads++; reads == lost {
							return lostStore()
						}
						return nil
					}
					next, err := w.sources.Fresh(context.Background(), e, h, refusal())
					w.store.read = nil
					if err == nil {
						next.Release()
						if lost < 3 {
							t.Errorf("it was opened without read %d", lost)
						}
						break
					}
					w.wantAnswer(err, fault.ServiceUnavailable)
					if reads < lost {
						t.Fatalf("nothing was lost, and the caller hears: %v", err)
					}
				}
				w.mustUse()
			})
		})
	}
}

// Why no other root could be tried is what the caller hears, not the refusal of the former.
func TestFollowedWithoutTheSource(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		e, h := w.opened()
		defer h.Release()
		w.another().mustRotate()
		w.host.SetFault(func(leasetest.Call) leasetest.Fault { return leasetest.Fault{Kind: leasetest.Unreachable} })
		for range 3 {
			_, err := w.sources.Fresh(context.Background(), e, h, refusal())
			w.wantAnswer(err, fault.EngineUnavailable)
		}
	})
}

// A source that was put back while it is in use accepts the root before the last rotation.
func TestFollowedToAFormerRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.reconnecting()
		w.mustUse()
		_, before := w.root()
		w.mustRotate()
		w.mustUse()
		w.host.AcceptRoot(before)
		w.mustUse()
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
	})
}

// A source that refuses for another reason than its root is opened again once a second, not for every
// request.
func TestRefusedForAnotherReason(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		opened := w.host.Count("open")
		for range 10 {
			e, h := w.opened()
			err := w.sources.Follow(context.Background(), e, h, refusal)
			h.Release()
			w.wantAnswer(err, fault.EngineError)
		}
		if n := w.host.Count("open") - opened; n != 1 {
			w.Errorf("it was opened %d times", n)
		}
	})
}

// A candidate that may arrive at any time does not make such a source one whose root is rotated.
func TestRefusedBesideACandidate(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.another().rotate(), fault.EngineUnavailable)
		e, h := w.opened()
		defer h.Release()
		uses := 0
		err := w.sources.Follow(context.Background(), e, h, func() error {
			uses++
			return refusal()
		})
		w.wantAnswer(err, fault.EngineError)
		if uses != 2 {
			w.Errorf("it was used %d times", uses)
		}
	})
}

// Between the source's yes to a candidate and the look at what became of it, another node makes it a
// version and rotates once more: what was opened is not that newest version.
func TestCandidateOvertaken(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		other := w.another()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter})
		w.wantCode(other.rotate(), fault.EngineUnavailable)
		w.reconnecting()
		opened := w.host.Count("open")
		w.store.before = func() {
			if w.host.Count("open") == opened+2 { // with the version, with the candidate
				w.store.before = nil
				other.mustUse()
				other.mustRotate()
			}
		}
		e, h := w.opened()
		defer h.Release()
		next, err := w.sources.Fresh(context.Background(), e, h, refusal())
		w.must(err)
		defer next.Release()
		if w.store.before != nil {
			w.Fatal("nothing came between")
		}
		w.must(w.issue(next))
		w.wantRoot(3)
	})
}

// While a node proves the root that it has in doubt, another rotates it: what the store had before is
// refused, and what it has now works.
func TestProofOvertaken(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.reconnecting()
		other := w.another()
		w.opening = func() {
			w.opening = nil
			other.mustRotate()
		}
		_, h := w.opened()
		defer h.Release()
		w.must(w.issue(h))
		w.wantRoot(2)
	})
}

// The same while an engine is made on that root.
func TestEngineMadeInARotation(t *testing.T) {
	inWorld(t, func(w *world) {
		other := w.another()
		w.opening = func() {
			w.opening = nil
			other.mustRotate()
		}
		w.kind.Hosts["again"] = w.host
		w.grant("again")
		w.engine("again")
	})
}

// The rotation's candidate was made a version by another node, on which somebody wrote a wrong one: it
// is not taken for what this node has open.
func TestRotationOvertaken(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		other := w.another()
		w.atSetRoot(leasetest.Fault{Answer: 5 * time.Second})
		answer := make(chan error)
		go func() { answer <- w.rotate() }()
		time.Sleep(time.Second)
		other.mustUse()
		other.write("wrong")
		w.must(<-answer)
		w.mustUse()
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
	})
}

// A refusal is answered from memory as long as the store has nothing else to try.
func TestRefusalFromMemory(t *testing.T) {
	inWorld(t, func(w *world) {
		w.host.AcceptRoot("by-hand")
		w.restart()
		opened := w.host.Count("open")
		for range 5 {
			w.wantAnswer(w.use(), fault.EngineError)
		}
		if n := w.host.Count("open") - opened; n != 1 {
			w.Errorf("the source was asked %d times", n)
		}
		w.another().write("by-hand")
		w.mustUse()
	})
}

// An engine that may not read its root secret asks once a second and not for every request: each time
// is an entry in the trail.
func TestRootNotReadable(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		w.bind("dynamic:one", policy.Rule{PathPattern: "nothing", Permissions: []policy.Permission{policy.Read}})
		for range 5 {
			w.wantAnswer(w.use(), fault.InvalidConfig)
		}
		denied := func(e *api.AuditEntry) bool { return e.IdentityID == "dynamic:one" && !e.Success }
		if n := w.entries(denied); n != 1 {
			w.Errorf("it asked %d times", n)
		}
		time.Sleep(time.Second)
		w.grant("one")
		w.mustUse()
	})
}

// That a caller gave up says nothing to the next one.
func TestCallerGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		e, err := w.sources.Engine(w.store.Config(), tenant, "one")
		w.must(err)
		w.host.SetFault(func(leasetest.Call) leasetest.Fault { return leasetest.Fault{Delay: 2 * time.Second} })
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := w.sources.Acquire(ctx, e); err == nil {
			w.Fatal("it was opened in no time")
		}
		w.host.SetFault(nil)
		w.mustUse()
	})
}
