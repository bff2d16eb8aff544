package source

import (
	"cmp"
	"context"
	"time"

	"github.com/scaivault/scaivault/engine"
)

// Follow runs f, which uses h, and again as often as the source refuses its root because that was
// changed meanwhile. What h stands for is replaced each time, by another connection of the same server.
// A source that goes on to accept the root for new connections refuses for another reason.
func (s *Service) Follow(ctx context.Context, e *Engine, h *Handle, f func() error) error {
	accepted := false
	for range rootTries {
		refusal := f()
		next, err := s.Fresh(ctx, e, h, refusal)
		if next == nil {
			return err
		}
		again := accepted
		accepted = next.root == h.root
		h.Release()
		*h = *next
		if again && accepted {
			return refusal
		}
	}
	return rotatedTooFast()
}

// Fresh answers a refusal by the source: the root may have been changed since h was opened, by a
// rotation of this node or another, or by one that a crash cut off. It gives another handle of the
// same server, to try once more with; the caller releases both. Where there is none it tells what to
// answer: the refusal, or why no other root could be looked for.
func (s *Service) Fresh(ctx context.Context, e *Engine, h *Handle, refusal error) (*Handle, error) {
	if engine.KindOf(refusal) != engine.Misconfigured {
		return nil, refusal
	}
	l, err := s.turn(ctx, e)
	if err != nil {
		return nil, err
	}
	defer l.done()
	next := l.use(e.Version, false)
	if next != nil && next.Engine == h.Engine {
		next.Release()
		next = nil
	}
	if next == nil {
		state, err := s.rootState(ctx, e)
		if err != nil {
			return nil, err
		}
		if known, failed := l.known(state); known {
			return nil, cmp.Or(failed, refusal)
		}
		if next, _, err = s.connect(ctx, l, e, false); err != nil {
			return nil, err
		}
	}
	if next.SourceID() != h.SourceID() {
		next.Release()
		return nil, refusal
	}
	return next, nil
}

// known tells whether opening would come to the same end as the last time, and to which: a source that
// refuses for another reason than its root costs one attempt and not one per request. A candidate may
// have arrived at the source since, unless all that there is was refused when it was there to try.
func (l *live) known(now rootState) (known bool, failed error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now != l.tried || time.Since(l.triedAt) >= reopenAfter || now.candidate != "" && l.failed == nil {
		return false, nil
	}
	return true, l.failed
}
