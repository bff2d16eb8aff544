package docs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/customtest"
	"github.com/scaivault/scaivault/test/pgtest"
)

// The guide to programs works as it stands: the root of its example, its engine, its role, and a
// credential.
func TestCustomGuide(t *testing.T) {
	t.Parallel()
	const guide = "../../docs/engines/custom.md"
	all, count := blocks(t, guide)
	if count["sql"] != 1 || count["sh"] != 1 || len(all) != count["sql"]+count["sh"]+count["json"]+count["console"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	folder := customtest.New(t)
	tenants := customtest.NewTenants(t, folder, pgtest.Shared(t, 17)) // runs the block of SQL
	v := &vault{bin: build(t), pg: tenants.Server}
	v.startServer(t, folder.Env()...)
	for _, b := range all {
		if b.language != "sh" {
			continue
		}
		here := strings.NewReplacer("scaivault_tenants", tenants.Root, "a-long-one", tenants.Password,
			`"port": 5432, "database": "app"`, `"port": `+strings.TrimPrefix(tenants.Server.Addr(), "127.0.0.1:")+`, "database": "`+tenants.Database+`"`)
		dir := t.TempDir()
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", here.Replace(b.text)))
		cmd.Env = []string{"PATH=" + v.bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
		cmd.WaitDelay = time.Minute
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "tenant_acme") {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	if _, err := v.admin.RevokePrefix(t.Context(), "tenants", time.Minute); err != nil {
		t.Error(err)
	}
	if left := tenants.Names(t, "v_acme_"); len(left) > 0 {
		t.Errorf("left at the source: %v", left)
	}
}
