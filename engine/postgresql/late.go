package postgresql

import (
	"context"
	"strings"
	"sync"
	"time"
)

// lateDelay is how long after a drop its sessions are looked for once more. A
// login that had passed its checks when the account was disabled becomes
// visible only when it is complete, with all rights it asked for.
const lateDelay = 3 * time.Second

// lateLook remembers the accounts that were dropped, each until its look. It is
// lost with the process: the session that it would find needs a login that was
// under way in the very milliseconds before the process died.
type lateLook struct {
	mu      sync.Mutex
	dropped []dropped // in the order of their looks
	timer   *time.Timer
	closed  bool
	found   int // sessions found so far that could not be ended
}

type dropped struct {
	oid  uint32
	name string // for the log
	due  time.Time
}

// add has look called when the account's time has come: never earlier because
// of one that was dropped before it.
func (l *lateLook) add(look func(), oid uint32, name string) {
	if oid == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.dropped = append(l.dropped, dropped{oid, name, time.Now().Add(lateDelay)})
	if l.timer == nil {
		l.timer = time.AfterFunc(lateDelay, look)
	}
}

// take gives the accounts whose time has come, and calls look for the next.
func (l *lateLook) take(look func()) map[uint32]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	oids := map[uint32]string{}
	for len(l.dropped) > 0 && time.Until(l.dropped[0].due) <= 0 {
		oids[l.dropped[0].oid] = l.dropped[0].name
		l.dropped = l.dropped[1:]
	}
	if len(l.dropped) > 0 && !l.closed {
		l.timer = time.AfterFunc(time.Until(l.dropped[0].due), look)
	}
	return oids
}

// lookLate ends sessions of accounts that are gone.
func (e *Engine) lookLate() {
	l := &e.late
	oids := l.take(e.lookLate)
	if len(oids) == 0 {
		return
	}
	list := make([]string, 0, len(oids))
	for oid := range oids {
		list = append(list, oidText(oid))
	}
	ctx, cancel := e.operation(context.Background())
	defer cancel()
	err := e.inMain(ctx, e.main(), func(c *conn) error {
		answer, err := c.guarded(ctx, "look for late sessions", nil, "SELECT DISTINCT usesysid FROM pg_stat_activity WHERE usesysid IN ("+strings.Join(list, ",")+")")
		if err != nil {
			return err
		}
		for _, row := range answer.last() {
			oid := parseOID(row[0])
			e.log.Error("a session outlived its dropped account: a login was under way", "username", oids[oid])
			if err := e.endSessions(ctx, c, oid, e.traits.endRight()); err != nil {
				l.mu.Lock()
				l.found++
				l.mu.Unlock()
				l.add(e.lookLate, oid, oids[oid])
			}
		}
		return nil
	})
	if err != nil {
		for oid, name := range oids {
			l.add(e.lookLate, oid, name)
		}
	}
}

func (l *lateLook) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
}
