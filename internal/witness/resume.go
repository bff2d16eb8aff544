package witness

import (
	"context"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

// Path is the virtual path that policies judge by.
const Path = "sys/quarantine"

// Resume ends the quarantine on the word of an administrator that this is the only copy of the
// store that goes on: it begins a generation beyond all that any node has seen, and what is due is
// done. It is idempotent.
func (s *Service) Resume(ctx context.Context, c *access.Caller, req *api.ResumeRequest) (*api.Quarantine, error) {
	pass, err := s.door.Admit(ctx, c, access.Ask{Action: "system_resume", Category: access.CategorySystem,
		Any: []access.Right{{Scope: access.ScopeAdmin, Permission: "admin", Path: Path}}})
	if err != nil {
		return nil, err
	}
	if err := s.resume(ctx, pass, req.OnlyCopy); err != nil {
		return nil, err
	}
	s.log.Warn("the store is resumed as the only copy", "by", c.Identity)
	s.resumed()
	if err := s.Note(ctx); err != nil {
		s.log.Error("the store's generation could not be witnessed, trying again", "error", err)
	}
	return s.State()
}

func (s *Service) resume(ctx context.Context, pass *access.Pass, onlyCopy bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return pass.Write(ctx, func(tx store.Tx, cfg *store.Config) error {
		former, err := quarantine.Of(cfg)
		if err != nil || former == nil || !former.Active {
			return err
		}
		if !onlyCopy {
			return fault.New(fault.InvalidRequest, "the store is in quarantine since %s (%s): %s. If another copy of it goes on, ending the quarantine makes each kill the other's accounts. If this is the only copy: scaivault resume --only-copy",
				former.Since.Format(time.RFC3339), former.Reason, former.Detail)
		}
		have, err := stored(tx, s.noted.Node)
		if err != nil {
			return err
		}
		now, state := tx.Now(), *former
		state.Active, state.Resumed, state.ResumedBy = false, &now, pass.Caller().Identity
		pass.Set("reason", state.Reason)
		if err := quarantine.Put(tx, &state); err != nil {
			return err
		}
		return put(tx, metaKey, mark{Installation: s.store.Installation(), Generation: max(have.Generation, s.noted.Generation) + leap, At: now})
	})
}

// State is the quarantine that the store is in, or was in last; nil when it never was.
func (s *Service) State() (*api.Quarantine, error) {
	q, err := quarantine.Of(s.store.Config())
	if err != nil || q == nil {
		return nil, err
	}
	return &api.Quarantine{Active: q.Active, Reason: q.Reason, Detail: q.Detail, Since: q.Since,
		RestoredAt: q.Restored, ResumedAt: q.Resumed, ResumedBy: q.ResumedBy}, nil
}
