package engine

import (
	"sync"
	"time"
)

// lateDelay is how long after a drop its sessions are looked for once more.
const lateDelay = 3 * time.Second

// LateLooks has accounts that were dropped looked at once more. A login that had passed its checks when
// its account was disabled is shown by a source only when it is complete, with all its rights.
//
// What is due is lost with the process: the session that a look would find needs a login that was under
// way in the very milliseconds before the process died.
type LateLooks[A any] struct {
	look func(due []A) (again []A)

	mu      sync.Mutex
	dropped []dropped[A] // in the order of their looks
	timer   *time.Timer  // nil while nobody waits
	closed  bool
}

type dropped[A any] struct {
	account A
	due     time.Time
}

// NewLateLooks makes looks, each of the accounts whose time has come; it answers those that must be
// looked at again.
func NewLateLooks[A any](look func(due []A) (again []A)) *LateLooks[A] {
	return &LateLooks[A]{look: look}
}

// Add has accounts looked at when their time has come: never earlier because of one that was dropped
// before them.
func (l *LateLooks[A]) Add(accounts ...A) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(accounts) == 0 {
		return
	}
	for _, a := range accounts {
		l.dropped = append(l.dropped, dropped[A]{a, time.Now().Add(lateDelay)})
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(lateDelay, l.run)
	}
}

func (l *LateLooks[A]) run() { l.Add(l.look(l.take())...) }

// take gives the accounts whose time has come, and waits for the next.
func (l *LateLooks[A]) take() (due []A) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	for len(l.dropped) > 0 && time.Until(l.dropped[0].due) <= 0 {
		due = append(due, l.dropped[0].account)
		l.dropped = l.dropped[1:]
	}
	if len(l.dropped) > 0 && !l.closed {
		l.timer = time.AfterFunc(time.Until(l.dropped[0].due), l.run)
	}
	return due
}

// Close lets nothing be looked at any more.
func (l *LateLooks[A]) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
