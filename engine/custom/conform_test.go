package custom_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/engine/custom"
	"github.com/scaivault/scaivault/internal/statement"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The trial passes a program that keeps the laws, and names those that another breaks.
func TestTrial(t *testing.T) {
	t.Parallel()
	server := pgtest.Shared(t, 15)
	db := server.CreateDB(t)
	server.Exec(t, "CREATE ROLE member_of_"+db)
	h := host(t, map[string]string{"careless": checks + `
case "$request" in
*'"function":"issue"'*) echo '{"data": {"token": "made"}}';;
*) echo '{}';;
esac`, "strict": checks + `
case "$request" in
*'"function":"issue"'*) echo '{"data": {"token": "made"}}';;
*'"lease_id"'*) echo '{}';;
*) echo '{"error": {"kind": "refused", "message": "which lease?"}}';;
esac`})
	addKeeper(t, h)
	try := func(command string) (failed []string, skipped int) {
		o := options(t, command, map[string]any{"parameters": map[string]string{"address": server.Addr(), "database": db}})
		o.Root = map[string]statement.Secret{"username": pgtest.Superuser, "password": statement.Secret(server.SuperPassword())}
		trial := custom.Trial{Type: custom.Type{Host: h}, Options: o, Role: json.RawMessage(`{"member": "member_of_` + db + `"}`)}
		err := trial.Run(t.Context(), func(v custom.Verdict) {
			switch {
			case v.Skipped:
				skipped++
			case !v.Passed:
				failed = append(failed, v.Law+": "+v.Why)
			}
		})
		if err != nil {
			t.Errorf("%s: %v", command, err)
		}
		return failed, skipped
	}
	if failed, skipped := try(keeper); len(failed) > 0 || skipped > 0 {
		t.Errorf("the keeper breaks %v, and %d are skipped", failed, skipped)
	}
	failed, skipped := try("careless")
	if len(failed) != 3 || !strings.Contains(strings.Join(failed, ""), "name_taken") || !strings.Contains(strings.Join(failed, ""), "deadline") || skipped != 3 {
		t.Errorf("the careless one breaks %v, and %d are skipped", failed, skipped)
	}
	failed, _ = try("strict")
	if !strings.Contains(strings.Join(failed, ""), "no more than the name") {
		t.Errorf("the strict one breaks %v", failed)
	}
}
