package lease_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/engine"
	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/internal/store"
)

// ssh makes an engine with a role of that name.
func (w *world) ssh(name, config, role string) {
	w.t.Helper()
	ctx, admin := context.Background(), w.caller("admin")
	_, err := w.sources.CreateEngine(ctx, admin, &api.EngineRequest{Name: name, Type: "ssh", Config: json.RawMessage(config)})
	w.must(err)
	_, err = w.sources.CreateRole(ctx, admin, name, []byte(role))
	w.must(err)
}

func (w *world) certificate(c *access.Caller) (leaseID string, serial []byte) {
	w.t.Helper()
	made, err := w.leases.Issue(context.Background(), c, "hosts", "deploy", api.CredsRequest{}, nil)
	w.must(err)
	n, err := strconv.ParseUint(made.Data["serial_number"], 10, 64)
	w.must(err)
	return made.LeaseID, binary.BigEndian.AppendUint64(nil, n)
}

const (
	hosts  = `{"root_credentials_path": "` + rootPath + `", "krl_max_age": "5m"}`
	deploy = `{"name": "deploy", "allowed_users": ["deploy"], "generate_key": true, "default_ttl": "1h"}`
)

// TestRevocationList: a certificate is in the list from the moment that its revocation is asked for until
// a minute after its end, and its lease is revoked when every host has had the time to fetch that.
func TestRevocationList(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ssh("hosts", hosts, deploy)
		ctx, app := context.Background(), w.caller("app")
		one, serial := w.certificate(app)
		_, living := w.certificate(app)
		list := func() []byte {
			t.Helper()
			l, err := w.leases.RevocationList(ctx, tenant, "hosts")
			w.must(err)
			return l.Body
		}
		listed := func(when string, want bool) {
			t.Helper()
			if body := list(); bytes.Contains(body, serial) != want || bytes.Contains(body, living) {
				t.Errorf("%s the list is wrong", when)
			}
		}
		listed("before", false)
		begun := time.Now()
		pending, err := w.leases.Revoke(ctx, app, one, 10*time.Second)
		w.must(err)
		if pending == nil || pending.Revocation.EffectiveAt == nil || time.Since(begun) > 100*time.Millisecond {
			t.Fatalf("after %s: %+v", time.Since(begun), pending)
		}
		if in := pending.Revocation.EffectiveAt.Sub(begun); in != 5*time.Minute+engine.ListAge {
			t.Errorf("it is dead in %s", in)
		}
		time.Sleep(time.Until(begun.Add(engine.ListAge)))
		listed("a second after", true)
		time.Sleep(time.Until(begun.Add(4 * time.Minute)))
		w.wantStatus(one, api.LeaseRevoking)
		w.restart()
		listed("after a restart", true)
		time.Sleep(time.Until(begun.Add(6 * time.Minute)))
		w.wantDead(one, api.ReasonRevoked)
		listed("when it is dead", true)
		time.Sleep(time.Until(begun.Add(time.Hour + 50*time.Second)))
		if !bytes.Contains(list(), serial) {
			t.Error("it left the list at its end: a host whose clock is behind lets it in")
		}
		time.Sleep(time.Until(begun.Add(time.Hour + 62*time.Second)))
		if body := list(); bytes.Contains(body, serial) || bytes.Contains(body, living) {
			t.Error("it is in the list beyond its end")
		}
	})
}

// TestCertificateConfirmedDurably: what comes of a power cut is a process that ends without its relaxed
// writes. The lease of a certificate that was given is known to be given, so that its revocation says from
// when hosts know it.
func TestCertificateConfirmedDurably(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ssh("hosts", hosts, deploy)
		app := w.caller("app")
		var relaxed []string
		w.store.mu.Lock()
		w.store.before = func(kind string) error {
			if kind == "relaxed" {
				relaxed = append(relaxed, kind)
				return lostStore()
			}
			return nil
		}
		w.store.mu.Unlock()
		id, _ := w.certificate(app)
		if l := w.row(id); l.Status != api.LeaseActive || len(relaxed) > 0 {
			t.Errorf("the lease is %s after %d relaxed writes", l.Status, len(relaxed))
		}
	})
}

// TestListedBeyondTheEndOfACertificate: the end in a certificate is told by the node's clock, which may be
// ahead of the store's. It is in the list until both have come.
func TestListedBeyondTheEndOfACertificate(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"behind": -10 * time.Minute, "ahead": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.ahead = by
				w.restart()
				w.ssh("hosts", hosts, deploy)
				id, _ := w.certificate(w.caller("app"))
				l := w.row(id)
				var made struct {
					Ends int64 `json:"ends"`
				}
				w.must(json.Unmarshal(l.Recipe, &made))
				if l.ListedUntil.Sub(time.Unix(made.Ends, 0)) < time.Minute || l.ListedUntil.Sub(l.ExpiresAt) < time.Minute {
					t.Errorf("it is in the list until %s, ends at %s and its lease at %s", l.ListedUntil, time.Unix(made.Ends, 0), l.ExpiresAt)
				}
			})
		})
	}
}

// TestRevocationListOutlivesEngine: the key of the CA is still there when its engine is deleted, and an
// engine that is made anew signs with it. What was revoked before stays revoked.
func TestRevocationListOutlivesEngine(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ssh("hosts", hosts, deploy)
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		one, serial := w.certificate(app)
		_, err := w.leases.Revoke(ctx, app, one, 10*time.Second)
		w.must(err)
		_, forced := w.certificate(app)
		_, err = w.sources.DeleteEngine(ctx, admin, "hosts", true, time.Second)
		w.must(err)
		time.Sleep(6 * time.Minute)
		_, err = w.leases.RevocationList(ctx, tenant, "hosts")
		w.wantCode(err, fault.EngineNotFound)
		w.ssh("hosts", hosts, deploy)
		list, err := w.leases.RevocationList(ctx, tenant, "hosts")
		w.must(err)
		if !bytes.Contains(list.Body, serial) || !bytes.Contains(list.Body, forced) {
			t.Error("what was revoked is accepted again")
		}
	})
}

// A list that is not whole is not answered.
func TestNoRevocationList(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ssh("hosts", hosts, deploy)
		w.ssh("passwords", `{"mode": "otp"}`, `{"name": "deploy", "allowed_users": ["deploy"], "cidr_list": ["10.0.0.0/8"]}`)
		for _, name := range []string{"one", "passwords", "none"} {
			_, err := w.leases.RevocationList(context.Background(), tenant, name)
			w.wantCode(err, fault.EngineNotFound)
		}
		_, err := w.leases.RevocationList(context.Background(), tenant, "hosts")
		w.must(err)
		w.putQuarantine(quarantine.State{Active: true, Reason: quarantine.ReasonRestored, Since: time.Now()})
		_, err = w.leases.RevocationList(context.Background(), tenant, "hosts")
		w.wantCode(err, fault.ServiceUnavailable)
		w.putQuarantine(quarantine.State{})
		time.Sleep(engine.ListAge)
		w.store.mu.Lock()
		w.store.dead = true
		w.store.mu.Unlock()
		_, err = w.leases.RevocationList(context.Background(), tenant, "hosts")
		w.wantCode(err, fault.ServiceUnavailable)
	})
}

// TestVerify: a password that a fence covers is dead from the fence on, although its row lives still; and
// so is one of a lease that was never confirmed.
func TestVerify(t *testing.T) {
	inWorld(t, func(w *world) {
		w.ssh("passwords", `{"mode": "otp"}`, `{"name": "deploy", "allowed_users": ["deploy"], "cidr_list": ["10.0.0.0/8"]}`)
		ctx, app, admin := context.Background(), w.caller("app"), w.caller("admin")
		password := func() (id string, p engine.Presented) {
			t.Helper()
			made, err := w.leases.Issue(ctx, app, "passwords", "deploy", api.CredsRequest{}, []byte(`{"ip": "10.1.2.3"}`))
			w.must(err)
			return made.LeaseID, engine.Presented{Secret: statement.Secret(made.Data["otp"]), Username: "deploy", Address: "10.1.2.3"}
		}
		id, p := password()
		_, err := w.leases.Verify(ctx, app, "passwords", p)
		w.wantCode(err, fault.AccessDenied)
		used, err := w.leases.Verify(ctx, admin, "passwords", p)
		w.must(err)
		if used.LeaseID != id || used.Role != "deploy" {
			t.Errorf("%+v", used)
		}
		w.wantDead(id, api.ReasonUsed)
		_, err = w.leases.Verify(ctx, admin, "passwords", p)
		w.wantCode(err, fault.Forbidden)

		id, p = password()
		w.must(w.base.Write(ctx, func(tx store.Tx) error {
			if err := tx.LockTenant(tenant, true); err != nil {
				return err
			}
			return tx.AddFence(&store.Fence{Tenant: tenant, EngineID: w.row(id).EngineID, Reason: api.ReasonPrefix, By: "user:admin", At: tx.Now()})
		}))
		if w.row(id).Status != api.LeaseActive {
			t.Fatal("the fence is marked already: this shows nothing")
		}
		_, err = w.leases.Verify(ctx, admin, "passwords", p)
		w.wantCode(err, fault.Forbidden)

		id, p = password()
		w.must(w.base.Write(ctx, func(tx store.Tx) error {
			_, err := tx.UpdateLease(id, func(l *store.Lease) error { l.Status = api.LeaseIssuing; return nil })
			return err
		}))
		_, err = w.leases.Verify(ctx, admin, "passwords", p)
		w.wantCode(err, fault.Forbidden)
	})
}
