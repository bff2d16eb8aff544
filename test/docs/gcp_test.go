package docs_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/gcptest"
)

// The guide to Google Cloud works as it stands: its root, its engine, its role, and a command with a key
// in a file. What gcloud does there is done at the server of the tests.
func TestGCPGuide(t *testing.T) {
	t.Parallel()
	const guide, project, bound = "../../docs/engines/gcp.md", "my-project-123", "roles/storage.objectViewer"
	all, count := blocks(t, guide)
	// The kubeconfig is used by the tests of test/e2e.
	if count["sh"] != 1 || count["yaml"] != 1 || count["gcloud"] != 1 || count["kubeconfig"] != 1 || len(all) != 4+count["json"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	source := gcptest.StartPlain(t)
	root := source.AddAccount("scaivault-root")
	source.AddResource("projects/" + gcptest.Project)
	source.DefineRole("roles/scaivault", gcptest.RoleOf(string(text))...)
	source.DefineRole(bound, "storage.objects.get")
	source.Grant("projects/"+gcptest.Project, "roles/scaivault", "serviceAccount:"+root.Email)
	endpoints := fmt.Sprintf(`{"iam": %[1]q, "iamcredentials": %[1]q, "cloudresourcemanager": %[1]q, "oauth2": %[1]q}`, source.URL())
	v := &vault{bin: build(t)}
	v.startServer(t)
	for _, b := range all {
		if b.language != "sh" {
			continue
		}
		dir, temporary := t.TempDir(), t.TempDir()
		write(t, dir, "root.json", string(source.AddKey(root.Email)))
		commands := strings.ReplaceAll(b.text, "--config project="+project, "--config project="+project+" --config 'endpoints="+endpoints+"'")
		commands = strings.ReplaceAll(commands, project, gcptest.Project)
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", commands))
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + v.bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + temporary, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
		cmd.WaitDelay = time.Minute
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"client_email": "v-reader-`) {
			t.Fatalf("%v:\n%s", err, out)
		}
		if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
			t.Errorf("the file with the key is left: %v, %v", left, err)
		}
	}
	for _, a := range source.Accounts() {
		if a.Email != root.Email || len(a.Keys) != 1 {
			t.Errorf("%s is still there, with %d keys", a.Email, len(a.Keys))
		}
	}
}
