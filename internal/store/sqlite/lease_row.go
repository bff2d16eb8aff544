package sqlite

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/store"
)

// leaseColumns are the columns of a lease's row, in the order of encodeLease and decodeLease. The
// last two are derived: they only serve to find a row.
var leaseColumns = []string{"id", "tenant", "engine_id", "engine", "role", "identity", "token_id",
	"tied", "status", "unconfirmed", "renewable", "username", "source_id", "recipe", "metadata",
	"issued_at", "expires_at", "max_expires_at", "renewed_at", "revoked_at",
	"pending_expires_at", "pending_deadline", "due_at", "deadline", "late_looks", "fence_seq",
	"node", "epoch", "revocation", "claim_node", "claim_epoch", "claim_no", "claim_until", "version", "listed_until",
	"overdue_at", "residue"}

// leaseList is leaseColumns for a SELECT or an INSERT.
var leaseList = strings.Join(leaseColumns, ", ")

// encodeLease is the row of a lease: values as the driver gives them back (int64, string, nil), so
// that two rows can be compared column by column.
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
	var claimUntil any
	if l.Claim != nil {
		claim, claimUntil = *l.Claim, micros(l.Claim.Until)
	}
	return []any{l.ID, l.Tenant, l.EngineID, l.Engine, l.Role, l.Identity, l.TokenID,
		flag(l.Tied), string(l.Status), flag(l.Unconfirmed), flag(l.Renewable), l.Username, l.SourceID, string(l.Recipe), metadata,
		micros(l.IssuedAt), micros(l.ExpiresAt), micros(l.MaxExpiresAt), microsOrNull(l.RenewedAt), microsOrNull(l.RevokedAt),
		microsOrNull(l.PendingExpiresAt), microsOrNull(l.PendingDeadline), microsOrNull(l.DueAt), micros(l.Deadline),
		int64(l.LateLooks), l.FenceSeq, l.Node, l.Epoch, revocation,
		claim.Node, claim.Epoch, claim.No, claimUntil, l.Version, microsOrNull(l.ListedUntil),
		overdueAt(l), flag(l.Revocation != nil && l.Revocation.Residue != "")}, nil
}

// overdueAt is since when the lease should be dead: its end, or the wish to revoke it before.
func overdueAt(l *store.Lease) any {
	if l.Status == api.LeaseRevoked {
		return nil
	}
	at := l.ExpiresAt
	if l.Revocation != nil && l.Revocation.RequestedAt.Before(at) {
		at = l.Revocation.RequestedAt
	}
	return micros(at)
}

// decodeLease is the lease of a row.
func decodeLease(row []any) (*store.Lease, error) {
	r := values{row: row}
	l := &store.Lease{
		ID: r.text(), Tenant: r.text(), EngineID: r.text(), Engine: r.text(), Role: r.text(),
		Identity: r.text(), TokenID: r.text(), Tied: r.number() != 0, Status: api.LeaseStatus(r.text()),
		Unconfirmed: r.number() != 0, Renewable: r.number() != 0,
		Username: r.text(), SourceID: r.text(), Recipe: engine.Recipe(r.text()),
	}
	r.document(&l.Metadata)
	l.IssuedAt, l.ExpiresAt, l.MaxExpiresAt = moment(r.number()), moment(r.number()), moment(r.number())
	l.RenewedAt, l.RevokedAt, l.PendingExpiresAt = r.moment(), r.moment(), r.moment()
	l.PendingDeadline, l.DueAt, l.Deadline = r.moment(), r.moment(), moment(r.number())
	l.LateLooks, l.FenceSeq, l.Node, l.Epoch = int(r.number()), r.number(), r.text(), r.number()
	r.document(&l.Revocation)
	claim := store.Claim{Node: r.text(), Epoch: r.number(), No: r.number()}
	if until := r.moment(); until != nil {
		claim.Until = *until
		l.Claim = &claim
	}
	l.Version, l.ListedUntil = r.number(), r.moment()
	if len(l.Recipe) == 0 {
		l.Recipe = nil
	}
	return l, r.err
}

func scanLease(scan scanFunc) (row []any, err error) {
	row = make([]any, len(leaseColumns))
	dest := make([]any, len(row))
	for i := range row {
		dest[i] = &row[i]
	}
	return row, scan(dest...)
}

// values reads a row from left to right.
type values struct {
	row []any
	err error
}

func (v *values) next() any {
	x := v.row[0]
	v.row = v.row[1:]
	return x
}

func (v *values) text() string {
	s, _ := v.next().(string)
	return s
}

func (v *values) number() int64 {
	n, _ := v.next().(int64)
	return n
}

func (v *values) moment() *time.Time {
	n, ok := v.next().(int64)
	if !ok {
		return nil
	}
	t := moment(n)
	return &t
}

func (v *values) document(into any) {
	if text := v.text(); text != "" && v.err == nil {
		v.err = json.Unmarshal([]byte(text), into)
	}
}

// jsonText is v as JSON, "" when absent.
func jsonText(v any, absent bool) (string, error) {
	if absent {
		return "", nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}
