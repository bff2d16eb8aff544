package failpoints_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/rabbitmqtest"
	"github.com/scaivault/scaivault/test/servertest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// TestCrashMatrixStarlark kills the server at every point that is reached with a script: the one of the
// guide, on one RabbitMQ for all.
func TestCrashMatrixStarlark(t *testing.T) {
	t.Parallel()
	server, err := rabbitmqtest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	if err := server.AddUser(servertest.GuideRoot, servertest.GuidePassword, "administrator"); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("../../docs/examples/rabbitmq.star")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range everywhere() {
		if !reachedByScript(s.point) {
			continue
		}
		t.Run(string(s.point), func(t *testing.T) {
			t.Parallel()
			role := newRole()
			node := vaulttest.StartProgram(t, vaulttest.Failing(t), "CUSTOM_SCRIPT_HOSTS="+server.API, "CUSTOM_SCRIPT_NETWORKS=127.0.0.0/8")
			inRabbitMQ(server, string(script), role).play(t, s, role, node)
		})
	}
}

// reachedByScript are the points that a script comes to: a root that only a script knows how to use is
// rotated by hand. The short form has those at the source.
func reachedByScript(p failpoint.Point) bool {
	if full() {
		return !strings.HasPrefix(string(p), "root-")
	}
	return slices.Contains([]failpoint.Point{failpoint.F3, failpoint.F4, failpoint.F5, failpoint.F6, failpoint.R2, failpoint.Disabled}, p)
}

func inRabbitMQ(server *rabbitmqtest.Server, script, role string) target {
	return target{
		engine: "custom",
		config: client.Document{
			"runtime": "starlark", "script": script, "http_hosts": []string{"http://" + server.API}, "parameters": client.Document{"url": "http://" + server.API},
		},
		form: client.Document{"parameters": client.Document{"read": ".*", "write": ".*"}},
		root: rootOf(servertest.GuideRoot),
		users: func(t *testing.T) []string {
			t.Helper()
			names, err := server.Users()
			if err != nil {
				t.Fatal(err)
			}
			return slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "v_"+role+"_") })
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			session, err := server.Login(t.Context(), data["username"], data["password"])
			if err == nil {
				session.Close()
			}
			return err
		},
	}
}
