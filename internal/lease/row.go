package lease

import (
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/store"
)

// ask marks a live row for revocation, due now.
func ask(l *store.Lease, reason, by string, now time.Time) {
	l.Status = api.LeaseRevoking
	l.Revocation = &api.Revocation{Reason: reason, RequestedAt: now, RequestedBy: by}
	l.PendingExpiresAt, l.PendingDeadline = nil, nil
	l.DueAt = &now
}

// end closes a row: its account is dead at the source, or never was.
func end(l *store.Lease, now time.Time, reason string) {
	l.Status, l.RevokedAt = api.LeaseRevoked, &now
	if l.Revocation == nil {
		l.Revocation = &api.Revocation{Reason: reason, RequestedAt: now, RequestedBy: Identity}
	}
	l.Revocation.NextAttemptAt = nil
	l.PendingExpiresAt, l.PendingDeadline, l.Claim, l.DueAt = nil, nil, nil, nil
}

// applyFences asks for the revocation of a live row that a newer fence covers.
func applyFences(l *store.Lease, fences []*store.Fence, now time.Time) {
	for _, f := range fences {
		if f.Matches(l) {
			ask(l, f.Reason, f.By, now)
			return
		}
	}
}

// outcome is the extra_data of a generation's second entry.
func outcome(l *store.Lease, what string) map[string]any {
	return map[string]any{"engine": l.Engine, "role": l.Role, "lease_id": l.ID, "username": l.Username,
		"ttl_seconds": int64(l.ExpiresAt.Sub(l.IssuedAt) / time.Second), "outcome": what}
}

// entry is an audit entry of the lease manager itself.
func entry(l *store.Lease, action string, success bool, extra map[string]any) *api.AuditEntry {
	all := map[string]any{"engine": l.Engine, "role": l.Role, "lease_id": l.ID, "username": l.Username,
		"identity_id": l.Identity}
	for k, v := range extra {
		all[k] = v
	}
	return &api.AuditEntry{Action: action, IdentityType: "system", IdentityID: Identity,
		SecretPath: "dynamic/" + l.Engine + "/" + l.Role, Success: success, ExtraData: all}
}

// view is the lease as shown. One past its end is shown as revoking from that moment, whatever has
// been tried yet.
func view(l *store.Lease, now time.Time) *api.Lease {
	out := &api.Lease{LeaseID: l.ID, Engine: l.Engine, Role: l.Role, IdentityID: l.Identity, Status: l.Status,
		Unconfirmed: l.Unconfirmed, Username: l.Username, IssuedAt: l.IssuedAt, ExpiresAt: l.ExpiresAt,
		MaxExpiresAt: l.MaxExpiresAt, RenewedAt: l.RenewedAt, RevokedAt: l.RevokedAt, Renewable: l.Renewable,
		Revocation: l.Revocation, Metadata: l.Metadata}
	if l.Status == api.LeaseActive && !l.ExpiresAt.After(now) {
		out.Status = api.LeaseRevoking
		out.Revocation = &api.Revocation{Reason: api.ReasonExpired, RequestedAt: l.ExpiresAt, RequestedBy: Identity}
	}
	return out
}

// credential is the answer that holds the secret.
func credential(i *issuance) *api.Credential {
	l := i.lease
	out := &api.Credential{LeaseID: l.ID, Engine: l.Engine, Role: l.Role, Data: make(map[string]string, len(i.plan.Data)),
		TTL: int64(l.ExpiresAt.Sub(l.IssuedAt) / time.Second), Renewable: l.Renewable,
		IssuedAt: l.IssuedAt, ExpiresAt: l.ExpiresAt, MaxExpiresAt: l.MaxExpiresAt}
	for k, v := range i.plan.Data {
		out.Data[k] = v.Reveal()
	}
	return out
}
