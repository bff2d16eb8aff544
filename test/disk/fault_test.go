package disk_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store/sqlite/vfs"
)

// patience is for what a busy machine delays, and a working one does at once.
const patience = time.Minute

// A flush that fails loses what it was for, and the operating system takes it for written: from then
// on nothing is acknowledged, and the process is told to end. The one after it sees the lost data as
// if they were there; when then the power is cut, still nothing that was answered is lost.
func TestFlushFails(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"scaivault.db-wal", "scaivault.db", "scaivault.db-sum"} {
		for range often(2, 15) {
			flushFails(t, name)
		}
	}
}

func flushFails(t *testing.T, name string) {
	t.Helper()
	dir, witnessFile, at := template(t)
	first, err := os.ReadFile(witnessFile)
	must(t, err)
	r := record(dir)
	r.add(event{op: "witness", data: first})
	var left atomic.Int64
	left.Store(2 + rand.Int64N(20))
	if name != "scaivault.db-wal" {
		left.Store(rand.Int64N(3))
	}
	var failing, failed atomic.Bool
	r.fault = func(op, file string) vfs.Code {
		if op == "sync" && file == name && failing.Load() && left.Add(-1) < 0 && failed.CompareAndSwap(false, true) {
			return vfs.BadSync // once: the next flush succeeds, as on Linux
		}
		return vfs.OK
	}
	v, err := open(dir, witnessFile, r.layer, at)
	must(t, err)
	failing.Store(true)
	work(t, v, r, witnessFile, often(160, 240))
	if !failed.Load() {
		t.Fatalf("%s was not flushed often enough", name)
	}
	if name != "scaivault.db-sum" { // the checksums stay in memory and are written again
		select {
		case err := <-v.store.Failed():
			if err == nil {
				t.Error("the process was not told why it is to end")
			}
		case <-time.After(patience):
			t.Error("the process was not told to end")
		}
		if _, err := v.issue(); fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("a credential after a flush failed: %v", err)
		}
		if v.store.Ping(t.Context()) == nil {
			t.Error("the store says that it is well after a flush failed")
		}
	}
	r.freeze()
	answered := r.answered(len(r.events))

	// The next process finds what the operating system shows, while the disk lacks what was lost.
	shown := filepath.Join(t.TempDir(), "shown")
	must(t, put(shown, r.image(len(r.events), lostNone, random())))
	v.close()
	w := filepath.Join(t.TempDir(), "witness")
	must(t, os.WriteFile(w, r.witness(len(r.events)), 0o600))
	next := record(shown)
	next.base = r.image(len(r.events), lostAll, random())
	v, err = open(shown, w, next.layer, at)
	must(t, err)
	work(t, v, next, w, 4)
	next.freeze()
	v.close()
	image := filepath.Join(t.TempDir(), "image")
	must(t, put(image, next.image(len(next.events), lostAll, random())))
	err = examine(image, w, at, append(answered, next.answered(len(next.events))...))
	matrix.add("flush fails (EIO)", name, outcome(err))
	if err != nil {
		t.Errorf("flush of %s failed: %v", name, err)
	}
}

func random() *rand.Rand {
	return rand.New(rand.NewPCG(rand.Uint64(), 0))
}

// A write that fails, or finds the disk full, is an error for who asked and for nobody else; when
// there is room again the store goes on, without a restart, and nothing is there by half.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	for what, code := range map[string]vfs.Code{"disk full, then freed (ENOSPC)": vfs.Full, "write fails (EIO)": vfs.BadWrite} {
		for _, name := range []string{"scaivault.db-wal", "scaivault.db", "scaivault.db-sum", "all"} {
			for range often(1, 12) {
				writeFails(t, what, name, code)
			}
		}
	}
}

func writeFails(t *testing.T, what, name string, code vfs.Code) {
	t.Helper()
	dir, witnessFile, at := template(t)
	r := record(dir)
	var failing atomic.Bool
	var left atomic.Int64
	left.Store(rand.Int64N(60))
	r.fault = func(op, file string) vfs.Code {
		if op == "write" && failing.Load() && (file == name || name == "all") && left.Add(-1) < 0 {
			return code
		}
		return vfs.OK
	}
	v, err := open(dir, witnessFile, r.layer, at)
	must(t, err)
	work(t, v, r, witnessFile, 8)
	failing.Store(true)
	work(t, v, r, witnessFile, often(40, 120))
	if name == "scaivault.db-wal" || name == "all" {
		_, err := v.issue()
		for deadline := time.Now().Add(patience); err == nil && time.Now().Before(deadline); {
			_, err = v.issue()
		}
		if fault.CodeOf(err) != fault.ServiceUnavailable {
			t.Errorf("%s (%s): a credential meanwhile: %v", what, name, err)
		}
	}
	failing.Store(false)
	made, err := v.issue()
	if err != nil {
		t.Errorf("%s (%s): a credential afterwards: %v", what, name, err)
	} else {
		r.add(event{op: "answered", lease: made.LeaseID})
	}
	work(t, v, r, witnessFile, 8)
	r.freeze()
	v.close()
	err = examine(dir, witnessFile, at, r.answered(len(r.events)))
	matrix.add(what, name, outcome(err))
	if err != nil {
		t.Errorf("%s (%s): %v", what, name, err)
	}
}

// An older copy of the folder that is put back is noticed by what lies outside it.
func TestOlderCopyPutBack(t *testing.T) {
	t.Parallel()
	dir, witnessFile, at := template(t)
	older := filepath.Join(t.TempDir(), "older")
	must(t, os.CopyFS(older, os.DirFS(dir)))
	v, err := open(dir, witnessFile, nil, at)
	must(t, err)
	_, err = v.issue()
	must(t, err)
	must(t, v.witness.Stop(t.Context()))
	v.close()
	v, err = open(older, witnessFile, nil, at)
	must(t, err)
	defer v.close()
	q, err := v.witness.State()
	must(t, err)
	_, refusal := v.issue()
	if q == nil || !q.Active || fault.CodeOf(refusal) != fault.ServiceUnavailable {
		matrix.add("older copy put back", "start", wrong)
		t.Fatalf("%+v, %v", q, errors.Unwrap(refusal))
	}
	matrix.add("older copy put back", "start", refused)
}
