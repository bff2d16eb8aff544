package failpoints_test

import (
	"bytes"
	"debug/elf"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

const (
	variable = "SCAIVAULT_FAILPOINTS"
	hit      = "scaivault/internal/failpoint.Hit"
)

// TestReleaseHasNone: the program as everybody builds it knows neither the
// variable that arms the points nor their names, and holds no call of them. The
// same look finds all of it in the build with the tag.
func TestReleaseHasNone(t *testing.T) {
	t.Parallel()
	for _, b := range []struct {
		path string
		want bool
	}{{vaulttest.Program(t), false}, {vaulttest.Failing(t), true}} {
		text, err := os.ReadFile(b.path)
		if err != nil {
			t.Fatal(err)
		}
		file, err := elf.Open(b.path)
		if err != nil {
			t.Fatal(err)
		}
		symbols, err := file.Symbols()
		if err != nil {
			t.Fatal(err)
		}
		called := slices.ContainsFunc(symbols, func(s elf.Symbol) bool { return strings.HasSuffix(s.Name, hit) })
		if called != b.want {
			t.Errorf("%s: function %s is there: %v, want %v", b.path, hit, called, b.want)
		}
		texts := []string{variable}
		for _, p := range failpoint.Points() {
			if strings.Contains(string(p), "-") { // shorter ones, and words, come by chance
				texts = append(texts, string(p))
			}
		}
		for _, want := range texts {
			if bytes.Contains(text, []byte(want)) != b.want {
				t.Errorf("%s: the text %q is there: %v, want %v", b.path, want, !b.want, b.want)
			}
		}
	}
}

// TestReleaseCannotBeArmed: every point is armed to kill, and the program that
// everybody builds goes through all of them.
func TestReleaseCannotBeArmed(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, vaulttest.Program(t), place{source: pgtest.Shared(t, 17)}, members())
	var all []string
	for _, p := range failpoint.Points() {
		all = append(all, string(p)+" kill")
	}
	w.first().Arm(t, all...)
	admin := w.first().Admin(t)
	made, err := w.issue(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	longer := api.Duration(life + life/2)
	if _, err := admin.RenewLease(t.Context(), made.LeaseID, api.RenewRequest{Increment: &longer}); err != nil {
		t.Error(err)
	}
	if _, err := admin.RotateRoot(t.Context(), "db"); err != nil {
		t.Error(err)
	}
	if pending, err := admin.RevokeLease(t.Context(), made.LeaseID, patience); err != nil || pending != nil {
		t.Errorf("revoke: %+v, %v", pending, err)
	}
	w.revokeAll(t, w.first())
}
