package failpoints_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/scaivault/scaivault/client"
	"github.com/scaivault/scaivault/internal/failpoint"
	"github.com/scaivault/scaivault/test/awstest"
	"github.com/scaivault/scaivault/test/vaulttest"
)

// accounts is the AWS of this package; every scenario has a root of its own in it.
var accounts awstest.Pool

// TestCrashMatrixAWS kills the server at every point that is reached with AWS: a user is made and ended
// in many requests, and the next root exists at the source before anybody has written it down.
func TestCrashMatrixAWS(t *testing.T) {
	t.Parallel()
	for _, s := range everywhere() {
		between := []failpoint.Point{failpoint.F4, failpoint.F5, failpoint.Disabled, failpoint.R2, failpoint.RootSent, failpoint.RootPlanned, failpoint.RootProved}
		if !full() && !slices.Contains(between, s.point) {
			continue
		}
		t.Run(string(s.point), func(t *testing.T) {
			t.Parallel()
			role := newRole()
			inAWS(t, role).play(t, s, role, vaulttest.StartProgram(t, vaulttest.Failing(t)))
		})
	}
}

// inAWS makes a root with the policy of the guide.
func inAWS(t *testing.T, role string) target {
	t.Helper()
	guide, err := os.ReadFile("../../docs/engines/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	_, policy, _ := strings.Cut(string(guide), "```json aws-root\n")
	policy, _, _ = strings.Cut(policy, "```")
	front, name := accounts.Shared(t).Front(t), "scaivault-root-"+role
	root := front.User(t, "/", name, strings.ReplaceAll(policy, "user/scaivault-root", "user/"+name))
	return target{
		engine: "aws",
		config: client.Document{"region": awstest.Region, "iam_endpoint": front.URL, "sts_endpoint": front.URL, "consistency_delay": "1s"},
		form: client.Document{"credential_type": "iam_user",
			"policy_document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:ListGroups","Resource":"*"}]}`},
		root: map[string]string{"access_key_id": root.ID, "secret_access_key": root.Secret},
		users: func(t *testing.T) []string {
			t.Helper()
			return slices.DeleteFunc(front.Users(t), func(name string) bool { return !strings.HasPrefix(name, "v_"+role+"_") })
		},
		login: func(t *testing.T, data map[string]string) error {
			t.Helper()
			users, _ := front.Clients(awstest.Keys{ID: data["access_key_id"], Secret: data["secret_access_key"]})
			_, err := users.ListGroups(t.Context(), &iam.ListGroupsInput{})
			return err
		},
	}
}
