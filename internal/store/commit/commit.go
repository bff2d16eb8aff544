// Package commit is what both stores have in front of their one committer: the queue in which writes
// wait for the next transaction, and the way in which one of them is run.
package commit

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Limit bounds how many functions share a transaction, and so how long the first one waits.
const Limit = 256

// Request is one function that waits for its commit.
type Request struct {
	Fn      func(tx store.Tx) error
	Relaxed bool // its flush to disk may lag

	// Err and Rev are the committer's answer: why the function had no effect, and the revision of
	// the configuration that it made, 0 if it changed none.
	Err error
	Rev int64

	taken atomic.Bool // by the committer, which will answer, or by a caller that gave up
	done  chan struct{}
}

// Queue holds requests in the order in which they came. Safe for concurrent use.
type Queue struct {
	wake   chan struct{}
	exited chan struct{}

	mu      sync.Mutex
	waiting []*Request
	closing bool
}

// NewQueue makes a queue whose groups commit runs, one after the other, in one goroutine. Everybody
// of a group is answered when commit returns, those with an error too: what a function saw, and
// failed upon, may be the write of another one of the group, which is true only once it is committed.
// After the last group, left runs.
func NewQueue(commit func(group []*Request), left func()) *Queue {
	q := &Queue{wake: make(chan struct{}, 1), exited: make(chan struct{})}
	go q.run(commit, left)
	return q
}

// Write queues the request and waits for its answer. A caller that gives up takes its request back,
// unless the committer has it: then it waits, since the outcome is real.
func (q *Queue) Write(ctx context.Context, r *Request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.done = make(chan struct{})
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		return ErrClosed()
	}
	q.waiting = append(q.waiting, r)
	q.mu.Unlock()
	q.kick()

	select {
	case <-r.done:
	case <-ctx.Done():
		if r.taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-r.done
	}
	return r.Err
}

// Close ends the queue after what was queued before. What comes later is answered [ErrClosed].
func (q *Queue) Close() {
	q.mu.Lock()
	q.closing = true
	q.mu.Unlock()
	q.kick()
	<-q.exited
}

// ErrClosed is the answer of a store that is being closed.
func ErrClosed() error {
	return fault.New(fault.ServiceUnavailable, "the server is shutting down")
}

// Halted is why a read that may last ends early: the store is being closed, or its caller gave up. It
// is nil while neither is so.
func Halted(ctx context.Context, closed <-chan struct{}) error {
	select {
	case <-closed:
		return ErrClosed()
	default:
		return ctx.Err()
	}
}

func (q *Queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *Queue) run(commit func(group []*Request), left func()) {
	defer close(q.exited)
	defer left()
	for {
		group, closing := q.take()
		switch {
		case len(group) > 0:
			commit(group)
			for _, r := range group {
				close(r.done)
			}
		case closing:
			return
		default:
			<-q.wake
		}
	}
}

// take is the next group, without those who gave up.
func (q *Queue) take() (group []*Request, closing bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, r := range q.waiting {
		if len(group) == Limit {
			break
		}
		n++
		if r.taken.CompareAndSwap(false, true) {
			group = append(group, r)
		}
	}
	q.waiting = q.waiting[n:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	}
	return group, q.closing
}

// Run calls fn and turns a panic into an error, whose cause tells the place. A panic's value is
// shown only if it is the runtime's: another may hold a secret.
func Run(fn func(store.Tx) error, tx store.Tx) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		why := fmt.Sprintf("%T", p)
		if e, ok := p.(runtime.Error); ok {
			why = e.Error()
		}
		err = fault.New(fault.InternalError, "internal error").
			Because(fmt.Errorf("panic in a transaction: %s\n%s", why, debug.Stack()))
	}()
	return fn(tx)
}
