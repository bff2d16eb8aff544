package fill

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	random "math/rand/v2"
	"strings"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/ident"
	"github.com/scaivault/scaivault/internal/store"
)

// callers is how many service accounts share the leases; each asks for some in a row, as a deployment
// does.
const (
	callers = 1000
	inARow  = 20
)

// putEngines gives an empty store three engines of four roles each, at a server that is not there.
func putEngines(tx store.Tx) (engines []*store.Object, err error) {
	for _, name := range []string{"orders-db", "billing-db", "support-db"} {
		e, err := put(tx, store.KindEngine, ident.New(ident.Engine), name, engineDoc{Name: name, Type: "database", Plugin: "postgresql",
			Config: map[string]string{"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/" + name + "?sslmode=disable",
				"root_credentials_path": "fill/" + name},
			DefaultTTL: api.Duration(time.Hour), MaxTTL: api.Duration(365 * 24 * time.Hour), SourceID: "fill"})
		if err != nil {
			return nil, err
		}
		engines = append(engines, e)
		for _, role := range []string{"readonly", "readwrite", "migrate", "report"} {
			if _, err := put(tx, store.KindRole, ident.New("role"), name+"/"+role, roleDoc{Engine: name, EngineID: e.ID, Name: role,
				Renewable: true, Spec: map[string][]string{"privileges": {"USAGE ON SCHEMA public"}}}); err != nil {
				return nil, err
			}
		}
	}
	return engines, nil
}

func put(tx store.Tx, kind store.Kind, id, key string, doc any) (*store.Object, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	o := &store.Object{Tenant: store.DefaultTenant, Kind: kind, ID: id, Key: key, Doc: text}
	return o, tx.PutObject(o, 0)
}

// maker draws lives. It always draws the same ones, but for ids and names.
type maker struct {
	plan   Plan
	roles  []role
	node   string
	epoch  int64
	random *random.Rand
	caller int
}

// life is a lease, and whether and how it ended.
type life struct {
	role     role
	id       string
	username string
	identity string
	lasts    time.Duration // from now on
	due      time.Time     // or until then
	ended    time.Duration // ago; 0 for one that lives
	expired  bool          // ended by itself
	node     string
	epoch    int64
}

func (m *maker) life(n int) life {
	const day = 24 * time.Hour
	if n%inARow == 0 {
		m.caller = m.random.IntN(callers)
	}
	l := life{role: m.roles[n%len(m.roles)], id: ident.New(ident.Lease), node: m.node, epoch: m.epoch,
		identity: fmt.Sprintf("sa:fill-%04d", m.caller),
		lasts:    30*day + time.Duration(m.random.Int64N(int64(335*day)))}
	l.username = "v_" + strings.ReplaceAll(l.role.name, "-", "_") + "_" + strings.ToLower(rand.Text()[:16])
	if !m.plan.Due.IsZero() {
		l.due = m.plan.Due.Add(time.Duration(m.random.Int64N(int64(time.Second))))
	}
	if m.random.Float64() < m.plan.Revoked {
		l.ended, l.expired = day+time.Duration(m.random.Int64N(int64(20*day))), m.random.IntN(2) == 0 // within what is kept by default
	}
	return l
}

// write makes the row and the entries that its life would have left.
func (l life) write(tx store.Tx, now time.Time) error {
	expires := now.Add(l.lasts)
	if !l.due.IsZero() {
		expires = l.due
	}
	row := &store.Lease{
		ID: l.id, Tenant: store.DefaultTenant, EngineID: l.role.engineID, Engine: l.role.engine, Role: l.role.name,
		Identity: l.identity, TokenID: "tok_" + l.identity[3:], Status: api.LeaseActive, Renewable: true,
		Username: l.username, SourceID: l.role.sourceID,
		Recipe:   engine.Recipe(`{"username":"` + l.username + `","group":"sv_0000000000_` + l.role.name + `_00000000","oid":123456}`),
		IssuedAt: now, ExpiresAt: expires, MaxExpiresAt: now.AddDate(1, 0, 0), DueAt: &expires, Node: l.node, Epoch: l.epoch,
	}
	extra := func(outcome string) map[string]any {
		return map[string]any{"engine": l.role.engine, "role": l.role.name, "lease_id": l.id, "username": l.username,
			"ttl_seconds": int64(l.lasts / time.Second), "outcome": outcome}
	}
	entries := []*api.AuditEntry{l.entry("dynamic_generate", extra("requested")), l.entry("dynamic_generate", extra("issued"))}
	if l.ended > 0 {
		entries = append(entries, l.end(row, now.Add(-l.ended))...)
	}
	if err := tx.InsertLease(row); err != nil {
		return err
	}
	for _, e := range entries {
		if err := tx.Audit(store.DefaultTenant, e); err != nil {
			return err
		}
	}
	return nil
}

// end closes the row at a moment, and answers the entries of it.
func (l life) end(row *store.Lease, at time.Time) (entries []*api.AuditEntry) {
	reason, by := api.ReasonRevoked, l.identity
	if l.expired {
		reason, by = api.ReasonExpired, "system:lease"
		row.ExpiresAt = at
	} else {
		entries = append(entries, l.entry("dynamic_revoke", map[string]any{"engine": l.role.engine, "role": l.role.name,
			"lease_id": l.id, "username": l.username, "outcome": "requested"}))
	}
	row.IssuedAt = at.Add(-time.Hour)
	row.Status, row.RevokedAt, row.DueAt = api.LeaseRevoked, &at, nil
	row.Revocation = &api.Revocation{Reason: reason, RequestedAt: at, RequestedBy: by, Attempts: 1}
	dead := l.entry("dynamic_revoke", map[string]any{"engine": l.role.engine, "role": l.role.name, "lease_id": l.id,
		"username": l.username, "identity_id": l.identity, "reason": reason, "outcome": "revoked", "requested_by": by})
	dead.IdentityType, dead.IdentityID = "system", "system:lease"
	return append(entries, dead)
}

func (l life) entry(action string, extra map[string]any) *api.AuditEntry {
	return &api.AuditEntry{Action: action, IdentityType: "service_account", IdentityID: l.identity,
		SecretPath: "dynamic/" + l.role.engine + "/" + l.role.name, SourceIP: "10.20.30.40", UserAgent: "scaivault-go/1.0",
		Success: true, DurationMS: 12, RequestID: ident.New(ident.Request), ExtraData: extra}
}
