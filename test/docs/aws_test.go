package docs_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/scaivault/scaivault/test/awstest"
)

// The guide to AWS works as it stands: its root, its engine, its role, and a command with a user that
// is gone afterwards. In the place of the AWS CLI stands a program that shows what it was given.
func TestAWSGuide(t *testing.T) {
	t.Parallel()
	const guide, region = "../../docs/engines/aws.md", "--config region=eu-central-1"
	all, count := blocks(t, guide)
	if count["sh"] != 1 || count["json aws-root"] != 1 {
		t.Fatalf("%s has other blocks than this test runs: %v", guide, count)
	}
	front := awstest.Start(t).Front(t)
	v := &vault{bin: build(t)}
	v.startServer(t)
	var root awstest.Keys
	for _, b := range all {
		switch b.language {
		case "json aws-root":
			root = front.User(t, "/", "scaivault-root", b.text)
		case "sh":
			if !strings.Contains(b.text, region) {
				t.Fatalf("%s does not show %s", guide, region)
			}
			dir := t.TempDir()
			write(t, dir, "aws", "#!/bin/sh\necho key $AWS_ACCESS_KEY_ID in $AWS_REGION: $*\n")
			if err := os.Chmod(dir+"/aws", 0o700); err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer(region, region+" --config iam_endpoint="+front.URL+" --config sts_endpoint="+front.URL,
				"AKIAEXAMPLE", root.ID, "a-long-one", root.Secret).Replace(b.text)
			cmd := exec.Command("sh", "-e", write(t, dir, "block.sh", text))
			cmd.Env = []string{"PATH=" + v.bin + ":" + dir + ":" + os.Getenv("PATH"), "HOME=" + dir, "SCAIVAULT_URL=" + v.url, "SCAIVAULT_TOKEN=" + v.adminToken}
			cmd.WaitDelay = time.Minute
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "key AKIA") || !strings.Contains(string(out), "in eu-central-1: s3 ls") {
				t.Fatalf("%v:\n%s", err, out)
			}
		}
	}
	for _, name := range front.Users(t) {
		if strings.HasPrefix(name, "v_") {
			t.Errorf("the credential's user %s is still there", name)
		}
	}
}
