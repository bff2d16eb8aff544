package docs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/redistest"
)

// The guide to Redis works as it stands: its root, its engine, its role, and a
// command with a user that is gone afterwards.
func TestRedisGuide(t *testing.T) {
	t.Parallel()
	const guide, address = "../../docs/engines/redis.md", "127.0.0.1:6379"
	all, count := blocks(t, guide)
	if count["redis"] != 1 || count["sh"] != 1 || len(all) != count["redis"]+count["sh"]+count["json"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	server := redistest.Start(t, redistest.Redis)
	server.Do(t, "SET", "app:one", "read with a credential")
	v := &vault{bin: build(t)}
	v.startServer(t)
	for _, b := range all {
		switch b.language {
		case "redis":
			for line := range strings.Lines(b.text) {
				var arguments []any
				for _, word := range strings.Fields(line) {
					arguments = append(arguments, word)
				}
				server.Do(t, arguments...)
			}
		case "sh":
			if !strings.Contains(b.text, address) {
				t.Fatalf("%s does not show the address %s", guide, address)
			}
			dir := t.TempDir()
			cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", strings.ReplaceAll(b.text, address, server.Addr())))
			cmd.Env = []string{"PATH=" + v.bin + ":" + server.Tools() + ":" + os.Getenv("PATH"), "LD_LIBRARY_PATH=" + server.Libraries(),
				"HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
			cmd.WaitDelay = time.Minute
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "read with a credential\n") {
				t.Fatalf("%v:\n%s", err, out)
			}
		}
	}
	for _, name := range server.Users(t) {
		if strings.HasPrefix(name, "v_") {
			t.Errorf("the credential's user %s is still there", name)
		}
	}
}
