package postgres

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/store"
)

// leaseColumns are the columns of a lease's row, in the order of encodeLease. The last two are
// derived: they only serve to find a row.
var leaseColumns = []string{"id", "tenant", "engine_id", "engine", "role", "identity", "token_id",
	"tied", "status", "unconfirmed", "renewable", "username", "source_id", "recipe", "metadata",
	"issued_at", "expires_at", "max_expires_at", "renewed_at", "revoked_at",
	"pending_expires_at", "pending_deadline", "due_at", "deadline", "late_looks", "fence_seq",
	"node", "epoch", "revocation", "claim_node", "claim_epoch", "claim_no", "claim_until", "version", "listed_until",
	"overdue_at", "residue"}

var (
	// leaseList is what scanLease reads.
	leaseList = qualified("leases.", leaseColumns[:len(leaseColumns)-2])
	// insertLease and updateLease take what encodeLease answers; the id comes first.
	insertLease = "INSERT INTO leases (" + qualified("", leaseColumns) + ") VALUES (" + places(len(leaseColumns)) + ")"
	updateLease = "UPDATE leases SET (" + qualified("", leaseColumns) + ") = (" + places(len(leaseColumns)) + ") WHERE id = $1"
)

func qualified(prefix string, columns []string) string {
	return prefix + strings.Join(columns, ", "+prefix)
}

func places(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", i+1)
	}
	return strings.Join(all, ", ")
}

// encodeLease is the row of a lease.
func encodeLease(l *store.Lease) ([]any, error) {
	metadata, err := jsonText(l.Metadata, l.Metadata == nil)
	if err != nil {
		return nil, err
	}
	revocation, err := jsonText(l.Revocation, l.Revocation == nil)
	if err != nil {
		return nil, err
	}
	claim := store.Claim{}
	var claimUntil *int64
	if l.Claim != nil {
		claim, claimUntil = *l.Claim, microsOrNull(&l.Claim.Until)
	}
	return []any{l.ID, l.Tenant, l.EngineID, l.Engine, l.Role, l.Identity, l.TokenID,
		l.Tied, string(l.Status), l.Unconfirmed, l.Renewable, l.Username, l.SourceID, string(l.Recipe), metadata,
		micros(l.IssuedAt), micros(l.ExpiresAt), micros(l.MaxExpiresAt), microsOrNull(l.RenewedAt), microsOrNull(l.RevokedAt),
		microsOrNull(l.PendingExpiresAt), microsOrNull(l.PendingDeadline), microsOrNull(l.DueAt), micros(l.Deadline),
		l.LateLooks, l.FenceSeq, l.Node, l.Epoch, revocation,
		claim.Node, claim.Epoch, claim.No, claimUntil, l.Version, microsOrNull(l.ListedUntil),
		overdueAt(l), l.Revocation != nil && l.Revocation.Residue != ""}, nil
}

// overdueAt is since when the lease should be dead: its end, or the wish to revoke it before.
func overdueAt(l *store.Lease) *int64 {
	if l.Status == api.LeaseRevoked {
		return nil
	}
	at := l.ExpiresAt
	if l.Revocation != nil && l.Revocation.RequestedAt.Before(at) {
		at = l.Revocation.RequestedAt
	}
	return microsOrNull(&at)
}

// scanLease is the lease of a row.
func scanLease(scan scanFunc) (*store.Lease, error) {
	l := &store.Lease{}
	var recipe, metadata, revocation string
	var issued, expires, longest, deadline int64
	var renewed, revoked, pending, pendingDeadline, due, claimUntil, listed *int64
	claim := store.Claim{}
	err := scan(&l.ID, &l.Tenant, &l.EngineID, &l.Engine, &l.Role, &l.Identity, &l.TokenID,
		&l.Tied, (*string)(&l.Status), &l.Unconfirmed, &l.Renewable, &l.Username, &l.SourceID, &recipe, &metadata,
		&issued, &expires, &longest, &renewed, &revoked,
		&pending, &pendingDeadline, &due, &deadline, &l.LateLooks, &l.FenceSeq,
		&l.Node, &l.Epoch, &revocation, &claim.Node, &claim.Epoch, &claim.No, &claimUntil, &l.Version, &listed)
	if err != nil {
		return nil, err
	}
	l.IssuedAt, l.ExpiresAt, l.MaxExpiresAt, l.Deadline = moment(issued), moment(expires), moment(longest), moment(deadline)
	l.RenewedAt, l.RevokedAt, l.DueAt = momentOrNil(renewed), momentOrNil(revoked), momentOrNil(due)
	l.PendingExpiresAt, l.PendingDeadline = momentOrNil(pending), momentOrNil(pendingDeadline)
	l.ListedUntil = momentOrNil(listed)
	if claimUntil != nil {
		claim.Until = moment(*claimUntil)
		l.Claim = &claim
	}
	if recipe != "" {
		l.Recipe = engine.Recipe(recipe)
	}
	for text, into := range map[*string]any{&metadata: &l.Metadata, &revocation: &l.Revocation} {
		if *text == "" {
			continue
		}
		if err := json.Unmarshal([]byte(*text), into); err != nil {
			return nil, damaged("lease "+l.ID, err)
		}
	}
	return l, nil
}

// stored is the lease as it comes back from its row: times in UTC, in whole microseconds.
func stored(l *store.Lease) *store.Lease {
	cut := *l
	for _, t := range []*time.Time{&cut.IssuedAt, &cut.ExpiresAt, &cut.MaxExpiresAt, &cut.Deadline} {
		*t = moment(micros(*t))
	}
	for _, t := range []**time.Time{&cut.RenewedAt, &cut.RevokedAt, &cut.PendingExpiresAt, &cut.PendingDeadline, &cut.DueAt, &cut.ListedUntil} {
		*t = momentOrNil(microsOrNull(*t))
	}
	if l.Claim != nil {
		claim := *l.Claim
		claim.Until = moment(micros(claim.Until))
		cut.Claim = &claim
	}
	return &cut
}

// jsonText is v as JSON, "" when absent.
func jsonText(v any, absent bool) (string, error) {
	if absent {
		return "", nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
