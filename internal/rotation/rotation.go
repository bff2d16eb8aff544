// Package rotation replaces the values of secrets in time. A rotation policy says how often, a secret
// policy how values are generated; both are configuration, administered here. The [Scheduler] finds
// what is due by an index of the store, so that it costs what is due and nothing else, survives
// restarts, and does a rotation that was missed once, whatever the number of intervals that passed.
//
// What a rotation does to a secret is the secrets' own business, and where the secret is the root of
// an engine it happens at the source.
package rotation

import (
	"hash/fnv"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/store"
)

// Identity is what rotates on schedule, in the audit trail.
const Identity = "system:rotation"

// Policy is a rotation policy as it is stored. Read only.
type Policy struct {
	Description    string        `json:"description"`
	Interval       api.Duration  `json:"interval"`
	GracePeriod    *api.Duration `json:"grace_period,omitempty"`
	WarnBefore     *api.Duration `json:"warn_before,omitempty"`
	AutoGenerate   bool          `json:"auto_generate"`
	SecretPolicyID string        `json:"secret_policy_id,omitempty"`
	IsActive       bool          `json:"is_active"`
}

// Find is the rotation policy of an id and its name; rotation_policy_not_found when there is none.
func Find(cfg *store.Config, tenant, id string) (p *Policy, name string, err error) {
	o := cfg.Object(tenant, store.KindRotationPolicy, id)
	if o == nil {
		return nil, "", fault.New(fault.RotationPolicyNotFound, "find the rotation policy: there is none of this id")
	}
	p, err = store.Decode[Policy](o)
	return p, o.Key, err
}

// Path is the virtual path that the policy of an id is judged on.
func Path(cfg *store.Config, tenant, id string) string {
	if o := cfg.Object(tenant, store.KindRotationPolicy, id); o != nil {
		return at(policiesPath, o.Key)
	}
	return at(policiesPath, id)
}

// early bounds by how much of its interval, and by how much at most, a secret is rotated before its
// time, so that those which were assigned together are not all due together.
const (
	earlyShare = 20
	earlyMost  = 5 * time.Minute
)

// Turn is when a secret whose value is from the moment since is to be rotated: by at, and, so that
// not all are rotated at once, tried from a moment before, which is always the same for one path.
func (p *Policy) Turn(path string, since time.Time) (at, try time.Time) {
	interval := p.Interval.Std()
	at = since.Add(interval)
	h := fnv.New64a()
	h.Write([]byte(path))
	spread := min(interval/earlyShare, earlyMost)
	return at, at.Add(-time.Duration(h.Sum64() % uint64(spread)))
}

// State is the state of a secret that is to be rotated by at, nil where it is not to be.
func (p *Policy) State(at *time.Time, now time.Time) string {
	switch {
	case !p.IsActive || at == nil:
		return api.RotationPaused
	case now.After(*at):
		return api.RotationOverdue
	case p.WarnBefore != nil && now.After(at.Add(-p.WarnBefore.Std())):
		return api.RotationDue
	default:
		return api.RotationScheduled
	}
}
