package lease_test

import (
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
)

// After a pause nobody knows how long it was until a source says so. Who asks for a credential first
// has it all the same.
func TestFirstIssueAfterAPause(t *testing.T) {
	inWorld(t, func(w *world) {
		app := w.caller("app")
		before := w.issue(app, "one", "app", 2*time.Hour)
		time.Sleep(time.Minute)
		w.jump(time.Hour)
		w.one.SetClock(time.Hour)
		w.restart()
		w.wantStatus(w.issue(app, "one", "app").LeaseID, api.LeaseActive)
		w.wantStatus(before.LeaseID, api.LeaseActive)
	})
}
