package postgres

import (
	"sync"
	"sync/atomic"

	"github.com/scaivault/scaivault/internal/store"
)

// view is the configuration that this node goes by. Every transaction reads the revision and brings
// the view up to it before any function runs; so what is decided by an older one is found out by
// comparing, and decided again by the newer. Notifications only make that rarer.
type view struct {
	mu     sync.Mutex // of those who replace it
	config atomic.Pointer[store.Config]
}

func newView() *view {
	v := &view{}
	v.config.Store(store.NewConfig(0, nil))
	return v
}

// catchUp brings the view up to the revision at least, by what has changed since.
func (v *view) catchUp(s *session, rev int64) error {
	if v.config.Load().Rev >= rev {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	have := v.config.Load()
	if have.Rev >= rev {
		return nil
	}
	var put, gone []*store.Object
	var whole bool
	err := s.each(changedSince, []any{have.Rev}, func(scan scanFunc) error {
		var what string
		o, err := scanObject(func(dest ...any) error { return scan(append([]any{&what}, dest...)...) })
		if err != nil {
			return err
		}
		switch what {
		case "part", "whole":
			rev, whole = o.Rev, what == "whole"
		case "gone":
			gone = append(gone, o)
		default:
			put = append(put, o)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if whole {
		v.config.Store(store.NewConfig(rev, put))
	} else {
		v.config.Store(have.With(rev, put, gone))
	}
	return nil
}

// changedSince is one statement, so that it sees one state: the revision, and all that led to it
// from $1 on, or all there is where it is no longer known what was removed since.
const changedSince = `
	WITH base AS (
		SELECT config_rev, CASE WHEN removed_rev > $1::bigint THEN 0 ELSE $1::bigint END AS since FROM store_state)
	SELECT CASE WHEN since < $1::bigint THEN 'whole' ELSE 'part' END, '', '', '', '', '', 0, config_rev, 0, 0 FROM base
	UNION ALL
	SELECT 'put', ` + objectColumns + ` FROM objects WHERE kind <> 'token' AND rev > (SELECT since FROM base)
	UNION ALL
	SELECT 'gone', tenant, kind, id, '', '', 0, rev, 0, 0 FROM removed_objects WHERE rev > (SELECT since FROM base)`

// advance puts what this node has committed itself into the view. Where that does not follow on it,
// since another node's change is not in it yet, the next transaction catches up.
func (v *view) advance(from, rev int64, put, gone []*store.Object) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if have := v.config.Load(); have.Rev == from {
		v.config.Store(have.With(rev, put, gone))
	}
}
