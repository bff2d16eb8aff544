package mysql

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// lateDelay is how long after a drop its sessions are looked for once more. A login
// that had passed its checks when the account was locked is shown under its name
// only when it is complete, with all its rights.
const lateDelay = 3 * time.Second

// lateLook remembers the accounts that were dropped, each until its look; names are
// never used again. It is lost with the process: the session that it would find
// needs a login that was under way in the very milliseconds before the process died.
type lateLook struct {
	mu      sync.Mutex
	dropped []dropped // in the order of their looks
	timer   *time.Timer
	closed  bool
}

type dropped struct {
	name string
	due  time.Time
}

// add has look called when the account's time has come.
func (l *lateLook) add(look func(), name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.dropped = append(l.dropped, dropped{name, time.Now().Add(lateDelay)})
	if l.timer == nil {
		l.timer = time.AfterFunc(lateDelay, look)
	}
}

// take gives the accounts whose time has come, and has look called for the next.
func (l *lateLook) take(look func()) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	var names []string
	for len(l.dropped) > 0 && time.Until(l.dropped[0].due) <= 0 {
		names = append(names, l.dropped[0].name)
		l.dropped = l.dropped[1:]
	}
	if len(l.dropped) > 0 && !l.closed {
		l.timer = time.AfterFunc(time.Until(l.dropped[0].due), look)
	}
	return names
}

func (l *lateLook) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
}

// lookLate ends sessions of accounts that are gone.
func (e *Engine) lookLate() {
	for chunk := range slices.Chunk(e.late.take(e.lookLate), batchSize) {
		victims := make([]*victim, len(chunk))
		for i, name := range chunk {
			victims[i] = &victim{recipe: recipe{Username: name}}
		}
		if err := e.endLate(victims); err != nil {
			for _, name := range chunk {
				e.late.add(e.lookLate, name)
			}
		}
	}
}

func (e *Engine) endLate(victims []*victim) error {
	ctx, cancel := e.operation(context.Background())
	defer cancel()
	return e.pool.With(ctx, engine.Revoking, func(c *conn) error {
		b := batch{e: e, c: c, victims: victims}
		late, err := b.sessions(ctx)
		if err != nil {
			return err
		}
		for _, s := range late {
			e.log.Error("a session outlived its dropped account: a login was under way", "username", s[1])
		}
		if err := b.endSessions(ctx, late); err != nil {
			return err
		}
		for _, v := range victims {
			if v.err != nil {
				return v.err
			}
		}
		return nil
	})
}
