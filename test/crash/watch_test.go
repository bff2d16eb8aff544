package crash_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const watchEvery = 200 * time.Millisecond

// lateness is how long accounts outlived their end, by the source's own clock
// and list.
type lateness struct {
	// able is the longest that one did while a node was up: the sum of the moments
	// after its end, as the source had it, at which the account was there and some
	// node ran, with the store and the source within its reach.
	able time.Duration
	// all counts the other moments, too.
	all  time.Duration
	ends int // accounts seen past their end

	late    map[string]time.Duration // as able, of those that are there
	looked  time.Time
	wasAble bool
}

// watch looks at the source until the function that it returns is called.
func (w *world) watch(t *testing.T) (seen func()) {
	t.Helper()
	conn := w.source.Superuser(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := w.look(ctx, conn); err != nil && ctx.Err() == nil {
				t.Errorf("look at the source: %v", err)
				return
			}
			time.Sleep(watchEvery)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// look takes one look at the source.
func (w *world) look(ctx context.Context, conn *pgx.Conn) error {
	overdue, err := overdue(ctx, conn)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l, now, able := &w.lateness, time.Now(), w.able()
	since := now.Sub(l.looked)
	if !able || !l.wasAble {
		since = 0
	}
	for name := range l.late {
		if _, there := overdue[name]; !there {
			delete(l.late, name)
		}
	}
	for name, by := range overdue {
		_, known := l.late[name]
		if !known && by == locked {
			continue
		}
		if by != locked {
			l.all = max(l.all, by)
		}
		if !known {
			l.ends++
			l.late[name] = min(since, by) // since its end, not since the last look
		} else {
			l.late[name] += since
		}
		l.able = max(l.able, l.late[name])
	}
	l.looked, l.wasAble = now, able
	return nil
}

// locked stands for the lateness of an account that nobody can log in with any
// more and that is not dropped yet: its end is overwritten.
const locked = -1

// overdue are the accounts that outlive their end, and by how much.
func overdue(ctx context.Context, conn *pgx.Conn) (map[string]time.Duration, error) {
	rows, err := conn.Query(ctx, `SELECT rolname, CASE WHEN isfinite(rolvaliduntil)
			THEN extract(epoch FROM clock_timestamp() - rolvaliduntil)::float8 ELSE $1 END FROM pg_roles
		WHERE rolname LIKE 'v\_%' AND rolvaliduntil < clock_timestamp()`, float64(locked))
	if err != nil {
		return nil, err
	}
	overdue := map[string]time.Duration{}
	var name string
	var by float64
	_, err = pgx.ForEachRow(rows, []any{&name, &by}, func() error {
		overdue[name] = locked
		if by != locked {
			overdue[name] = time.Duration(by * float64(time.Second))
		}
		return nil
	})
	return overdue, err
}
