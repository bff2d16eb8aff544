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

// lateLook remembers the accounts that were dropped, until that look. It is
// lost with the process: the session that it would find needs a login that was
// under way in the very milliseconds before the process died.
type lateLook struct {
	mu     sync.Mutex
	oids   map[uint32]string // names, for the log
	timer  *time.Timer
	closed bool
	found  int // sessions found so far that could not be ended
}

func (l *lateLook) add(e *Engine, oid uint32, name string) {
	if oid == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.oids == nil {
		l.oids = map[uint32]string{}
	}
	l.oids[oid] = name
	if l.timer == nil {
		l.timer = time.AfterFunc(lateDelay, func() { e.lookLate() })
	}
}

// lookLate ends sessions of accounts that are gone.
func (e *Engine) lookLate() {
	l := &e.late
	l.mu.Lock()
	oids := l.oids
	l.oids, l.timer = nil, nil
	l.mu.Unlock()

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
			if err := e.endSessions(ctx, c, oid); err != nil {
				l.mu.Lock()
				l.found++
				l.mu.Unlock()
				l.add(e, oid, oids[oid])
			}
		}
		return nil
	})
	if err != nil {
		for oid, name := range oids {
			l.add(e, oid, name)
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
