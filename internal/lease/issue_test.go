package lease_test

import (
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
)

func TestIssue(t *testing.T) {
	inWorld(t, func(w *world) {
		made := w.issue(w.caller("app"), "one", "app")
		if !w.one.CanLogin(made.Data["username"]) {
			t.Fatal("the credential does not work at the source")
		}
		l := w.wantStatus(made.LeaseID, api.LeaseActive)
		if !l.ExpiresAt.Equal(l.IssuedAt.Add(time.Hour)) || !l.MaxExpiresAt.Equal(l.IssuedAt.Add(8*time.Hour)) || made.TTL != 3600 {
			t.Errorf("ends: %+v", l)
		}
		w.wantEntry("dynamic_generate", true, made.LeaseID, "requested")
		w.wantEntry("dynamic_generate", true, made.LeaseID, "issued")
		time.Sleep(time.Hour + time.Second)
		w.wantDead(made.LeaseID, api.ReasonExpired)
		w.wantEntry("dynamic_revoke", true, made.LeaseID, "revoked")
	})
}
