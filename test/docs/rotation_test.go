package docs_test

import (
	"os/exec"
	"strings"
	"testing"
)

// The page's blocks work in order, as they stand, for an administrator.
func TestRotation(t *testing.T) {
	t.Parallel()
	const page = "../../docs/rotation.md"
	v := startVault(t)
	all, count := blocks(t, page)
	if count["sh"] < 5 || len(all) != count["sh"] {
		t.Fatalf("%s has blocks that this test does not run, or too few: %v", page, count)
	}
	dir := t.TempDir()
	for _, b := range all {
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", b.text))
		cmd.Dir, cmd.Env = dir, v.environ(identity{token: v.adminToken}, dir)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, b.text, out)
		}
		if strings.Contains(b.text, "api-keys") && !strings.Contains(string(out), "sk_live_") {
			t.Errorf("no value by the template:\n%s", out)
		}
	}
	root, err := v.admin.SecretMetadata(t.Context(), "infra/postgres/support/root")
	must(t, err)
	if root.Version != 2 {
		t.Errorf("the root secret has version %d, want 2", root.Version)
	}
}
