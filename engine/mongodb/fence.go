package mongodb

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/scaivault/scaivault/internal/ident"
)

// MongoDB executes whatever arrives, however late: maxTimeMS counts from when it begins. But it makes a
// user only with roles that exist, and looks for them in the same critical section in which it makes
// the user. So every user is made with one role more, which grants nothing: the fence. Whoever must know
// that nothing comes late any more drops it (settle.go), and what is on its way is refused from then on,
// whatever network, server or node was slow.
//
// A fence is made once, by the engine that drew its name, and never again: a name that was dropped
// stays dropped. Nobody makes a user behind it before it is known to be there.
const (
	fencePrefix = "scaivault-fence-"
	// fenceLife is how long new users are made behind the same fence.
	fenceLife = 12 * time.Hour
	// fenceRest is from when on a fence is dropped by whoever makes the next one in the same database:
	// no operation lasts that long. Users that live still lose the role, and nothing by it.
	fenceRest = 24 * time.Hour
)

// fence is a role that nothing is granted to.
type fence struct {
	grant
	since time.Time

	mu    sync.Mutex
	state fenceState
}

type fenceState int

const (
	drawn   fenceState = iota // nothing was sent yet
	raised                    // the source has it
	retired                   // dropped, or nobody knows whether it was ever made
)

// fence is the one behind which users of a database are made now.
func (e *Engine) fence(database string) *fence {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.databases[database] = true
	f := e.fences[database]
	if f == nil || time.Since(f.since) > fenceLife {
		now := time.Now()
		name := fencePrefix + strconv.FormatInt(now.Unix(), 10) + "-" + strings.TrimPrefix(ident.New("f"), "f_")
		f = &fence{grant: grant{e.options.Namer.Mark(name), database}, since: now}
		e.fences[database] = f
	}
	return f
}

// retire takes a fence out of use.
func (e *Engine) retire(g grant) {
	e.mu.Lock()
	f := e.fences[g.Database]
	e.mu.Unlock()
	if f == nil || f.Role != g.Role {
		return
	}
	e.forget(f)
	f.mu.Lock()
	f.state = retired
	f.mu.Unlock()
}

// raise makes the fence unless it is there, of which there is what was seen some time before. The error
// says that no user can have been made behind it since.
func (e *Engine) raise(ctx context.Context, s *server, f *fence, there bool) error {
	const attempt = issuingUser + ": make the role that keeps late creations out"
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.state == raised && there:
		return nil
	case f.state == raised: // since somebody looked, or it was dropped by another node
		seen, err := s.exist(ctx, attempt, []grant{f.grant})
		if err != nil || seen[f.grant] {
			return err
		}
	case f.state == drawn:
		if err := s.makeRole(ctx, f.grant, nil, nil); err != nil {
			f.state = retired
			e.forget(f)
			return asked(attempt, err)
		}
		f.state = raised
		e.sweep(ctx, s, f.Database)
		return nil
	}
	f.state = retired
	e.forget(f)
	return gone()
}

// forget makes the next plan draw another fence.
func (e *Engine) forget(f *fence) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fences[f.Database] == f {
		delete(e.fences, f.Database)
	}
}

// gone is the error of an issuance whose fence was dropped.
func gone() error {
	return busy(issuingUser+": what was under way was just cut off, because another issuance did not answer: ask again", nil)
}

// sweep drops the fences that nobody needs any more. What cannot be dropped now is next time.
func (e *Engine) sweep(ctx context.Context, s *server, database string) {
	roles, err := s.roles(ctx, "list the fences", database)
	for _, r := range roles {
		if e.options.Namer.OursMark(r.Role) && time.Since(fenceTime(r.Role)) > fenceRest {
			if err = s.dropRole(ctx, r); err != nil {
				break
			}
		}
	}
	if err != nil {
		e.log.Warn("old fences could not be dropped", "database", database, "reason", plain(err).Reason)
	}
}

// fenceTime is when a fence was drawn; now for what is none.
func fenceTime(name string) time.Time {
	text, ok := strings.CutPrefix(name, fencePrefix)
	digits, _, _ := strings.Cut(text, "-")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil {
		return time.Now()
	}
	return time.Unix(seconds, 0)
}
