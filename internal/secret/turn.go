package secret

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/rotation"
	"github.com/scaivault/scaivault/internal/store"
)

// turn is where a secret stands with its rotation policy.
type turn struct {
	Since     time.Time  `json:"since"`               // from when its interval counts: the newest version, or the assignment
	Requested *time.Time `json:"requested,omitempty"` // when somebody wanted it rotated now
	Failures  int        `json:"failures,omitempty"`  // in a row
	LastError string     `json:"last_error,omitempty"`
}

// schedule sets by when the secret is to be rotated and when the scheduler looks at it, by its policy
// as it is now. Where a person writes the values it looks when they are to be warned.
func (d *document) schedule(cfg *store.Config, sec *store.Secret, now time.Time) {
	sec.RotationPolicy, sec.RotateAt, sec.RotateDueAt = d.RotationPolicyID, nil, nil
	if d.RotationPolicyID == "" {
		d.Rotation = nil
		return
	}
	p, _, err := rotation.Find(cfg, sec.Tenant, d.RotationPolicyID)
	if err != nil {
		return
	}
	if d.Rotation == nil {
		d.Rotation = &turn{Since: sec.UpdatedAt}
	}
	t := d.Rotation
	if t.Since.After(now) { // of a clock that was wrong
		t.Since = now
	}
	at, try := p.Turn(sec.Path, t.Since)
	switch {
	case t.Requested != nil:
		at, try = *t.Requested, *t.Requested
	case !p.IsActive:
		return
	case !p.AutoGenerate:
		try = at
		if p.WarnBefore != nil && now.Before(at.Add(-p.WarnBefore.Std())) {
			try = at.Add(-p.WarnBefore.Std())
		}
		if !now.Before(at) {
			sec.RotateAt = &at // it stays overdue until somebody writes a value
			return
		}
	}
	sec.RotateAt, sec.RotateDueAt = &at, &try
}

// rotation is where the secret stands, as callers see it.
func (s *Service) rotation(sec *store.Secret, d *document, now time.Time) *api.SecretRotation {
	a := &api.SecretRotation{PolicyID: d.RotationPolicyID, State: s.state(sec, now), NextRotationAt: sec.RotateAt}
	if _, name, err := rotation.Find(s.store.Config(), sec.Tenant, d.RotationPolicyID); err == nil {
		a.Policy = name
	}
	if d.Rotation != nil {
		a.Failures, a.LastError = d.Rotation.Failures, d.Rotation.LastError
	}
	return a
}

// state is the state of a secret's rotation, "" where it has no policy.
func (s *Service) state(sec *store.Secret, now time.Time) string {
	p, _, err := rotation.Find(s.store.Config(), sec.Tenant, sec.RotationPolicy)
	if err != nil {
		return ""
	}
	return p.State(sec.RotateAt, now)
}

func (s *Service) scheduled() {
	if s.hooks.Scheduled != nil {
		s.hooks.Scheduled()
	}
}

// Take looks at a secret that the scheduler found, and tells what it needs. One that is to be rotated
// is left to the caller alone for the time given, after which it is looked at again: of all nodes one
// gets it.
func (s *Service) Take(ctx context.Context, tenant, path string, hold time.Duration) (needs rotation.Need, err error) {
	err = s.store.Write(ctx, func(tx store.Tx) error {
		needs = rotation.Nothing
		cfg := s.store.Config()
		if err := quarantine.Check(cfg); err != nil {
			return err
		}
		sec, err := tx.Secret(tenant, path)
		if fault.CodeOf(err) == fault.SecretNotFound {
			return nil
		}
		now := tx.Now()
		if err != nil || sec.RotateDueAt == nil || sec.RotateDueAt.After(now) {
			return err
		}
		d, err := decode(sec)
		if err != nil {
			return err
		}
		if d.schedule(cfg, sec, now); sec.DeletedAt != nil {
			sec.RotateAt, sec.RotateDueAt = nil, nil
		}
		switch due := sec.RotateDueAt; {
		case due != nil && !due.After(now):
			needs = rotation.Value
			until := now.Add(hold)
			sec.RotateDueAt = &until
		case s.state(sec, now) == api.RotationDue, s.state(sec, now) == api.RotationOverdue:
			needs = rotation.Person
		}
		if sec.Doc, err = encode(d); err != nil {
			return err
		}
		return tx.PutSecret(sec)
	})
	return needs, err
}

// RotateTaken rotates a secret that Take has given, as the server itself. A failure is written down
// and tried again later and later, without limit; not so a version_conflict, by which somebody else
// has rotated it, or is about to.
func (s *Service) RotateTaken(ctx context.Context, tenant, path string) error {
	system := access.System(tenant, rotation.Identity)
	pass, err := s.door.Admit(ctx, system, access.Ask{Action: "rotate", Path: path, Extra: map[string]any{"scheduled": true}})
	if err == nil {
		_, err = s.rotate(ctx, pass, path, &api.SecretRotate{})
	}
	if err == nil || fault.CodeOf(err) == fault.VersionConflict {
		return err
	}
	if unwritten := s.postpone(context.WithoutCancel(ctx), tenant, path, err); unwritten != nil {
		return unwritten // it is looked at again when Take's time is over
	}
	return err
}

const (
	firstRetry = time.Second
	maxRetry   = time.Hour
)

// postpone writes a failed rotation down, with a wait that doubles up to the policy's interval, at
// most an hour.
func (s *Service) postpone(ctx context.Context, tenant, path string, why error) error {
	return s.store.Write(ctx, func(tx store.Tx) error {
		sec, err := tx.Secret(tenant, path)
		if err != nil {
			return err
		}
		d, err := decode(sec)
		if err != nil || d.Rotation == nil {
			return err
		}
		longest := maxRetry
		if p, _, err := rotation.Find(s.store.Config(), tenant, d.RotationPolicyID); err == nil {
			longest = min(longest, p.Interval.Std())
		}
		d.Rotation.Failures++
		d.Rotation.LastError = fault.From(why).Message
		wait := longest
		if n := d.Rotation.Failures - 1; n < 20 {
			wait = min(longest, firstRetry<<n)
		}
		due := tx.Now().Add(wait/2 + rand.N(wait/2+1)) //nolint:gosec // to get out of step, no secret
		sec.RotateDueAt = &due
		if sec.Doc, err = encode(d); err != nil {
			return err
		}
		return tx.PutSecret(sec)
	})
}
