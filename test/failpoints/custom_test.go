package failpoints_test

import (
	"slices"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/customtest"
	"github.com/scaivault/scaivault/test/pgtest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixCustom kills the server while a program makes or ends a credential, and around it: the
// example of the guide. The short form has the moments in which a program runs or has just ended.
func TestCrashMatrixCustom(t *testing.T) {
	t.Parallel()
	for _, s := range everywhere() {
		running := slices.Contains([]failpoint.Point{failpoint.F3, failpoint.F5, failpoint.F6, failpoint.R2, failpoint.R3}, s.point)
		if slices.Contains(unreachedByPrograms(), s.point) || !full() && !running {
			continue
		}
		t.Run(string(s.point), func(t *testing.T) {
			t.Parallel()
			folder := customtest.New(t)
			tenants := customtest.NewTenants(t, folder, pgtest.Shared(t, 17))
			role := newRole()
			target := target{
				engine: "custom",
				config: client.Document{"runtime": "exec", "command": customtest.Program, "parameters": tenants.Parameters()},
				form:   client.Document{"parameters": client.Document{"tenant": role}},
				root:   map[string]string{"username": tenants.Root, "password": tenants.Password},
				users:  func(t *testing.T) []string { return tenants.Names(t, "v_"+role+"_") },
				login: func(t *testing.T, data map[string]string) error {
					conn, err := tenants.Login(t.Context(), data)
					if err == nil {
						err = conn.Close(t.Context())
					}
					return err
				},
			}
			target.play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t), folder.Env()...))
		})
	}
}

// unreachedByPrograms are the points that lie in the dark: a program does in one run what others do in
// several steps, and its root is not rotated.
func unreachedByPrograms() []failpoint.Point {
	return []failpoint.Point{failpoint.F4, failpoint.Disabled, failpoint.RootPlanned, failpoint.RootKept, failpoint.RootSent,
		failpoint.RootSet, failpoint.RootProved, failpoint.RootPromoted, failpoint.RootDone}
}
