package access_test

import (
	"testing"
	"time"

	"github.com/scaivault/scaivault/internal/access"
	"github.com/scaivault/scaivault/internal/fault"
	"github.com/scaivault/scaivault/internal/quarantine"
	"github.com/scaivault/scaivault/internal/store"
)

func (w *world) quarantine(active bool) {
	w.t.Helper()
	w.write(func(tx store.Tx) error {
		return quarantine.Put(tx, &quarantine.State{Active: active, Reason: quarantine.ReasonRestored, Since: time.Now()})
	})
}

// A store in quarantine is looked at, and who may do what in it is put right; whatever is not known
// to be one of these is refused, and the refusal is recorded.
func TestQuarantineServesLooks(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	admin := w.caller("user:admin", access.ScopeAdmin)
	w.quarantine(true)
	for _, tt := range []struct {
		ask  access.Ask
		want fault.Code
	}{
		{access.Ask{Action: "read"}, ""},
		{access.Ask{Action: "list"}, ""},
		{access.Ask{Action: "auth_token_delete"}, ""},
		{access.Ask{Action: "policy_update"}, ""},
		{access.Ask{Action: "system_resume"}, ""},
		{access.Ask{Action: "dynamic_engine_update", Looks: true}, ""},
		{access.Ask{Action: "dynamic_engine_update"}, fault.ServiceUnavailable},
		{access.Ask{Action: "dynamic_generate"}, fault.ServiceUnavailable},
		{access.Ask{Action: "write"}, fault.ServiceUnavailable},
		{access.Ask{Action: "delete"}, fault.ServiceUnavailable},
		{access.Ask{Action: "rotate"}, fault.ServiceUnavailable},
		{access.Ask{Action: "of_a_later_release"}, fault.ServiceUnavailable},
	} {
		_, err := w.door.Admit(t.Context(), admin, tt.ask)
		if got := fault.CodeOf(err); got != tt.want {
			t.Errorf("%s: code %q, want %q", tt.ask.Action, got, tt.want)
		}
		if tt.want == "" {
			continue
		}
		if e := w.lastEntry(); e.Success || e.Action != tt.ask.Action {
			t.Errorf("%s: recorded %+v", tt.ask.Action, e)
		}
	}
	w.quarantine(false)
	if _, err := w.door.Admit(t.Context(), admin, access.Ask{Action: "write"}); err != nil {
		t.Errorf("after the quarantine: %v", err)
	}
}

// What was admitted before the quarantine began is not written any more.
func TestQuarantineHoldsInTheTransaction(t *testing.T) {
	t.Parallel()
	w := setup(t, noLimits)
	pass, err := w.door.Admit(t.Context(), w.caller("user:admin", access.ScopeAdmin), access.Ask{Action: "write"})
	if err != nil {
		t.Fatal(err)
	}
	w.quarantine(true)
	err = pass.Write(t.Context(), func(tx store.Tx, _ *store.Config) error { return tx.PutMeta("written", []byte("yes")) })
	wantCode(t, err, fault.ServiceUnavailable)
	w.write(func(tx store.Tx) error {
		if v, err := tx.Meta("written"); err != nil || v != nil {
			t.Errorf("written: %q, %v", v, err)
		}
		return nil
	})
}
