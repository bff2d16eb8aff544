package docs_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/api"
	"github.com/scaivault/scaivault/test/azuretest"
)

// The guide to Azure works as it stands: its root, its engine, its rotation, its role, and a command with an
// application that is gone afterwards. What az does there is done at the server of the tests; in the place of
// Terraform stands a program that shows what it was given.
func TestAzureGuide(t *testing.T) {
	t.Parallel()
	const guide, tenant = "../../docs/engines/azure.md", "--config tenant_id=$TENANT"
	all, count := blocks(t, guide)
	if count["sh"] != 1 || len(all) != count["sh"]+count["text"] {
		t.Fatalf("%s has blocks that this test does not run: %v", guide, count)
	}
	source := azuretest.Start(t)
	group := source.Scope() + "/resourceGroups/app"
	root := source.NewRoot(t, azuretest.Rights{
		Permissions: []string{"Application.ReadWrite.OwnedBy", "GroupMember.ReadWrite.All"}, OwnsItself: true,
		Roles: map[string]string{source.Scope(): "Role Based Access Control Administrator"},
	})
	before := source.Left()
	v := &vault{bin: build(t)}
	v.startServer(t)
	ca, err := json.Marshal(source.CA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.admin.WriteSecret(t.Context(), "infra/azure/ca", api.SecretWrite{Data: map[string]json.RawMessage{"certificate": ca}}); err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		if b.language != "sh" {
			continue
		}
		if !strings.Contains(b.text, tenant) || !strings.Contains(b.text, "/resourceGroups/app") {
			t.Fatalf("%s does not show %s, or another scope than %s", guide, tenant, group)
		}
		dir := t.TempDir()
		write(t, dir, "terraform", "#!/bin/sh\necho client $AZURE_CLIENT_ID of $AZURE_TENANT_ID with ${#AZURE_CLIENT_SECRET} characters: $*\n")
		if err := os.Chmod(dir+"/terraform", 0o700); err != nil {
			t.Fatal(err)
		}
		here := " --config tls_ca_path=infra/azure/ca"
		for _, service := range []string{"login", "graph", "resource_manager"} {
			here += " --config " + service + "_endpoint=" + source.URL()
		}
		text := strings.NewReplacer(tenant, tenant+here, "infra/azure/root=read,rotate'", "infra/azure/root=read,rotate' --allow 'infra/azure/ca=read'").Replace(b.text)
		cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", text))
		cmd.Env = []string{"PATH=" + v.bin + ":" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken,
			"APP=" + root.ClientID, "PASSWORD=" + root.ClientSecret, "TENANT=" + source.Tenant, "SUBSCRIPTION=" + source.Subscription}
		cmd.WaitDelay = time.Minute
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), " of "+source.Tenant+" with ") || !strings.Contains(string(out), "characters: apply") {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	now := source.Left()
	if now.Recycled = before.Recycled; now != before {
		t.Errorf("left are %s, and there were %s", now, before)
	}
}
