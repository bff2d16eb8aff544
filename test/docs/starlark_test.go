package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/rabbitmqtest"
)

// The guide to scripts works as it stands: the settings of the server, the root in RabbitMQ, the engine,
// its role, and a credential.
func TestStarlarkGuide(t *testing.T) {
	t.Parallel()
	const guide, address = "../../docs/engines/custom-starlark.md", "127.0.0.1:15672"
	all, count := blocks(t, guide)
	if count["text"] != 1 || count["rabbitmq"] != 1 || count["sh"] != 1 || len(all) != 3 {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	server, err := rabbitmqtest.Start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Stop() })
	examples, err := filepath.Abs("../../docs/examples")
	must(t, err)
	v := &vault{bin: build(t)}
	for _, b := range all {
		here := strings.NewReplacer(address, server.API, "docs/examples", examples).Replace(b.text)
		switch b.language {
		case "text":
			v.startServer(t, strings.Fields(here)...)
		case "rabbitmq":
			for line := range strings.Lines(here) {
				must(t, rabbitmqctl(server, strings.Fields(line)))
			}
		case "sh":
			dir := t.TempDir()
			cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", here))
			cmd.Env = []string{"PATH=" + v.bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
			cmd.WaitDelay = time.Minute
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "v_worker_") {
				t.Fatalf("%v:\n%s", err, out)
			}
		}
	}
	if result, err := v.admin.RevokePrefix(t.Context(), "messages", time.Minute); err != nil || result.Revoked != 1 {
		t.Errorf("revoke: %+v, %v", result, err)
	}
	names, err := server.Users()
	must(t, err)
	for _, name := range names {
		if strings.HasPrefix(name, "v_") {
			t.Errorf("the credential's user %s is still there", name)
		}
	}
}

// rabbitmqctl does what the program of that name does, by the API: it speaks to nodes of Erlang, and
// comes with an Elixir of its own.
func rabbitmqctl(server *rabbitmqtest.Server, words []string) error {
	switch {
	case len(words) == 4 && words[1] == "add_user":
		return server.AddUser(words[2], words[3], "")
	case len(words) == 4 && words[1] == "set_user_tags":
		return server.AddTags(words[2], words[3])
	}
	return exec.ErrNotFound
}
