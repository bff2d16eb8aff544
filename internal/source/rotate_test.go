package source_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/policy"
)

// atSetRoot makes a fault happen to every root that is set from now on.
func (w *world) atSetRoot(f leasetest.Fault, then ...func()) {
	w.at("setroot", f, then...)
}

// at makes a fault happen to every call of the kind.
func (w *world) at(op string, f leasetest.Fault, then ...func()) {
	w.host.SetFault(func(c leasetest.Call) leasetest.Fault {
		if c.Op != op {
			return leasetest.Fault{}
		}
		for _, fn := range then {
			fn()
		}
		return f
	})
}

func TestRotateRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.mustRotate()
		w.wantRoot(2)
		w.wantNoCandidate()
		if w.host.AcceptsRoot(first) {
			w.Error("the source still accepts the former password")
		}
		w.mustUse()
		w.restart()
		w.mustUse()
		w.mustRotate()
		w.wantRoot(3)
		if n := w.rotations(); n != 2 {
			w.Errorf("%d rotations are in the trail, want 2", n)
		}
		if n := w.host.Open(); n > 1 {
			w.Errorf("%d connections are open", n)
		}
	})
}

// Law L9. The process dies before and after every one of its writes, and while the source does its
// work: the next process knows a root that the source accepts, and says so in the secret.
func TestRotationCutOff(t *testing.T) {
	t.Parallel()
	type crash struct {
		name  string
		plant func(w *world)
		set   bool // the source has the next root in the end
	}
	crashes := []crash{
		{"asked, not done", func(w *world) { w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore}, w.die) }, false},
		{"asked, done, not answered", func(w *world) { w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter}, w.die) }, true},
		{"asked, done long after", func(w *world) { w.atSetRoot(leasetest.Fault{Kind: leasetest.Late, Delay: time.Minute}, w.die) }, true},
	}
	// The lock's, the candidate's and the new version's; the fourth gives the lock back.
	for n := 1; n <= 3; n++ {
		crashes = append(crashes,
			crash{fmt.Sprint("before write ", n), func(w *world) { w.store.before = w.nth(n) }, n == 3},
			crash{fmt.Sprint("after write ", n), func(w *world) { w.store.after = w.nth(n) }, n == 3})
	}
	made := append(slices.Clone(crashes),
		crash{"to be made, not done", func(w *world) { w.at("makeroot", leasetest.Fault{Kind: leasetest.LoseBefore}, w.die) }, false},
		crash{"made, not answered", func(w *world) { w.at("makeroot", leasetest.Fault{Kind: leasetest.LoseAfter}, w.die) }, false})
	for _, c := range crashes {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) { w.cutOff(c.plant, c.set) })
		})
	}
	for _, c := range made {
		t.Run("source makes it/"+c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.host.MakeRoots()
				w.cutOff(c.plant, c.set)
				if n := w.host.Roots(); n != 1 {
					t.Errorf("the source accepts %d roots", n)
				}
			})
		})
	}
}

// cutOff plants a crash in a rotation, after which the source has the next root in the end if set.
func (w *world) cutOff(plant func(w *world), set bool) {
	w.Helper()
	w.mustUse()
	plant(w)
	if err := w.rotate(); err == nil {
		w.Fatal("the rotation was not cut off")
	}
	w.die()
	w.host.SetFault(nil)
	w.restart()
	w.mustUse()
	time.Sleep(2 * time.Minute)
	w.restart()
	w.mustUse()
	version := 1
	if set {
		version = 2
	}
	w.wantRoot(version)
	if n := w.rotations(); n != version-1 {
		w.Errorf("%d rotations are in the trail, want %d", n, version-1)
	}
	w.mustRotate()
	w.wantRoot(version + 1)
	w.restart()
	w.mustUse()
}

// nth dies at its nth call.
func (w *world) nth(n int) func() {
	var mu sync.Mutex
	p := w.process
	return func() {
		mu.Lock()
		defer mu.Unlock()
		if n--; n == 0 {
			p.die()
		}
	}
}

// There are no more writes than the crashes are planted at.
func TestRotationWrites(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		n := 0
		w.store.before = func() { n++ }
		w.mustRotate()
		if n != 4 {
			w.Errorf("a rotation has %d writes: let it be cut off at each", n)
		}
	})
}

// The store is lost for a moment when the source has the next root.
func TestRotationNotWrittenDown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{}, func() {
			w.store.mu.Lock()
			defer w.store.mu.Unlock()
			w.store.dead = true
		})
		w.wantCode(w.rotate(), fault.ServiceUnavailable)
		w.store.dead = false
		w.host.SetFault(nil)
		w.mustUse()
		w.wantRoot(2)
	})
}

func TestRotationRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Refuse})
		w.wantCode(w.rotate(), fault.EngineError)
		w.wantRoot(1)
		w.wantNoCandidate()
		w.restart()
		w.mustUse()
		w.host.SetFault(nil)
		w.mustRotate()
		w.wantRoot(2)
		if tried := w.tried(); tried[0] == tried[1] {
			w.Error("what the source had refused was tried again")
		}
	})
}

// A refusal leaves the connection in use that is open, also where no other could be opened.
func TestRotationRefusedWithWrongRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.write("wrong")
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Refuse})
		w.wantCode(w.rotate(), fault.EngineError)
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.mustUse()
		w.host.SetFault(nil)
		w.mustRotate()
		w.wantRoot(3)
		w.restart()
		w.mustUse()
	})
}

// The answer is lost, the process lives on.
func TestRotationAnswerLost(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.mustUse()
		w.wantRoot(2)
		if h := w.health(); h.Status != api.EngineHealthy {
			w.Errorf("%+v", h)
		}
	})
}

// The source sets the first rotation's root long after the second has succeeded, at which moment it
// is the same one.
func TestRotationWhileAnotherIsUnknown(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Late, Delay: time.Minute})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.host.SetFault(nil)
		w.mustRotate()
		w.wantRoot(2)
		time.Sleep(2 * time.Minute)
		w.wantRoot(2)
		w.restart()
		w.mustUse()
	})
}

// What the source took from the first rotation becomes a version before the second goes on.
func TestRotationAfterOneThatWasDone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Refuse})
		w.wantCode(w.rotate(), fault.EngineError)
		w.wantRoot(2)
		w.host.SetFault(nil)
		w.mustRotate()
		w.wantRoot(3)
	})
}

// A root that somebody has replaced since is not brought back by the rotation that it was made for.
func TestRotationOfAnotherRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.host.AcceptRoot("by-hand")
		w.writeAs("root2", "by-hand", nil)
		w.host.SetFault(nil)
		w.mustRotate()
		w.wantRoot(3)
		s, err := w.secrets.Read(context.Background(), w.admin, rootPath, 0)
		w.must(err)
		if got := string(s.Data["username"]); got != `"root2"` {
			w.Errorf("the user is %s", got)
		}
	})
}

// The root that a rotation was about to set arrives at the source when somebody has written another
// by hand, which worked: it is found out before a next candidate takes its place.
func TestRotationAfterALateOne(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Late, Delay: time.Minute})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.host.AcceptRoot("by-hand")
		w.write("by-hand")
		w.mustUse()
		time.Sleep(2 * time.Minute)
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.restart()
		w.mustUse()
		w.wantRoot(3)
	})
}

// While the source's answer is on its way, somebody finds the present root refused and the candidate
// accepted: it becomes one version, not two.
func TestRotationFinishedByAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Answer: 5 * time.Second})
		answer := make(chan error)
		go func() { answer <- w.rotate() }()
		time.Sleep(time.Second)
		w.write("wrong")
		w.mustUse()
		w.wantRoot(3)
		w.must(<-answer)
		w.wantRoot(3)
	})
}

func TestTwoRotationsAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Delay: 2 * time.Second})
		answer := make(chan error)
		go func() { answer <- w.rotate() }()
		time.Sleep(time.Second)
		w.wantCode(w.rotate(), fault.VersionConflict)
		w.must(<-answer)
		w.wantRoot(2)
		w.mustRotate()
		w.wantRoot(3)
	})
}

// Two engines of one server share a root: it is the root that is rotated once at a time.
func TestRotationOfASharedRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.grant("same", policy.Rotate)
		config := json.RawMessage(`{"host": "one", "root_credentials_path": "` + rootPath + `"}`)
		_, err := w.sources.CreateEngine(context.Background(), w.admin, &api.EngineRequest{Name: "same", Type: "fake", Config: config})
		w.must(err)
		same := func() error {
			_, err := w.sources.RotateRoot(context.Background(), w.admin, "same")
			return err
		}
		w.atSetRoot(leasetest.Fault{Delay: 2 * time.Second})
		answer := make(chan error)
		go func() { answer <- w.rotate() }()
		time.Sleep(time.Second)
		w.wantCode(same(), fault.VersionConflict)
		w.must(<-answer)

		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter}, w.die)
		if err := w.rotate(); err == nil {
			w.Fatal("the rotation was not cut off")
		}
		w.host.SetFault(nil)
		w.restart()
		w.must(same()) // the other engine finds the candidate, too
		w.wantRoot(4)
	})
}

// A server that would not learn the new root would be locked out.
func TestRotationOfARootOfTwoServers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.grant("two")
		w.engine("two")
		err := w.rotate()
		w.wantCode(err, fault.InvalidConfig)
		if !strings.Contains(err.Error(), "engine two") {
			w.Errorf("the refusal does not name the engine: %v", err)
		}
		w.wantRoot(1)
	})
}

// What leads to two sources and is kept at one place is one root: both learn the new one from the secret.
func TestRotationOfARootOfTwoSources(t *testing.T) {
	inWorld(t, func(w *world) {
		w.grant("two")
		w.engine("two")
		for name, home := range map[string]string{"one": "cloud", "two": "another"} {
			w.keepRootAt(name, home)
		}
		w.wantCode(w.rotate(), fault.InvalidConfig)
		w.keepRootAt("two", "cloud")
		w.mustRotate()
		w.wantRoot(2)
	})
}

// keepRootAt tells an engine who keeps its root.
func (w *world) keepRootAt(name, home string) {
	w.Helper()
	text, _ := json.Marshal(home)
	config := map[string]json.RawMessage{"root_home": text}
	_, _, err := w.sources.PatchEngine(context.Background(), w.admin, name, &api.EnginePatch{Config: config}, false, 0)
	w.must(err)
}

func TestRotationWithoutGrant(t *testing.T) {
	inWorld(t, func(w *world) {
		w.grant("one")
		w.mustUse()
		before := len(w.host.Touches())
		err := w.rotate()
		w.wantCode(err, fault.InvalidConfig)
		for _, part := range []string{rootPath, `"rotate"`, "dynamic:one"} {
			if !strings.Contains(err.Error(), part) {
				w.Errorf("the refusal does not name %s: %v", part, err)
			}
		}
		if len(w.host.Touches()) != before {
			w.Error("the source was touched")
		}
		w.wantRoot(1)
	})
}

func TestRotationOfABareEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.restart()
		w.kind.Bare = true
		w.wantCode(w.rotate(), fault.InvalidConfig)
		w.mustUse()
	})
}

// Another server behind the engine gets no new root, and what it accepts is no proof.
func TestRotationOnAnotherServer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Late, Delay: time.Hour})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		w.host.SetFault(nil)
		id, accounts := w.host.Replace("rebuilt", nil)
		w.restart()
		w.wantCode(w.rotate(), fault.EngineError)
		w.wantRoot(1)
		w.host.Replace(id, accounts)
		w.restart()
		w.mustRotate()
		w.wantRoot(2)
	})
}

// A version in use is kept beyond max_versions, until another one has worked.
func TestPinnedRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		one := 1
		w.writeAs("root", "wrong", &api.SecretOptions{MaxVersions: &one})
		w.mustUse()
		w.write("wrong again")
		stored := func(version int) bool {
			_, _, err := w.secrets.VersionAs(context.Background(), w.admin, rootPath, version)
			return err == nil
		}
		if !stored(1) || stored(2) || !stored(3) {
			w.Errorf("versions 1, 2, 3 are stored: %t %t %t, want 1 and 3", stored(1), stored(2), stored(3))
		}
		_, err := w.secrets.Read(context.Background(), w.admin, rootPath, 1)
		w.wantCode(err, fault.VersionNotFound)
		w.mustRotate()
		w.mustUse() // opens the new version
		w.mustRotate()
		if stored(1) || !stored(5) {
			w.Errorf("versions 1 and 5 are stored: %t, %t", stored(1), stored(5))
		}
		w.wantRoot(5)
	})
}

// A version written by hand that does not work leaves the last one that did in use.
func TestWrongRootByHand(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		opened := w.host.Count("open")
		w.write("wrong")
		for range 59 { // a source may lock an account out that fails to log in often
			w.mustUse()
			time.Sleep(time.Second)
		}
		if n := w.host.Count("open") - opened; n < 2 || n > 4 {
			w.Errorf("the wrong root was tried %d times in a minute, want every 15 seconds", n)
		}
		h := w.health()
		if h.Status != api.EngineMisconfigured || h.Error == nil || !strings.Contains(*h.Error, "root secret") {
			w.Errorf("%+v", h)
		}
		w.restart() // what worked is known to the next process, too, though it is beyond max_versions
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
		one := 1
		w.writeAs("root", "wrong again", &api.SecretOptions{MaxVersions: &one})
		w.write("and again")
		opened = w.host.Count("open")
		for range 59 {
			w.mustUse()
			time.Sleep(time.Second)
		}
		if n := w.host.Count("open") - opened; n < 3 || n > 6 {
			w.Errorf("roots were tried %d times in a minute, want every 15 seconds", n)
		}
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
		w.write(first)
		w.mustUse()
		if h := w.health(); h.Status != api.EngineHealthy {
			w.Errorf("%+v", h)
		}
		w.restart()
		w.mustUse()
		w.wantRoot(5)
	})
}

// A source that is away is told to be away, whatever is known of its root: nobody shall look for a wrong password
// while it is the network that does not work.
func TestAwayWithAWrongRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.write("wrong")
		time.Sleep(time.Minute)
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
		w.host.SetFault(func(leasetest.Call) leasetest.Fault { return leasetest.Fault{Kind: leasetest.Unreachable} })
		if h := w.health(); h.Status != api.EngineUnreachable || h.Error == nil || strings.Contains(*h.Error, "root secret") {
			w.Errorf("%+v", h)
		}
		w.host.SetFault(nil)
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
	})
}

// What a rotation has set is not lost to wrong versions that come before its first use.
func TestWrongRootAfterARotation(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.mustRotate()
		one := 1
		w.writeAs("root", "wrong", &api.SecretOptions{MaxVersions: &one})
		w.write("wrong again")
		w.restart()
		w.mustUse()
		w.mustRotate()
		w.wantRoot(5)
	})
}

// A wrong version by hand on top of a rotation that was cut off does not hide the candidate.
func TestWrongRootOverACutOffRotation(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter}, w.die)
		if err := w.rotate(); err == nil {
			w.Fatal("the rotation was not cut off")
		}
		w.host.SetFault(nil)
		w.restart()
		w.write("wrong")
		w.mustUse()
		w.wantRoot(3)
	})
}

// A source that was put back to its state before the last rotation accepts the root that that was
// made from: it is used, and health names what is wrong.
func TestSourcePutBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.mustRotate()
		_, before := w.root()
		one := 1
		_, err := w.secrets.Patch(context.Background(), w.admin, rootPath, &api.SecretPatch{Options: &api.SecretOptions{MaxVersions: &one}})
		w.must(err)
		w.mustRotate()
		w.host.AcceptRoot(before)
		w.restart()
		w.mustUse()
		if h := w.health(); h.Status != api.EngineMisconfigured {
			w.Errorf("%+v", h)
		}
		w.mustRotate() // from the one that works
		w.wantRoot(4)
		w.restart()
		w.mustUse()
		if h := w.health(); h.Status != api.EngineHealthy {
			w.Errorf("%+v", h)
		}
	})
}

// What a rotation has set and not written down is in no other place than beside the secret: it
// outlives the engine, and goes with the secret.
func TestCandidateOutlivesTheEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseAfter}, w.die)
		if err := w.rotate(); err == nil {
			w.Fatal("the rotation was not cut off")
		}
		w.host.SetFault(nil)
		w.restart()
		remove := func() {
			w.Helper()
			_, err := w.sources.DeleteEngine(context.Background(), w.admin, "one", false, 0)
			w.must(err)
		}
		remove()
		w.grant("one", policy.Rotate)
		w.engine("one")
		w.mustUse()
		w.wantRoot(2)

		w.atSetRoot(leasetest.Fault{Kind: leasetest.LoseBefore})
		w.wantCode(w.rotate(), fault.EngineUnavailable)
		remove()
		w.must(w.secrets.Destroy(context.Background(), w.admin, rootPath))
		w.wantNoCandidate()
	})
}

// A root secret is rotated at its source whoever asks in whatever way, and once for all engines that
// share it.
func TestRotationOfTheSecret(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mustUse()
		s, err := w.secrets.Rotate(context.Background(), w.admin, rootPath, &api.SecretRotate{})
		w.must(err)
		if s.Version != 2 || s.Data != nil {
			w.Errorf("%+v", s)
		}
		w.wantRoot(2)
		if n := len(w.tried()); n != 1 {
			w.Errorf("%d passwords were set at the source", n)
		}
		w.atSetRoot(leasetest.Fault{Kind: leasetest.Refuse})
		_, err = w.secrets.Rotate(context.Background(), w.admin, rootPath, &api.SecretRotate{})
		w.wantCode(err, fault.EngineError)
		w.wantRoot(2)
		w.host.SetFault(nil)
		w.must(w.secrets.RotateTaken(context.Background(), tenant, rootPath))
		w.wantRoot(3)
		w.mustUse()
		if n := w.host.Open(); n > 1 {
			w.Errorf("%d connections are open", n)
		}
	})
}

// An engine without a root secret works, and says so when its root is to be rotated.
func TestEngineWithoutRoot(t *testing.T) {
	inWorld(t, func(w *world) {
		ctx := context.Background()
		w.host.AcceptRoot(first, "")
		_, err := w.sources.CreateEngine(ctx, w.admin, &api.EngineRequest{Name: "rootless", Type: "fake", Config: []byte(`{"host": "one"}`)})
		w.must(err)
		h, err := w.sources.Health(ctx, w.admin, "rootless")
		w.must(err)
		if h.Status != "healthy" {
			t.Errorf("%+v", h)
		}
		_, err = w.sources.RotateRoot(ctx, w.admin, "rootless")
		if fault.CodeOf(err) != fault.InvalidConfig {
			t.Errorf("rotate what is not there: %v", err)
		}
	})
}
