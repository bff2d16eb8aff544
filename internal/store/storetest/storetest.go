// Package storetest is the suite that every store passes: the contract of package store, as tests.
package storetest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// Opener opens the store that belongs to a folder, new at first, then the same again. Its chain is
// [Chain]. It closes the store at the end of the test; a test may have closed it before.
type Opener func(t *testing.T, dir string) store.Store

// Chain is the audit chain's MAC in tests.
func Chain(prev, message []byte) []byte {
	m := hmac.New(sha256.New, []byte("storetest"))
	m.Write(prev)
	m.Write(message)
	return m.Sum(nil)
}

// Run runs the whole suite. Every subtest has a store of its own and can be run alone.
func Run(t *testing.T, open Opener) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, b *bundle)
	}{
		{"Objects/Lifecycle", objectLifecycle},
		{"Objects/Keys", objectKeys},
		{"Objects/Versions", objectVersions},
		{"Objects/List", objectList},
		{"Objects/Config", objectConfig},
		{"Objects/Tokens", objectTokens},
		{"Leases/RoundTrip", leaseRoundTrip},
		{"Leases/Usernames", leaseUsernames},
		{"Leases/Update", leaseUpdate},
		{"Leases/Counts", leaseCounts},
		{"Leases/Filters", leaseFilters},
		{"Leases/Listed", leaseListed},
		{"Leases/Combinations", leaseCombinations},
		{"Leases/Due", leaseDue},
		{"Leases/Claims", leaseClaims},
		{"Leases/NextDue", leaseNextDue},
		{"Leases/Overdue", leaseOverdue},
		{"Leases/Trim", leaseTrim},
		{"Fences/Numbers", fenceNumbers},
		{"Fences/Targets", fenceTargets},
		{"Secrets/Versions", secretVersions},
		{"Secrets/List", secretList},
		{"Secrets/Rotation", secretRotation},
		{"Secrets/RotationTaken", secretRotationTaken},
		{"Audit/Chain", auditChain},
		{"Audit/Filters", auditFilters},
		{"Audit/Trim", auditTrim},
		{"Audit/Counts", auditCounts},
		{"Writes/Undo", writeUndo},
		{"Writes/AuditIsAtomic", writeAuditAtomic},
		{"Writes/Panic", writePanic},
		{"Writes/Cancelled", writeCancelled},
		{"Writes/Relaxed", writeRelaxed},
		{"Writes/Concurrent", writeConcurrent},
		{"Writes/Snapshot", writeSnapshot},
		{"Writes/Meta", writeMeta},
		{"Life/Reopen", lifeReopen},
		{"Life/Closed", lifeClosed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &bundle{opener: open, dir: t.TempDir()}
			b.Store = open(t, b.dir)
			tt.run(t, b)
		})
	}
}

// bundle is a store with helpers that end the test when the store fails.
type bundle struct {
	store.Store
	opener Opener
	dir    string
}

// reopen closes the store and opens it again.
func (b *bundle) reopen(t *testing.T) {
	t.Helper()
	must(t, b.Close())
	b.Store = b.opener(t, b.dir)
}

func (b *bundle) write(t *testing.T, fn func(tx store.Tx) error) {
	t.Helper()
	must(t, b.Write(t.Context(), fn))
}

func (b *bundle) read(t *testing.T, fn func(r store.Reader)) {
	t.Helper()
	must(t, b.Read(t.Context(), func(r store.Reader) error { fn(r); return nil }))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v (%v)", err, errors.Unwrap(err))
	}
}

// value is must for what also answers a value.
func value[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if fault.CodeOf(err) != code {
		t.Errorf("error = %v, want %s", err, code)
	}
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	g, w := canonical(got), canonical(want)
	if g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// canonical is a value's JSON: rows compare by what they say, times as instants in UTC.
func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(err)
	}
	return string(b)
}

// noon is a moment with microseconds; the tests count from it.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func at(d time.Duration) time.Time { return noon.Add(d) }

func atp(d time.Duration) *time.Time {
	t := at(d)
	return &t
}

// lease makes an issuing lease of engine eng_a, role "ro", due and ending in an hour.
func lease(change ...func(l *store.Lease)) *store.Lease {
	id := ident.New(ident.Lease)
	l := &store.Lease{ID: id, Tenant: store.DefaultTenant, EngineID: "eng_a", Engine: "a", Role: "ro",
		Identity: "sa:ci", Status: api.LeaseIssuing, Renewable: true, Username: "v_ro_" + id[len(id)-16:],
		Recipe: engine.Recipe(`{"name":"x"}`), IssuedAt: noon, ExpiresAt: at(time.Hour),
		MaxExpiresAt: at(24 * time.Hour), DueAt: atp(time.Hour), Deadline: at(15 * time.Second),
		Node: "n_1", Epoch: 1}
	for _, c := range change {
		c(l)
	}
	return l
}

func (b *bundle) insert(t *testing.T, leases ...*store.Lease) {
	t.Helper()
	b.write(t, func(tx store.Tx) error {
		for _, l := range leases {
			if err := tx.InsertLease(l); err != nil {
				return err
			}
		}
		return nil
	})
}

func (b *bundle) update(t *testing.T, id string, fn func(l *store.Lease)) (l *store.Lease) {
	t.Helper()
	b.write(t, func(tx store.Tx) (err error) {
		l, err = tx.UpdateLease(id, func(l *store.Lease) error { fn(l); return nil })
		return err
	})
	return l
}

func revoked(when time.Time) func(l *store.Lease) {
	return func(l *store.Lease) {
		l.Status, l.RevokedAt, l.DueAt = api.LeaseRevoked, &when, nil
		l.Revocation = &api.Revocation{Reason: api.ReasonRevoked, RequestedAt: when, RequestedBy: "user:ops"}
	}
}

func ids(leases []*store.Lease) []string {
	list := []string{}
	for _, l := range leases {
		list = append(list, l.ID)
	}
	return list
}

func object(kind store.Kind, id, key, doc string) *store.Object {
	return &store.Object{Tenant: store.DefaultTenant, Kind: kind, ID: id, Key: key, Doc: json.RawMessage(doc)}
}

func put(o *store.Object, ifVersion int64) func(store.Tx) error {
	return func(tx store.Tx) error { return tx.PutObject(o, ifVersion) }
}

func entry(action string) *api.AuditEntry {
	return &api.AuditEntry{Action: action, IdentityType: "service_account", IdentityID: "sa:ci",
		SecretPath: "dynamic/a/ro", Success: true, RequestID: "req_1"}
}
