package lease_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/lease"
	"github.com/scaivault/scaivault/internal/lease/leasetest"
	"github.com/scaivault/scaivault/internal/quarantine"
)

// reconcileLook is how long an engine may wait to be seen.
const reconcileLook = time.Minute

// scheduled has the engine reconciled on schedule, each hour.
func (w *world) scheduled(engineName, mode string) {
	w.t.Helper()
	patch := &api.EnginePatch{Config: map[string]json.RawMessage{"reconcile": json.RawMessage(`"` + mode + `"`)}}
	_, _, err := w.sources.PatchEngine(context.Background(), w.caller("admin"), engineName, patch, false, 0)
	w.must(err)
}

func (w *world) report(engineName string) *api.ReconcileReport {
	w.t.Helper()
	r, err := w.sources.LastReconcile(context.Background(), w.caller("admin"), engineName)
	w.must(err)
	return r
}

// nextRun waits for the engine's next scheduled run.
func (w *world) nextRun(engineName string) *api.ReconcileReport {
	w.t.Helper()
	before := w.report(engineName)
	for range 90 {
		time.Sleep(time.Minute)
		if r := w.report(engineName); r.At != nil && (before.At == nil || r.At.After(*before.At)) {
			return r
		}
	}
	w.t.Fatal("no run in an hour and a half")
	return nil
}

// scheduledEntries counts the audit entries of scheduled runs.
func (w *world) scheduledEntries(success bool) (n int) {
	for _, e := range w.entries() {
		if e.ExtraData["scheduled"] == true && e.IdentityID == lease.Identity && e.Success == success {
			n++
		}
	}
	return n
}

func (w *world) lost(name string) {
	w.one.Put(leasetest.Account{Name: name, Mark: w.base.Installation(), Usable: true})
}

// Each engine is reconciled once an interval, with some jitter; what did not change makes no entry.
func TestReconcileSchedule(t *testing.T) {
	inWorld(t, func(w *world) {
		if r := w.report("one"); r.At != nil || r.NextAt != nil || r.Orphans == nil {
			t.Errorf("before any: %+v", r)
		}
		w.scheduled("one", "report")
		w.scheduled("two", "report")
		time.Sleep(2 * time.Minute)
		if a, b := w.report("one").NextAt, w.report("two").NextAt; a == nil || b == nil || a.Equal(*b) {
			t.Errorf("the first turns are %v and %v", a, b)
		}
		w.nextRun("one")
		w.lost("v_lost_1")
		r := w.nextRun("one")
		if r.OrphanCount != 1 || len(r.Orphans) != 1 || r.Orphans[0].Username != "v_lost_1" || r.Orphans[0].FirstSeen.IsZero() || r.Error != nil {
			t.Fatalf("%+v", r)
		}
		if pause := r.NextAt.Sub(*r.At); pause < 54*time.Minute || pause > time.Hour {
			t.Errorf("the next run is %s after the last", pause)
		}
		before := w.one.Count("list")
		time.Sleep(48 * time.Hour)
		if n := w.one.Count("list") - before; n < 47 || n > 54 {
			t.Errorf("%d runs in two days", n)
		}
		if n := w.scheduledEntries(true); n != 1 {
			t.Errorf("%d entries of runs that found one orphan", n)
		}
		if w.one.Account("v_lost_1") == nil {
			t.Error("a run that is to report removed")
		}
		h, err := w.sources.Health(context.Background(), w.caller("admin"), "one")
		w.must(err)
		if h.Orphans != 1 {
			t.Errorf("health: %+v", h)
		}
	})
}

// With "remove" the second run removes.
func TestReconcileScheduleRemoves(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lost("v_lost_1")
		w.scheduled("one", "remove")
		if r := w.nextRun("one"); r.OrphanCount != 1 || len(r.Removed) != 0 {
			t.Fatalf("the first run: %+v", r)
		}
		if r := w.nextRun("one"); r.OrphanCount != 0 || len(r.Orphans) != 0 || len(r.Removed) != 1 {
			t.Errorf("the second run: %+v", r)
		}
		w.wantAccounts(0)
		if n := w.scheduledEntries(true); n != 3 { // found, about to be removed, removed
			t.Errorf("%d entries", n)
		}
		w.scheduled("one", "off")
		if r := w.report("one"); r.NextAt != nil {
			t.Errorf("off, and next at %s", r.NextAt)
		}
		before := w.one.Count("list")
		time.Sleep(24 * time.Hour)
		if n := w.one.Count("list") - before; n != 0 {
			t.Errorf("%d runs while off", n)
		}
	})
}

// A restart neither skips a run nor doubles it, and one that a crash cut off is done again.
func TestReconcileScheduleRestart(t *testing.T) {
	inWorld(t, func(w *world) {
		w.scheduled("one", "report")
		time.Sleep(2 * time.Minute)
		next := w.report("one").NextAt
		w.restart()
		if again := w.report("one").NextAt; again == nil || !again.Equal(*next) {
			t.Errorf("the turn moved from %s to %s", next, again)
		}
		for range 12 * 4 {
			time.Sleep(15 * time.Minute)
			w.restart()
		}
		time.Sleep(reconcileLook)
		if n := w.one.Count("list"); n < 11 || n > 15 {
			t.Errorf("%d runs in half a day with a restart each quarter of an hour", n)
		}

		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Late, Delay: time.Hour}, "list"))
		time.Sleep(time.Until(*w.report("one").NextAt) + 11*time.Second)
		before := w.report("one")
		w.one.SetFault(nil)
		w.restart()
		time.Sleep(2 * reconcileLook)
		if r := w.report("one"); !r.At.After(*before.At) || r.Error != nil {
			t.Errorf("the run that was cut off was not done again: %+v", r)
		}
	})
}

// Two managers of one store run an engine once.
func TestReconcileScheduleOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		other := lease.New(lease.Config{Store: w.clock, Clock: w.clock, Door: w.door, Sources: w.sources, Logger: slog.New(slog.DiscardHandler)})
		other.Start()
		defer other.Stop()
		w.one.SetFault(always(leasetest.Fault{Delay: time.Second}, "list"))
		w.scheduled("one", "report")
		time.Sleep(24 * time.Hour)
		if n := w.one.Count("list"); n < 22 || n > 29 {
			t.Errorf("%d runs in a day", n)
		}
	})
}

func TestReconcileScheduleQuarantine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lost("v_lost_1")
		w.scheduled("one", "remove")
		restored := time.Now()
		w.putQuarantine(quarantine.State{Active: true, Restored: &restored})
		time.Sleep(12 * time.Hour)
		if n := w.one.Count("list"); n != 0 {
			t.Errorf("%d runs in quarantine", n)
		}
		if n := w.scheduledEntries(false); n != 0 {
			t.Errorf("%d entries of runs that a quarantine refused", n)
		}
		w.putQuarantine(quarantine.State{Restored: &restored})
		time.Sleep(11 * time.Hour)
		if r := w.report("one"); r.OrphanCount != 1 {
			t.Errorf("within a day of the restore: %+v", r)
		}
		time.Sleep(3 * time.Hour)
		w.wantAccounts(0)
	})
}

// A source that hangs, or is away, delays no other's run; its failure is told once, its orphans stay
// known, and it is reconciled when it is back.
func TestReconcileScheduleDeadSource(t *testing.T) {
	inWorld(t, func(w *world) {
		w.lost("v_lost_1")
		w.scheduled("one", "report")
		w.scheduled("two", "report")
		time.Sleep(time.Hour + 2*reconcileLook)
		first := w.report("one")
		w.one.SetFault(always(leasetest.Fault{Kind: leasetest.Late, Delay: time.Hour}))
		before, asked := w.two.Count("list"), w.one.Count("list")
		time.Sleep(24 * time.Hour)
		if n := w.two.Count("list") - before; n < 23 {
			t.Errorf("%d runs of the other engine in a day", n)
		}
		if n := w.one.Count("list") - asked; n < 6 || n > 16 {
			t.Errorf("a dead source was asked %d times in a day", n)
		}
		r := w.report("one")
		if r.Error == nil || r.OrphanCount != 1 || !r.ListedAt.Equal(*first.ListedAt) || !r.At.After(*r.ListedAt) {
			t.Errorf("%+v", r)
		}
		if n := w.scheduledEntries(false); n != 1 {
			t.Errorf("%d entries of failures that went on", n)
		}
		w.one.SetFault(nil)
		time.Sleep(2*time.Hour + 2*reconcileLook)
		if r := w.report("one"); r.Error != nil || !r.ListedAt.After(*first.ListedAt) {
			t.Errorf("back again: %+v", r)
		}
	})
}
